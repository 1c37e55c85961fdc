"""The whole job on the tiny models whose pictures differ in size: from a JSONL file to a profile that prunes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from family_folders import MODELS, save_folder
from PIL import Image

from claspkit.cache.store import FeatureStore
from claspkit.calib.config import RunConfig
from claspkit.calib.folder import RunFolder
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.progress import Reporter
from claspkit.profiles.files import read_profile
from claspkit.runtime.inputs import batch_inputs
from claspkit.runtime.models import load_model
from claspkit.runtime.pruner import prune

ROWS = 24
SIZES = ((90, 60), (64, 64), (20, 70), (48, 24))


def write_rows(folder: Path) -> Path:
    """Counting questions, each about a picture of its own, of four sizes in turn."""
    folder.mkdir()
    lines = []
    for number in range(ROWS):
        width, height = SIZES[number % len(SIZES)]
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "prompt": "How many stars are there?", "answer": "3"}))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "data.jsonl"


@pytest.mark.parametrize("family", MODELS)
def test_a_family_is_calibrated_and_pruned_by_its_profile(family: str, tmp_path: Path) -> None:
    """Every picture encoded once, every candidate scored on every row, and the profile runs on the same model."""
    save_folder(family, tmp_path / "model")
    config = RunConfig(
        model=str(tmp_path / "model"),
        data=str(write_rows(tmp_path / "data")),
        per_class=ROWS,
        holdout=0.5,
        budget="1/3",
        rhos=(0.2,),
        max_new_tokens=2,
    )
    outcome = Pipeline(config, RunFolder(tmp_path / "run"), Reporter(quiet=True)).run()
    assert outcome is not None
    counting = next(row for row in outcome.summary["classes"] if row["intent"] == "counting")
    assert counting["n_search"] + counting["n_holdout"] == ROWS
    assert min(counting["n_search"], counting["n_holdout"]) >= 10
    assert counting["unpruned"] is not None
    assert len(counting["curves"]) == 5
    with FeatureStore.open(tmp_path / "run" / "cache") as store:
        assert len(store.digests) == ROWS == outcome.profile.calibration.vision_passes
        assert all(store.grid(name) for name in store.digests)
    profile = read_profile(tmp_path / "run" / "profile")
    loaded = load_model(str(tmp_path / "model"))
    assert profile.budget.scaling == loaded.family.facts(loaded.model).scaling
    pictures = [Image.open(tmp_path / "data" / f"{number}.png") for number in range(2)]
    inputs = batch_inputs(loaded, pictures, ["How many stars are there?", "What is it?"])
    with prune(loaded.model, profile, processor=loaded.processor) as pruned:
        loaded.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert pruned.intents[0] == "counting"
    assert [stage.after_layer for stage in pruned.last] == [stage.after_layer for stage in profile.budget.stages]
