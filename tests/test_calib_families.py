"""The whole job on the tiny models whose pictures differ in size: from a JSONL file to a profile that prunes."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from family_folders import MODELS, save_folder
from PIL import Image

from claspkit.cache.store import FeatureStore
from claspkit.calib.apply import Asker, draw
from claspkit.calib.config import RunConfig
from claspkit.calib.demo import Demo, Example
from claspkit.calib.folder import RunFolder
from claspkit.calib.gallery import read_gallery
from claspkit.calib.images import open_image
from claspkit.calib.overlay import MIN_PANEL, view_captions
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.progress import Reporter
from claspkit.calib.seen import see
from claspkit.profiles.files import read_profile
from claspkit.runtime.inputs import batch_inputs
from claspkit.runtime.models import LoadedModel, load_model
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
    check_gallery(tmp_path / "run", tmp_path / "data", loaded)
    check_demo(tmp_path / "run" / "profile", tmp_path / "data" / "0.png", loaded)


def check_demo(profile: Path, picture: Path, loaded: LoadedModel) -> None:
    """The page gets a drawing of every stage, and words about every view."""
    demo = Demo(loaded, [profile], [Example("a picture", picture.read_bytes(), "")], 2)
    asked = {"picture": "example:0", "prompt": "How many?", "profile": 0, "intent": None, "compare": False}
    stages = demo.ask(asked)["stages"]
    assert stages
    _, tokens = see(loaded, Image.open(picture))
    for stage in stages:
        drawing = Image.open(io.BytesIO(base64.b64decode(stage["drawing"].partition(",")[2])))
        assert min(drawing.size) >= MIN_PANEL / 2
        assert all(f"{view.name}: " in stage["caption"] for view in tokens.views if not tokens.plain)


def check_gallery(run: Path, data: Path, loaded: LoadedModel) -> None:
    """The report draws the tokens that the pruned model keeps, where the family says that they lie."""
    profile = read_profile(run / "profile")
    gallery = read_gallery(run / "gallery.json", profile.profile_id)
    assert gallery is not None
    assert gallery.missing == ()
    assert 1 < len(gallery.shots) <= 4
    text = (run / "report.html").read_text()
    assert len(text.encode()) < 2_000_000
    asker = Asker(loaded, profile, run / "profile")
    same = total = 0
    for shot in gallery.shots:
        picture = open_image(shot.image, data)
        shown, tokens = see(loaded, picture)
        assert (shot.tokens, shot.size) == (tokens, shown.size)
        assert Image.open(io.BytesIO(base64.b64decode(shot.jpeg))).size == shot.size
        answer = asker.ask(picture, shot.prompt, shot.intent, 2, compare=False)
        assert answer.visual_tokens == tokens.count
        alone = {stage.after_layer: stage.kept for stage in answer.stages}  # without stages that drop nothing of it
        before = tuple(range(tokens.count))
        for stage in shot.stages:
            assert len(stage.kept) == len(alone.get(stage.after_layer, before))
            same += len(set(stage.kept) & set(alone.get(stage.after_layer, before)))
            total += len(stage.kept)
            before = stage.kept
        name = f"shot-{shot.intent}-{shot.uid}-0"
        drawings = re.findall(rf'<svg [^>]*aria-labelledby="{name}(?:-\d)?-t .*?</svg>', text, flags=re.DOTALL)
        assert len(drawings) == len(tokens.views)
        for view, drawing in zip(tokens.views, drawings, strict=True):
            frames = re.findall(r'<path class="(pivot|completion)" d="(.*?)"', drawing)
            assert sum(path.count("z") for _, path in frames) == len(view.cells(shot.stages[0].kept))
        for line in view_captions(tokens, shot.stages[0]):
            assert f"<small>{line}</small>" in text
        assert draw(loaded, picture, answer).width > MIN_PANEL
    assert same / total > 0.9  # float16 features of the cache may turn a near tie of two tokens
