"""Whole calibrations of mini in which something gives NaN: marked, said, never chosen."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pipeline_runs import calibrate, data_of
from torch import Tensor

from claspkit.calib import feeding
from claspkit.calib.evaluator import BlockResult, Evaluator
from claspkit.calib.finished import read_finished
from claspkit.calib.folder import RunFolder
from claspkit.calib.ledger import HOLDOUT, SEARCH, Ledger
from claspkit.calib.power_run import observe
from claspkit.calib.progress import Reporter
from claspkit.calib.report import render_report
from claspkit.calib.samples import Sample
from claspkit.calib.space import Prototype
from claspkit.calib.strategies import STRATEGIES
from claspkit.calib.study_scores import score_table
from claspkit.calib.table import not_finite_words
from claspkit.profiles.errors import NotFiniteError
from claspkit.runtime.prefill import Prefill

INTENTS = ("counting", "object")
RUN: dict[str, object] = {"rhos": (0.2, 0.5)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Samples of two classes."""
    return str(data_of(tmp_path_factory.mktemp("data"), INTENTS))


@pytest.fixture(scope="module")
def clean(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exhaustive run in which all is well."""
    run = tmp_path_factory.mktemp("clean") / "run"
    calibrate(run, data=data, strategy="exhaustive", **RUN)
    return run


def winner_of(run: Path) -> str:
    """Prototype of a configuration that won the clean search."""
    tested: set[str] = {str(row["tested"]) for row in json.loads((run / "summary.json").read_text())["classes"]}
    return next(name.split("/")[0] for name in sorted(tested - {"None", "default/0.9"}))


def spoil_prototype(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one prototype's fusion NaN, its refined forms included."""
    sound = cast(property, Prototype.__dict__["weights"]).fget
    assert sound is not None

    def weights(self: Prototype) -> tuple[float, ...]:
        return (math.nan,) * len(self.layers) if self.name.split("[")[0] == name else sound(self)

    monkeypatch.setattr(Prototype, "weights", property(weights))


def spoil_rho(rho: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the attention NaN in the rows of one split, whatever shares their batch."""
    drop = Prefill.drop

    def spoiled(self: Prefill, stage: int, after_layer: int, saliency: Tensor) -> None:
        rows = [row for row, plan in enumerate(self.plan.rows) if plan.rho == rho]
        saliency = saliency.clone()
        saliency[rows] = math.nan
        drop(self, stage, after_layer, saliency)

    monkeypatch.setattr(Prefill, "drop", spoiled)


@pytest.mark.parametrize(
    "strategy", [name if name == "race" else pytest.param(name, marks=pytest.mark.long) for name in STRATEGIES]
)
def test_a_prototype_that_gives_nan_is_marked_and_never_chosen(
    strategy: str,
    data: str,
    clean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The would-be winner's: the run ends, says so thrice, and all others have the scores they would have had."""
    spoilt = winner_of(clean)
    spoil_prototype(spoilt, monkeypatch)
    outcome = calibrate(tmp_path / "run", data=data, strategy=strategy, **RUN)
    marked = 0
    for row in outcome.summary["classes"]:
        assert not str(row["tested"]).startswith(spoilt)
        assert not row["chosen"].startswith(spoilt)
        assert spoilt not in row["curves"]
        marked += len(row["not_finite"])
        for mark in row["not_finite"]:
            assert mark["candidate"].startswith(f"{spoilt}/")
            assert mark["samples"] >= row["n_search"] >= 10
    assert marked >= 2 * (1 if strategy == "two-pass" else 2)
    json.loads(RunFolder(tmp_path / "run").summary.read_text(), parse_constant=pytest.fail)  # no NaN in the file
    told = not_finite_words(outcome.summary["classes"])
    assert told is not None
    assert told in " ".join(capsys.readouterr().err.split())
    assert told.split(":")[0] in render_report(outcome.summary)
    sound = {e.key: e for e in Ledger.read(clean / "ledger.jsonl").entries()}
    for found in Ledger.read(tmp_path / "run" / "ledger.jsonl").entries():
        if found.key in sound and not found.candidate.startswith(spoilt):
            assert found == sound[found.key]
    assert calibrate(tmp_path / "run", data=data, strategy=strategy, **RUN).profile == outcome.profile


def test_batch_mates_of_a_candidate_that_gives_nan_are_unharmed(
    data: str, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One split of every prototype is broken: the other splits, of the same batches, answer as ever."""
    spoil_rho(0.2, monkeypatch)
    calibrate(tmp_path / "run", data=data, strategy="exhaustive", **RUN)
    sound = {e.key: e for e in Ledger.read(clean / "ledger.jsonl").entries() if e.split == SEARCH}
    found = {e.key: e for e in Ledger.read(tmp_path / "run" / "ledger.jsonl").entries() if e.split == SEARCH}
    assert found.keys() == sound.keys()
    for key, each in found.items():
        if each.candidate.endswith("/0.2"):
            assert all(map(math.isnan, each.scores))
        else:
            assert each == sound[key]
    assert observe(read_finished(tmp_path / "run")) is not None  # the commands that take a finished run take this one


def test_a_default_that_gives_nan_everywhere_stops_the_run(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the search, with what was seen and what to do; the same command says it again."""
    spoil_rho(0.9, monkeypatch)
    for _ in range(2):
        with pytest.raises(NotFiniteError, match=r"default/0\.9, gave NaN or infinity in every class.*bfloat16"):
            calibrate(tmp_path / "run", data=data)
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("greedy", [True, False])
def test_an_unpruned_model_that_gives_nan_has_no_score(
    greedy: bool, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None with a reason, the profile as ever; by our own decoding and by the model's ``generate``."""
    monkeypatch.setattr(feeding, "is_plainly_greedy", lambda model: greedy)
    unpruned = Evaluator.unpruned

    def broken(self: Evaluator, block: Sequence[Sample]) -> BlockResult:
        norm: Any = self._loaded.model.model.language_model.norm
        handle = norm.register_forward_hook(lambda _, __, output: output * math.nan)
        try:
            return unpruned(self, block)
        finally:
            handle.remove()

    monkeypatch.setattr(Evaluator, "unpruned", broken)
    outcome = calibrate(tmp_path / "run", data=data)
    rows = [row for row in outcome.summary["classes"] if row["n_holdout"]]
    assert len(rows) == len(INTENTS)
    for row in rows:
        assert row["unpruned"] is None
        assert row["unpruned_reason"] == (
            f"the unpruned model gave NaN or infinity on {row['n_holdout']} of {row['n_holdout']} holdout samples"
        )
        assert row["default"] is not None
    assert "unpruned" in str(not_finite_words(rows))


def test_commands_on_a_finished_run_leave_such_scores_out(clean: Path, tmp_path: Path) -> None:
    """`power` skips a class that was not tested, the study of routing errors says which configuration it is about."""
    run = read_finished(clean)
    spoilt = Ledger.open(tmp_path / "ledger.jsonl")
    tested = observe(run)[0]
    spoilt.put(
        replace(e, scores=(math.nan, *e.scores[1:])) if e.key == (HOLDOUT, tested.intent, tested.candidate, 0) else e
        for e in run.ledger.entries()
    )
    other = replace(run, ledger=spoilt)
    assert [row.intent for row in observe(other)] == [row.intent for row in observe(run)[1:]]
    with pytest.raises(NotFiniteError, match=rf"{tested.candidate} gave NaN.*class '{tested.intent}'"):
        score_table(other, [run.space.find(tested.candidate)], Reporter(quiet=True))
    spoilt.close()
