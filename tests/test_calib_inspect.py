"""``claspkit inspect`` on a real run of mini: finished, killed at any line of its ledger, and before any score."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from commands import claspkit
from pipeline_runs import calibrate, run_until
from rich.console import Console

from claspkit.calib.inspect_table import print_inspection
from claspkit.calib.inspecting import SECTIONS, inspect_run
from claspkit.calib.ledger import HOLDOUT, SEARCH, UNPRUNED
from claspkit.calib.run_labels import label_facts
from claspkit.calib.samples import Source, make_sample
from claspkit.calib.view import read_view
from claspkit.profiles.intents import INTENT_IDS
from claspkit.router.labels import Label

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e[bold red]x"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that came to its end."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    calibrate(folder)
    return folder


@pytest.fixture
def killed(finished: Path, tmp_path: Path) -> Path:
    """The same run as it was in the middle of its third class: fewer lines, the last one torn, no result."""
    run = Path(shutil.copytree(finished, tmp_path / "killed"))
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    third = [number for number, line in enumerate(lines) if b'"class":"text"' in line]
    (run / "ledger.jsonl").write_bytes(b"".join(lines[: third[1] + 1]) + lines[third[1] + 1][:50])
    for name in ("summary.json", "report.html", "profile/profile.json"):
        (run / name).unlink()
    return run


def printed(facts: dict[str, Any], width: int = 100, full: bool = False) -> str:
    """What a terminal of that width shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_inspection(facts, console, full=full)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_a_finished_run_is_told_as_its_summary_and_ledger_have_it(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claspkit("inspect", str(finished), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    summary = json.loads((finished / "summary.json").read_text())
    assert facts["state"] == "finished"
    assert facts["next"] is None
    assert facts["summary"] == summary
    assert facts["progress"]["evaluations"] == summary["cost"]["candidate_evaluations"]
    for row, known in zip(facts["classes"], summary["classes"], strict=True):
        assert row["state"] == "decided"
        assert {name: row[name] for name in row.keys() & known.keys()} == {
            name: known[name] for name in row.keys() & known.keys()
        }
        assert row["best_so_far"]["search_samples"] == row["n_search"]
    assert [row["intent"] for row in facts["race"]] == list(INTENT_IDS)
    assert facts["costs"]["evaluations"] + facts["costs"]["holdout_evaluations"] == facts["progress"]["evaluations"]
    assert facts["labels"]["labelled"] == facts["labels"]["samples"] == sum(facts["labels"]["sources"].values())
    assert facts["quarantine"] == []


def test_the_race_has_the_winner_and_the_scores_of_the_ledger(finished: Path) -> None:
    view = read_view(finished)
    assert view.ledger is not None
    assert view.summary is not None
    facts = inspect_run(view, ["race"])
    for race, row in zip(facts["race"], view.summary["classes"], strict=True):
        won = [each for each in race["rungs"][-1]["standings"] if each["fate"] == "won"]
        assert [each["candidate"] for each in won] == [row["tested"]]
        for each in race["candidates"]:
            scores = view.ledger.scores(SEARCH, race["intent"], each["candidate"])
            assert (each["samples"], each["score"]) == (len(scores), pytest.approx(fmean(scores)))


def test_the_terminal_says_classes_race_costs_labels_and_what_was_left_out(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claspkit("inspect", str(finished)) == 0
    told = capsys.readouterr().out
    for part in ("Classes", "Race", "Costs", "Labels", "Left out", "won with", "rules overruled the labeller on 0"):
        assert part in told
    assert "evaluations; every candidate on every sample" in told
    for row in json.loads((finished / "summary.json").read_text())["classes"]:
        assert f"{row['intent']}: " in told
        assert row["reason"] in " ".join(told.split())


def test_filters_leave_what_was_asked_for(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--section", "race", "--section", "classes", "--class", "text", "--candidate", "deep/0.2", "--json")
    assert claspkit("inspect", str(finished), *options) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts.keys() & {*SECTIONS, "summary"} == {"race", "classes"}
    assert [row["intent"] for row in facts["race"] + facts["classes"]] == ["text", "text"]
    (race,) = facts["race"]
    assert {each["candidate"] for each in race["candidates"]} == {"deep/0.2"}
    assert {each["candidate"] for rung in race["rungs"] for each in rung["standings"]} == {"deep/0.2"}
    assert race["rungs"][0]["alive"] == 6  # counts stay those of the race
    assert claspkit("inspect", str(finished), "--candidate", "deep/0.2") == 0
    told = capsys.readouterr().out
    assert told.count("deep/0.2") >= 9
    assert "middle/0.2  " not in told


@pytest.mark.parametrize(
    ("option", "value", "there"),
    [("--class", "colour", "object, attribute"), ("--candidate", "deep/0.3", "deep/0.2"), ("--section", "x", "race")],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    finished: Path, option: str, value: str, there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claspkit("inspect", str(finished), option, value) == 2
    message = capsys.readouterr().err
    assert repr(value) in message
    assert there in message


def test_a_killed_run_tells_what_is_there(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two classes are searched, one is on its way, the others wait; and the command that goes on is named."""
    before = {path: path.read_bytes() for path in killed.iterdir() if path.is_file()}
    assert claspkit("inspect", str(killed)) == 0
    out = capsys.readouterr()
    assert "unfinished" in out.out
    assert "claspkit calibrate --model mini" in out.err
    assert {path: path.read_bytes() for path in killed.iterdir() if path.is_file()} == before
    facts = inspect_run(read_view(killed))
    states = {row["intent"]: row["state"] for row in facts["classes"]}
    assert states["text"].startswith("racing: rung 1, 6 candidates on ")
    assert states["action"] == "waiting"
    assert states["object"] == "raced"
    assert all(row["decision"] is None and row["reason"] is None for row in facts["classes"])
    races = {row["intent"]: row for row in facts["race"]}
    assert list(races) == ["object", "attribute", "text"]
    assert [rung["complete"] for rung in races["text"]["rungs"]] == [False]
    assert races["object"]["rungs"][-1]["complete"]
    assert facts["costs"]["flops_exhaustive"] is None  # classes that have not begun have no mean cost


def test_every_length_of_a_ledger_can_be_inspected(finished: Path, tmp_path: Path) -> None:
    """Killed after any line: nothing fails, and what is told only grows."""
    run = Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("cache", "images")))
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (run / "summary.json").unlink()
    evaluations = 0
    for count in range(0, len(lines) + 1, 7):
        (run / "ledger.jsonl").write_bytes(b"".join(lines[:count]) + b"12")
        facts = inspect_run(read_view(run))
        printed(facts)
        printed(facts, full=True)
        assert facts["progress"]["evaluations"] >= evaluations
        evaluations = facts["progress"]["evaluations"]
    (run / "ledger.jsonl").write_bytes(b"".join(lines))
    view = read_view(run)
    states = {row["state"] for row in inspect_run(view)["classes"]}
    assert states == {"holdout scored, not decided"}
    assert view.ledger is not None
    first = inspect_run(view, ["classes"])["classes"][0]
    assert first["unpruned"] == pytest.approx(fmean(view.ledger.scores(HOLDOUT, "object", UNPRUNED)))


@pytest.mark.parametrize("stage", ["samples", "label"])
def test_a_run_without_scores_is_told(stage: str, tmp_path: Path) -> None:
    run_until(stage, tmp_path / "run")
    facts = inspect_run(read_view(tmp_path / "run"))
    assert facts["state"] == "unfinished"
    assert facts["race"] == []
    assert facts["progress"]["labels"] == (0 if stage == "samples" else facts["progress"]["samples"])
    told = printed(facts)
    assert ("no labels yet" if stage == "samples" else "waiting; 1") in told
    assert "no scores yet" in told


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_text_from_outside_moves_the_cursor(finished: Path, width: int) -> None:
    """Rows left out, sources, prompts and reasons are one line of plain text each."""
    facts = inspect_run(read_view(finished))
    facts["quarantine"] = [{"where": HOSTILE, "reason": HOSTILE}] * 30
    facts["labels"]["sources"] = {HOSTILE: 3}
    facts["labels"]["overrides"] = [
        {"rule": HOSTILE, "said": "text", "now": "object", "samples": 3, "prompts": [HOSTILE]}
    ]
    for row in facts["classes"]:
        row["reason"] = HOSTILE
    told = printed(facts, width)
    assert not {"\x1b", "\u202e"} & set(told)
    assert "[bold red]x" in told.replace("\n", "")
    assert "... and 10 more" in told


def test_overruled_labels_are_counted_by_rule() -> None:
    """A teacher said text three times and scene once; a rule makes counting of two of them."""
    samples = [
        make_sample(
            image="p.png",
            image_sha256="0" * 64,
            prompt=f"question {number}",
            answers=["a"],
            source=Source("made", None, None, number),
            intent_hint="counting" if number else None,
        )
        for number in range(4)
    ]
    said = ["text", "text", "text", "scene"]
    recorded = {s.uid: Label(i, None, 0.9, "replay:teacher:m@1", "t") for s, i in zip(samples, said, strict=True)}
    rule = Label("counting", None, 1.0, "rule:how-many", "t")
    labels = recorded | {samples[1].uid: rule, samples[2].uid: rule}
    facts = label_facts(samples, recorded, labels, INTENT_IDS)
    assert facts["sources"] == {"teacher:m@1": 2, "rule:how-many": 2}
    assert facts["overruled"] == 2
    (row,) = facts["overrides"]
    assert (row["rule"], row["said"], row["now"], row["samples"]) == ("rule:how-many", "text", "counting", 2)
    counting = next(row for row in facts["classes"] if row["intent"] == "counting")
    assert (counting["labelled"], counting["hinted"], counting["agree"]) == (2, 3, 2)
    assert label_facts(samples, labels, labels, ["text"])["labelled"] == 1


def test_a_run_of_other_candidates_is_told_without_a_race(finished: Path, tmp_path: Path) -> None:
    """The lock of a version with another space: the verdicts are there, the race is not made up."""
    from claspkit.calib.config import FORMAT, VERSION, read_lock
    from claspkit.profiles.canonical import canonical_json, digest

    run = Path(shutil.copytree(finished, tmp_path / "run"))
    facts = read_lock(run) | {"space": "0" * 64}
    record = {"format": FORMAT, "version": VERSION, "sha256": digest(facts), "facts": facts}
    (run / "config.lock.json").write_bytes(canonical_json(record))
    view = read_view(run)
    assert view.spaces == ()
    told = inspect_run(view)
    assert told["race"] == []
    assert all(row["state"] == "decided" for row in told["classes"])
    assert claspkit("report", str(run)) == 0
    assert "No race to show" in (run / "report.html").read_text()


def test_damage_is_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped byte inside the ledger; a summary that is no JSON; a folder that is no run."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "summary.json").write_text("{")
    assert claspkit("inspect", str(run)) == 7
    assert "summary.json is damaged" in capsys.readouterr().err
    (run / "summary.json").unlink()
    data = bytearray((run / "ledger.jsonl").read_bytes())
    data[200] ^= 1
    (run / "ledger.jsonl").write_bytes(data)
    assert claspkit("inspect", str(run)) == 7
    assert "ledger.jsonl" in capsys.readouterr().err
    assert claspkit("inspect", str(tmp_path)) == 7
