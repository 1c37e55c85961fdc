"""A real race over mini: the pooled configuration beside its classes, and what its holdout says about power."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from pipeline_runs import calibrate

from claspkit.calib.cli import main
from claspkit.calib.finished import read_finished
from claspkit.calib.ledger import HOLDOUT, Ledger
from claspkit.calib.power_run import observe
from claspkit.calib.space import make_space
from claspkit.profiles.errors import MismatchError
from claspkit.profiles.files import read_profile

RHOS = (0.1, 0.6)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a small race, and its summary."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, calibrate(folder, strategy="race", rhos=RHOS, holdout=0.4).summary


def test_the_pooled_one_is_scored_on_every_holdout_and_decides_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    """Its scores are in the ledger, the means are the headline's, and no class takes it that did not test it."""
    folder, summary = finished
    found, ledger = summary["pooled"], Ledger.read(folder / "ledger.jsonl")
    for row in summary["classes"]:
        assert len(ledger.scores(HOLDOUT, row["intent"], found["candidate"])) == row["n_holdout"]
        assert row["chosen"] in (summary["default_candidate"], row["tested"])
    assert found["compared"] == len(make_space(summary["model"]["default_layer"], RHOS).candidates)
    assert found["default"] == pytest.approx(fmean(row["default"] for row in summary["classes"]))
    assert found["profile_to_pooled"]["difference"] == pytest.approx(found["profile"] - found["score"])
    assert json.loads((folder / "summary.json").read_text())["pooled"] == found


def test_a_finished_run_is_not_taken_in_by_the_extra_scores(finished: tuple[Path, dict[str, Any]]) -> None:
    """The winners are those that were tested, also where the default won and only the pooled one stands beside it."""
    folder, summary = finished
    tested = {row["intent"]: row["tested"] for row in summary["classes"]}
    run = read_finished(folder)
    assert {intent: candidate.id for intent, candidate in run.winners().items()} == tested
    assert summary["pooled"]["candidate"] != summary["default_candidate"] in tested.values()
    short = replace(run, ledger=Ledger(folder / "ledger.jsonl", {}, None))
    with pytest.raises(MismatchError, match=r"has 0 scores of .* --fresh"):
        short.winners()


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What ``claspkit power`` prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["power", *map(str, words)])
    assert not ended.value.code
    return capsys.readouterr().out


def test_a_run_says_what_is_not_given(
    finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its disagreement, classes and holdout share; an option beats it; a row per class that was tested."""
    folder, _ = finished
    tested = {spec.intent: spec.difference for spec in read_profile(folder / "profile").classes if spec.p_value}
    observed = observe(read_finished(folder))
    assert {row.intent: pytest.approx(row.differences.mean()) for row in observed} == tested
    facts = json.loads(answer(capsys, "--difference", 1, "--run", folder, "--json"))
    squares = np.concatenate([row.differences for row in observed]) ** 2
    assert facts["disagreement"] == pytest.approx(squares.mean())
    assert (facts["classes"], facts["holdout_share"]) == (9, 0.4)
    assert [row["intent"] for row in facts["observed"]] == list(tested)
    assert facts["observed"][0]["disagreement"] == pytest.approx((observed[0].differences ** 2).mean())
    given = ("--disagreement", 0.5, "--holdout", 0.5, "--classes", 2)
    more = json.loads(answer(capsys, "--difference", 1, "--run", folder, *given, "--json"))
    assert (more["disagreement"], more["holdout_share"], more["classes"]) == (0.5, 0.5, 2)
    lines = answer(capsys, "--difference", 1, "--run", folder).splitlines()
    assert all(any(line.split()[:1] == [name] for line in lines) for name in tested)


def test_a_run_without_a_disagreement_asks_for_one(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the default won every search nothing is measured; with one given, the rest still comes of the run."""
    folder, _ = finished
    monkeypatch.setattr("claspkit.calib.cli_power.observe", lambda run: [])
    with pytest.raises(SystemExit) as ended:
        main(["power", "--difference", "1", "--run", str(folder)])
    assert ended.value.code == 2
    assert "no tested configuration ever scored differently" in capsys.readouterr().err
    facts = json.loads(answer(capsys, "--difference", 1, "--run", folder, "--disagreement", 0.1, "--json"))
    assert (facts["observed"], facts["holdout_share"]) == ([], 0.4)
