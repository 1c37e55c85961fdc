"""The rows of an evaluation: whole data sets on the hub, the measure that goes with each, memory that is too small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from calib_data import cache_known, hub_cache, keep_locks_in
from evaluations import PROFILE, drawn, write_rows

from claspkit.calib.data_benchmarks import BENCHMARKS
from claspkit.calib.data_mixture import OTHERS
from claspkit.calib.evaluate import Setting, evaluate
from claspkit.calib.evaluate_data import MINI_ROWS, MINI_SEED, Rows, read_rows
from claspkit.calib.evaluate_ways import read_ways
from claspkit.calib.progress import Reporter
from claspkit.profiles.errors import BadDataError, ResourceError
from claspkit.runtime.models import load_model

QUIET = Reporter(quiet=True)
COUNT = 12  # rows of a stand-in; a calibration with one sample per class would read four


def read(data: list[str], out: Path, max_rows: int | None = None) -> list[Rows]:
    """The rows of some data sets."""
    return read_rows(data, "mini", out, image_root=None, max_rows=max_rows, seed=MINI_SEED, report=QUIET)


def test_data_sets_on_the_hub_are_read_whole_with_the_measure_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where pictures lie in a table of their own; --max-rows cuts them."""
    keep_locks_in(monkeypatch, tmp_path_factory)
    cache = hub_cache(monkeypatch, tmp_path / "cache")
    measures = {
        "lmms-lab/POPE": "f1",
        "lmms-lab/MME": "total",
        "lmms-lab/MMBench": "circular",
        "lmms-lab/GQA:testdev_balanced_instructions@testdev": "accuracy",
        "lmms-lab/ScienceQA@test": "accuracy",
    }
    for dataset in (*OTHERS, *BENCHMARKS):
        if any(name.startswith(dataset.id) for name in measures):
            cache_known(cache, dataset, COUNT)
    found = read(list(measures), tmp_path / "out")
    assert {rows.data: rows.measure for rows in found} == measures
    assert [len(rows.samples) for rows in found] == [COUNT] * len(measures)
    assert [rows.split for rows in found] == ["test", "test", "dev", "testdev", "test"]
    assert [len(rows.samples) for rows in read(list(measures), tmp_path / "out", 5)] == [5] * len(measures)
    assert all((rows.root / rows.samples[0].image).is_file() for rows in found)


def test_mini_is_drawn_from_pictures_of_its_own(tmp_path: Path) -> None:
    """So many questions, of a seed that no calibration has by default."""
    (rows,) = read(["mini"], tmp_path)
    assert (len(rows.samples), rows.revision) == (MINI_ROWS, f"seed:{MINI_SEED}")
    (few,) = read(["mini"], tmp_path, 20)
    assert few.samples == rows.samples[:20]


def test_rows_that_cannot_be_measured_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    """MME's total of single questions."""
    yes_no = [sample for sample in drawn(tmp_path, 18) if sample.answers[0] in ("yes", "no")]
    rows = read([str(write_rows(tmp_path, yes_no, "mme.jsonl", lambda _: {"scorer": "mme@1"}))], tmp_path)
    with pytest.raises(BadDataError, match="pictures with two questions"):
        evaluate(Setting(load_model("mini"), 4, 8), read_ways([PROFILE], []), rows, tmp_path, QUIET)
    assert not (tmp_path / "answers.jsonl").exists()


def test_memory_that_is_too_small_names_the_option(tmp_path: Path) -> None:
    """As CUDA says it."""
    loaded = load_model("mini")
    rows = read([str(write_rows(tmp_path, drawn(tmp_path, 4)))], tmp_path)
    crowded = replace(loaded, model=Crowded(loaded.model))
    with pytest.raises(ResourceError, match=r"batch of 4 .*--batch-size"):
        evaluate(Setting(crowded, 4, 8), read_ways([PROFILE], [])[:1], rows, tmp_path, QUIET)


class Crowded:
    """A model on a device that is full."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.generate: Callable[..., None] = self._refuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _refuse(self, **_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")
