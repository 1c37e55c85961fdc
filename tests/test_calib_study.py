"""The study of routing errors on a real run of mini: its numbers, resuming, and what it refuses."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from pipeline_runs import calibrate, run_until
from test_calib_report import HOSTILE, Page

from claspkit.cache.store import FeatureStore
from claspkit.calib.cli import main
from claspkit.calib.evaluator import Evaluator
from claspkit.calib.finished import read_finished
from claspkit.calib.ledger import HOLDOUT, Entry, Ledger
from claspkit.calib.progress import Reporter
from claspkit.calib.study import FORCED, WRONG, study
from claspkit.calib.study_chart import described, render
from claspkit.profiles.budget import Stage
from claspkit.profiles.errors import CorruptError, MismatchError, UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import FINE_INTENTS, INTENT_IDS
from claspkit.profiles.records import RecordLog, read_records
from claspkit.runtime.models import load_model

QUIET = Reporter(quiet=True)
SEEDS = ("--seeds", "3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small calibration; tests that write take a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    calibrate(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to work in."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def winners(finished: Path) -> dict[str, Any]:
    """The study of what the search liked best, in a copy of its own."""
    run = Path(shutil.copytree(finished, finished.parent / "winners"))
    return study(read_finished(run), [], "winners", 3, QUIET)


def claspkit(*words: object) -> int:
    """Run ``claspkit router study``; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["router", "study", *map(str, words)])
    return int(ended.value.code or 0)


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """The object that the command prints."""
    capsys.readouterr()
    assert claspkit(*words, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def without_cost(found: dict[str, Any]) -> dict[str, Any]:
    """A study but for where it was made and what had to be computed."""
    return {name: value for name, value in found.items() if name not in ("run", "computed")}


def policy(found: dict[str, Any], name: str, share: float) -> dict[str, Any]:
    """One row."""
    (row,) = [row for row in found["policies"] if (row["policy"], row["share"]) == (name, share)]
    return dict(row)


def test_the_reference_is_what_the_ledger_holds(finished: Path, winners: dict[str, Any]) -> None:
    """Calibrated labels: the winners' holdout scores; and there is something to study here."""
    ledger = Ledger.read(finished / "ledger.jsonl")
    own = [score for intent in INTENT_IDS for score in ledger.scores(HOLDOUT, intent, winners["classes"][intent])]
    assert winners["policies"][0]["score"] == pytest.approx(fmean(own))
    assert winners["samples"] == len(own)
    assert winners["distinct"] >= 3
    assert [row["share"] for row in winners["policies"]] == [0.0, *FORCED, *WRONG]
    assert policy(winners, "wrong", 0.4)["changed"] == pytest.approx(0.4, abs=0.5 / len(own))


def test_scores_are_those_of_each_configuration_alone(finished: Path, winners: dict[str, Any]) -> None:
    """What was scored beside other candidates equals the evaluator's answer to one block and one candidate."""
    run = read_finished(finished)
    log = read_records(finished.parent / "winners" / "study.jsonl")
    entries = {(entry.intent, entry.candidate, entry.block): entry for entry in map(Entry.from_dict, log)}
    assert len(entries) == len(log)
    assert sum(len(entry.scores) for entry in entries.values()) == winners["computed"] > 0
    stages = [Stage(stage.after_layer, stage.keep) for stage in run.profile.budget.stages]
    with FeatureStore.open(finished / "cache") as store:
        evaluator = Evaluator(load_model("mini"), store, stages, run.config.max_new_tokens)
        for entry in (*list(entries.values())[:2], *list(entries.values())[-2:]):
            data = next(data for data in run.classes if data.intent == entry.intent)
            ((alone,),) = evaluator.evaluate(run.blocks(data)[entry.block], [run.space.find(entry.candidate)])
            assert (alone.scores, alone.answers) == (entry.scores, entry.answers)


def test_default_for_all_is_the_default_class_s_configuration(finished: Path, winners: dict[str, Any]) -> None:
    """Every holdout sample under the configuration of the class ``default``, out of both logs."""
    name = winners["classes"]["default"]
    both = [*Ledger.read(finished / "ledger.jsonl").entries()]
    both += map(Entry.from_dict, read_records(finished.parent / "winners" / "study.jsonl"))
    scores = [score for e in both if (e.split, e.candidate) == (HOLDOUT, name) for score in e.scores]
    assert len(scores) == winners["samples"]
    assert policy(winners, "default", 1.0)["score"] == pytest.approx(fmean(scores))


def test_a_second_study_needs_neither_model_nor_features(run: Path, winners: dict[str, Any]) -> None:
    """All scores are on disk: nothing is computed, the log stays as it is, and the cache may be gone."""
    first = study(read_finished(run), [], "winners", 3, QUIET)
    before = (run / "study.jsonl").read_bytes()
    shutil.rmtree(run / "cache")
    again = study(read_finished(run), [], "winners", 3, QUIET)
    assert again["computed"] == 0
    assert without_cost(again) == without_cost(first) == without_cost(winners)
    assert (run / "study.jsonl").read_bytes() == before


def test_a_killed_study_goes_on(run: Path, finished: Path, winners: dict[str, Any]) -> None:
    """Cut within a line after some blocks: only the rest is computed, to the same end."""
    whole = (finished.parent / "winners" / "study.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (run / "study.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:40])
    again = study(read_finished(run), [], "winners", 3, QUIET)
    kept = sum(len(record["scores"]) for record in read_records(run / "study.jsonl")[:5])
    assert again["computed"] == winners["computed"] - kept > 0
    assert without_cost(again) == without_cost(winners)
    assert sorted((run / "study.jsonl").read_bytes().splitlines()) == sorted(whole.splitlines())


def test_scores_of_another_run_are_not_taken(run: Path, finished: Path, winners: dict[str, Any]) -> None:
    """A log with every score wrong, of another lock: computed as if it were not there."""
    with RecordLog(run / "study.jsonl") as log:
        log.append(
            {**record, "run": "0" * 64, "scores": [0.0] * len(record["scores"])}
            for record in read_records(finished.parent / "winners" / "study.jsonl")
        )
    assert without_cost(study(read_finished(run), [], "winners", 3, QUIET)) == without_cost(winners)
    with RecordLog(run / "study.jsonl") as log:
        log.append([{"hello": 1}])
    with pytest.raises(CorruptError, match="Delete the file"):
        study(read_finished(run), [], "winners", 3, QUIET)


def test_a_profile_of_defaults_cannot_lose(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One configuration for all: said in one line, nothing computed, no difference anywhere."""
    assert {spec.decision for spec in read_profile(run / "profile").classes} == {"kept_default"}
    found = printed(capsys, run, *SEEDS)
    assert (found["distinct"], found["computed"], (run / "study.jsonl").exists()) == (1, 0, False)
    assert {row["difference"] for row in (*found["policies"], *found["routers"])} == {0.0}
    assert claspkit(run, *SEEDS) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "All classes share one configuration, default/0.9: routing errors cannot cost anything" in shown
    assert "--configs winners" in shown


def test_routers_are_counted_and_priced(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The labels of the run itself change nothing; the student has a second row for its threshold."""
    words = ("--configs", "winners", *SEEDS, "--router", "replay", "--router", "rules", "--router", "student")
    out = tmp_path / "study.html"
    found = printed(capsys, run, *words, "--router-answers", run / "labels.jsonl", "--out", out)
    rows = found["routers"]
    assert [(row["router"], row["reject_below"] is None) for row in rows] == [
        ("replay", True),
        ("rules", True),
        ("student", True),
        ("student", False),
    ]
    for row in rows[:2]:
        assert (row["changed"], row["difference"], row["ci_low"], row["ci_high"]) == (0.0, 0.0, 0.0, 0.0)
    for row in rows:
        counts = [part["samples"] for part in row["by_class"]]
        assert sum(counts) == found["samples"]
        for name in ("changed", "difference"):
            parts = [part[name] * part["samples"] for part in row["by_class"]]
            assert sum(parts) / sum(counts) == pytest.approx(row[name], abs=1e-12)
        assert row["moved"] <= row["changed"]
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
    assert Page(out.read_text()).count("svg") == 1
    assert claspkit(run, *words, "--router-answers", run / "labels.jsonl") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("Every tenth prompt", "the calibration's labels", "a wrong class for 40 %", "to default", "1627"):
        assert text in shown


def test_another_teacher_is_priced_class_by_class(
    run: Path, winners: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teacher who takes one class for the default: that class changes whole, the others not at all."""
    fine = {item.intent: item.id for item in FINE_INTENTS} | {"object": "other"}
    prompts = {sample.prompt: fine[data.intent] for data in read_finished(run).classes for sample in data.holdout}
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"prompt": p, "fine": f}) + "\n" for p, f in prompts.items()))
    words = ("--configs", "winners", *SEEDS, "--router", "replay", "--router-answers", answers)
    (row,) = printed(capsys, run, *words)["routers"]
    assert {part["intent"]: part["changed"] for part in row["by_class"]} == dict.fromkeys(INTENT_IDS, 0) | {"object": 1}
    ledger, default = Ledger.read(run / "ledger.jsonl"), winners["classes"]["default"]
    entries = [*map(Entry.from_dict, read_records(run / "study.jsonl")), *ledger.entries()]
    moved = [s for e in entries if (e.split, e.intent, e.candidate) == (HOLDOUT, "object", default) for s in e.scores]
    own = ledger.scores(HOLDOUT, "object", winners["classes"]["object"])
    assert len(moved) == len(own)
    assert row["difference"] == pytest.approx((sum(moved) - sum(own)) / winners["samples"])


def test_the_picture_stands_alone_and_is_told_in_words(winners: dict[str, Any]) -> None:
    """SVG that parses, asks for nothing, and has title, description and every policy; hostile names stay text."""
    spoilt = {**winners, "model": HOSTILE, "routers": []}
    for found in (winners, spoilt):
        root = ElementTree.fromstring(render(found, ".svg"))
        names = [element.tag.rpartition("}")[2] for element in root.iter()]
        assert names[:3] == ["svg", "title", "desc"]
        assert not {"script", "image", "a", "foreignObject"} & set(names)
        text = "".join(root.itertext())
        assert described(found) in text
        assert "sent to the default class" in text
        assert "sent to a wrong class" in text
        assert "NaN" not in render(found, ".svg")
    page = render(spoilt, ".html")
    assert Page(page).count("script") == 0
    assert "//" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert Page(page).count("tr") == 1 + len(winners["policies"])


def test_fresh_deletes_the_study(run: Path) -> None:
    """A run that is started over keeps no scores of the old one."""
    (run / "study.jsonl").write_bytes(b"")
    run_until("samples", run, fresh=True)
    assert not (run / "study.jsonl").exists()


def test_a_run_that_changed_is_refused(run: Path) -> None:
    """A score more than the profile knows of, a sample less, or a model that is another one now."""
    whole = (run / "ledger.jsonl").read_bytes()
    ledger = Ledger.open(run / "ledger.jsonl")
    ledger.put([Entry("search", "scene", "deep/0.9", 7, "0" * 64, (1.0,), ("a",))])
    ledger.close()
    with pytest.raises(MismatchError, match=r"the ledger holds other scores\. Run .*clasp"):
        read_finished(run)
    (run / "ledger.jsonl").write_bytes(whole)
    labels = (run / "labels.jsonl").read_bytes().splitlines(keepends=True)
    (run / "labels.jsonl").write_bytes(b"".join(labels[: len(labels) // 2]))
    with pytest.raises(MismatchError, match="have other samples"):
        read_finished(run)
    (run / "labels.jsonl").write_bytes(b"".join(labels))
    other = read_finished(run)
    other = replace(other, facts={**other.facts, "model_fingerprint": "0" * 64})
    with pytest.raises(MismatchError, match="another model_fingerprint"):
        study(other, [], "winners", 1, QUIET)


def test_no_holdout_is_nothing_to_study(finished: Path) -> None:
    """Classes without holdout samples: what to do instead."""
    run = read_finished(finished)
    empty = replace(run, classes=[replace(data, holdout=()) for data in run.classes])
    with pytest.raises(UsageError, match="--holdout"):
        study(empty, [], "profile", 1, QUIET)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--router", "magic"], 2, "there are: rules, student"),
        (["--router", "transformers", "--router-model", "absent/model"], 2, "absent/model"),
        (["--router", "openai"], 2, "--router-endpoint"),
        (["--router", "replay"], 2, "--router-answers"),
        (["--router", "student", "--router", "openai", "--router-model", "m"], 2, "one of them at a time"),
        (["--configs", "best"], 2, "profile, winners"),
        (["--out", "study.pdf"], 2, ".svg"),
        (["--out", "no/such/folder.svg"], 2, "no folder"),
    ],
)
def test_wrong_options_say_what_is_allowed(
    options: list[str], code: int, text: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message and its exit code, before anything is computed."""
    assert claspkit(finished, *options) == code
    assert text in capsys.readouterr().err.replace("\n", " ")


def test_what_is_no_finished_run_says_how_to_go_on(
    finished: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run at all, one that is not finished, one whose features are gone."""
    assert claspkit(tmp_path) == 7
    (run / "summary.json").unlink()
    assert claspkit(run) == 2
    message = capsys.readouterr().err.replace("\n", " ")
    assert "claspkit calibrate --model mini --per-class 24 --budget 1/9" in message
    assert f"--out {run}" in message
    shutil.copy(finished / "summary.json", run)
    shutil.rmtree(run / "cache")
    assert claspkit(run, "--configs", "winners") == 2
    assert "claspkit calibrate" in capsys.readouterr().err.replace("\n", " ")
