"""The benchmark of the search: its recorded scores are today's space, its made-up ones are what they claim to be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import pstdev
from typing import Any

import numpy as np
import pytest
from house import ROOT
from hypothesis import given
from hypothesis import strategies as st

from claspkit.calib import evidence, halving
from claspkit.calib.ledger import SEARCH, Entry, Ledger
from claspkit.calib.space import make_space
from claspkit.profiles.intents import INTENT_IDS


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def script() -> Any:
    """What is run."""
    return import_module("search")


@pytest.fixture
def simulated() -> Any:
    """Its calibrations without a model."""
    return import_module("_simulated")


@pytest.fixture
def recorded() -> Any:
    """The scores in the repository."""
    return import_module("_recorded").read_recorded()


def of_two_classes(recorded: Any, right: float, samples: int = 30) -> Any:
    """The same space with two classes: nobody is ever right, and everybody always or with a share of the samples."""
    none, some = np.zeros((55, samples)), np.zeros((55, samples))
    some[:, : round(right * samples)] = 1
    return type(recorded)(recorded.space, recorded.block_size, {"object": none, "text": some})


def test_the_recorded_candidates_are_todays_space(recorded: Any) -> None:
    """In its order, for each of the nine classes; two means that the run's own ledger gave."""
    raw = json.loads((ROOT / "benchmarks" / "mini_scores.json").read_text(encoding="utf-8"))
    assert raw["candidates"] == [candidate.id for candidate in make_space(7).candidates]
    assert set(recorded.classes) == set(INTENT_IDS)
    assert all(scores.shape[0] == 55 and scores.shape[1] in (200, 201) for scores in recorded.classes.values())
    assert all(set(np.unique(scores)) <= {0.0, 1.0} for scores in recorded.classes.values())
    assert recorded.classes["object"].mean(axis=1)[0] == 0.35
    assert recorded.classes["counting"].mean(axis=1).max() == 0.875
    assert recorded.sizes(70) == [32, 32, 6]
    assert recorded.sizes(64) == [32, 32]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda found: found["candidates"].reverse(), "not the space's 55"),
        (lambda found: found["classes"]["text"].pop(), "'text': 54 rows"),
        (lambda found: found["classes"]["text"].append("01"), "of \\[2, 200\\] characters"),
        (lambda found: found["classes"]["text"].__setitem__(0, "2" * 200), "all 0 and 1"),
    ],
)
def test_other_scores_are_refused(damage: Any, told: str, tmp_path: Path) -> None:
    """Candidates of another space or order, a row too few, one of another length, other digits."""
    reading = import_module("_recorded")
    found = json.loads(reading.SCORES.read_text(encoding="utf-8"))
    damage(found)
    (tmp_path / "scores.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        reading.read_recorded(tmp_path / "scores.json")


def written_run(folder: Path, classes: dict[str, Any], **facts: object) -> Path:
    """A run folder with the ledger of an exhaustive search in blocks of 32."""
    space = make_space(7)
    known = {"model": "mini", "per_class": 220, "budget": "1/9", "holdout": 0.1, "strategy": "exhaustive", "seed": 0}
    lock = {"facts": {**known, "space": space.sha256, "block_size": 32, **facts}}
    (folder / "config.lock.json").write_text(json.dumps(lock), encoding="utf-8")
    ledger = Ledger.open(folder / "ledger.jsonl")
    ledger.put(
        Entry(SEARCH, intent, candidate.id, start // 32, "", tuple(row[start : start + 32].tolist()), ())
        for intent, scores in classes.items()
        for candidate, row in zip(space.candidates, scores, strict=True)
        for start in range(0, len(row), 32)
    )
    ledger.close()
    return folder


def test_a_run_is_recorded_as_it_was(recorded: Any, script: Any, tmp_path: Path) -> None:
    """The scores in the repository, played into a ledger and taken from it, are the same file but for the commit."""
    reading = import_module("_recorded")
    reading.record(written_run(tmp_path, recorded.classes), tmp_path / "scores.json")
    again, known = (json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "scores.json", reading.SCORES))
    assert again.pop("commit")
    assert known.pop("commit")
    assert again == known
    assert script.parse(["--record", str(tmp_path)]).record == tmp_path


@pytest.mark.parametrize("facts", [{"strategy": "race"}, {"space": "another"}])
def test_a_run_that_is_not_exhaustive_is_not_recorded(facts: dict[str, str], recorded: Any, tmp_path: Path) -> None:
    """Nor is one of another space, or with scores between 0 and 1; the file stays."""
    reading = import_module("_recorded")
    with pytest.raises(ValueError, match="no exhaustive search"):
        reading.record(written_run(tmp_path, {}, **facts), tmp_path / "scores.json")
    (tmp_path / "other").mkdir()
    thirds = {intent: scores / 3 for intent, scores in recorded.classes.items()}
    with pytest.raises(ValueError, match="all 0 and 1"):
        reading.record(written_run(tmp_path / "other", thirds), tmp_path / "scores.json")
    assert not (tmp_path / "scores.json").exists()


def test_a_strategy_is_driven_to_its_end(simulated: Any, recorded: Any) -> None:
    """Exhaustive looks at everything and takes the recorded best; the others look at less, counted once."""
    scores = recorded.classes["counting"]
    found = simulated.drive(recorded, "exhaustive", scores)
    assert found.evaluations == scores.size
    assert found.best == recorded.space.candidates[int(scores.mean(axis=1).argmax())]
    assert simulated.drive(recorded, "two-pass", scores).evaluations == 15 * 200
    assert simulated.drive(recorded, "race", np.tile(scores, 5)).evaluations < 0.3 * 15 * 1000


def test_what_is_alike_agrees_as_recorded(simulated: Any, recorded: Any) -> None:
    """Every question is a recorded sample with the candidates' names changed, one change for a picture's three."""
    scores, random = recorded.classes["text"], np.random.default_rng(0)
    drawn = simulated.alike(scores, 2000, random)
    assert drawn.shape == (55, 6000)
    assert set(drawn.sum(axis=0)) <= set(scores.sum(axis=0))
    # Means of 6,000 zeros and ones, three of which may go together: 5 standard errors are 0.056 at most.
    assert np.abs(drawn.mean(axis=1) - scores.mean()).max() < 0.056
    assert abs(scores.mean(axis=1) - scores.mean()).max() > 0.1, "the recorded ones do differ"
    same = simulated.alike(np.repeat(scores[:, :1], 9, axis=1), 20, random).reshape(55, 20, 3)
    assert (same == same[:, :, :1]).all()
    assert len({picture.tobytes() for picture in same[:, :, 0].T}) > 1


def test_what_is_planted_only_gains(simulated: Any, recorded: Any) -> None:
    """The rows named become better by as much as was asked, on the same questions; nothing else changes."""
    random = np.random.default_rng(0)
    scores = simulated.alike(recorded.classes["object"], 3000, random)
    mean = recorded.classes["object"].mean()
    better = simulated.plant(scores, [3, 7], 0.12, mean, random)
    changed = better != scores
    assert np.flatnonzero(changed.any(axis=1)).tolist() == [3, 7]
    assert (better >= scores).all()
    assert not (changed[3] & (better[7] == 0)).any()
    assert (better - scores)[[3, 7]].mean() == pytest.approx(0.12, abs=0.02)
    assert (simulated.plant(scores, [3], 1 - mean, mean, random)[3] == 1).all()


def winner_on(simulated: Any, recorded: Any, gains: Sequence[float]) -> Any:
    """A class whose winner is right where ``gains`` says so, and whose default never is."""
    space = recorded.space
    return simulated.Searched(
        "object",
        space.candidates[5],
        {space.default.id: (0.0,) * len(gains), space.candidates[5].id: tuple(gains)},
    )


def test_the_decision_goes_by_pictures(simulated: Any, recorded: Any) -> None:
    """Twelve wins on four pictures are four flips, p = 1/16; taken for independent they are twelve."""
    found = winner_on(simulated, recorded, [1.0] * 12 + [0.0] * 18)
    (grouped,) = simulated.judge(recorded, [found], 0)
    (naive,) = simulated.judge(recorded, [found], 0, questions=1)
    assert (grouped.searched, grouped.p_holm) == (False, 1 / 16)
    assert (naive.searched, naive.p_holm) == (True, 1 / 2**12)


def test_a_search_sees_half_of_the_pictures(simulated: Any, recorded: Any) -> None:
    """What wins on the search half alone is chosen, and its holdout scores are those of the other half."""
    scores = np.zeros((55, 303))  # 101 pictures, 50 of them held out
    scores[9, 150:] = 1
    scores[4, :150] = 1
    found = simulated.search(recorded, "exhaustive", "text", scores, np.random.default_rng(0))
    assert found.winner == recorded.space.candidates[9]
    assert found.holdout == dict.fromkeys((recorded.space.default.id, found.winner.id), (0.0,) * 150)


def test_haste_changes_no_decision(simulated: Any, recorded: Any) -> None:
    """The same winners and p-values without intervals and fractions; both are back afterwards, also after a failure."""

    def decided() -> list[tuple[Any, Any, float | None]]:
        random = np.random.default_rng(3)
        found = [
            simulated.search(recorded, "race", intent, simulated.alike(recorded.classes[intent], 80, random), random)
            for intent in ("object", "text", "counting")
        ]
        return [(one.winner, one.chosen, one.p_holm) for one in simulated.judge(recorded, found, 1)]

    before, slow = (dict(vars(evidence)), dict(vars(halving))), decided()
    with simulated.quickly():
        assert (vars(evidence)["_interval"], vars(halving)["pstdev"]) != (before[0]["_interval"], before[1]["pstdev"])
        assert decided() == slow
    with pytest.raises(KeyError, match="inside"), simulated.quickly():
        raise KeyError("inside")
    assert (vars(evidence), vars(halving)) == before
    assert any(p_value is not None for _, _, p_value in slow)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=200))
def test_the_deviation_of_whole_numbers(values: list[float]) -> None:
    """The statistics module's, and exactly zero where that is."""
    found = import_module("_simulated").whole_pstdev(values)
    assert found == pytest.approx(pstdev(values), rel=1e-14)
    assert (found == 0) == (len(set(values)) == 1)


def test_cost_and_regret_are_of_the_seeds(script: Any) -> None:
    """Costs of all classes are added before they are divided; bars are for all classes, not for one."""
    evaluations = np.array([[[10.0, 20.0]] * 2, [[100.0, 100.0], [50.0, 100.0]], [[1000.0, 500.0]] * 2])
    regrets = np.array([[[0.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0]] * 2])
    rows = script.cost_rows(evaluations, regrets)
    assert [round(row.value, 6) for row in rows] == [0.175, 0.02, 0.25, 0.75, 0.5, 0.0]
    assert (rows[2].low, rows[2].high, rows[2].holds) == (-0.125, 0.625, False)
    assert (rows[0].bar, rows[0].holds) == ("<= 0.3", True)
    assert {row.holds for row in script.cost_rows(evaluations, regrets, "text: ")} == {None}


def test_regret_is_measured_against_the_recorded_truth(script: Any, recorded: Any) -> None:
    """Where one candidate alone is ever right nobody has any; two passes miss it where the default's split is wrong."""
    scores = np.zeros((55, 40))
    scores[[candidate.id for candidate in recorded.space.candidates].index("middle/0.2")] = 1
    one = type(recorded)(recorded.space, 32, {"text": scores})
    evaluations, regrets = script.searches(one, seeds=2, samples=96)
    assert regrets[:, :, 0].tolist() == [[0, 0], [100, 100], [0, 0]]
    assert evaluations[1:, :, 0].tolist() == [[15 * 96] * 2, [55 * 96] * 2]
    assert (evaluations[0] < 0.5 * evaluations[2]).all()


def test_what_cannot_be_missed_is_found(script: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Always right among the never right: found and taken every time; nothing is where nothing was planted."""
    monkeypatch.setattr(script, "GAIN", 1.0)
    rows = script.planted(of_two_classes(recorded, 0.5), "race", 60, 3, by_class=True)
    assert [(row.value, row.unit) for row in rows] == [(1, "of 3"), (1, "of 3"), (0, "of 3"), (1, "of 3")] * 2
    assert [row.holds for row in rows[:3]] == [True, None, True]
    assert rows[3].what == "object: planted candidate found and taken"


def test_nobody_wins_where_all_answer_alike(script: Any, recorded: Any) -> None:
    """The race keeps the default, so there is nothing to test."""
    rows = script.false_wins(of_two_classes(recorded, 1.0), "race", 60, 4, by_class=True)
    assert [(row.value, row.unit) for row in rows] == [(0, "of 8"), (0, "of 4"), (0, "of 4"), (0, "of 4"), (0, "of 4")]


def test_the_script_prints_every_row(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny run as JSON, the same twice; rows of every class on request."""
    tiny = ["--seeds", "1", "--calibrations", "1", "--samples", "60", "--json"]
    script.main([*tiny, "--by-class"])
    first = json.loads(capsys.readouterr().out)
    script.main(tiny)
    again = json.loads(capsys.readouterr().out)
    assert [row for row in first["rows"] if row in again["rows"]] == again["rows"]
    assert len(again["rows"]) == 15
    assert len(first["rows"]) == len({row["what"] for row in first["rows"]}) == 15 + 9 * 6 + 9 + 2 * 3
    assert [row["bar"] for row in again["rows"] if row["bar"]] == (
        ["<= 0.3", "<= 0.2", "<= 0.05", "<= 0.05"] + [">= 0.95", "<= 0.05"] * 2
    )
    assert "60 samples per class, 1 seeds" in first["title"]


def test_a_wrong_command_line_is_refused(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Impossible counts and unknown strategies end in the usage text."""
    for wrong in (["--seeds", "0"], ["--calibrations", "0"], ["--samples", "59"], ["--strategy", "guess"]):
        with pytest.raises(SystemExit):
            script.parse(wrong)
    assert "usage:" in capsys.readouterr().err
