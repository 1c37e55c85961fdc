"""``claspkit router`` and ``claspkit route``, as typed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from commands import claspkit
from router_examples import FINE_EXAMPLES

from claspkit.calib.folder import RunFolder, write_samples
from claspkit.calib.labelled import Labelled, read_labelled
from claspkit.calib.samples import Source, make_sample
from claspkit.calib.sources import LoadResult
from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.profiles.intents import merge
from claspkit.router.backends import make_backend
from claspkit.router.run import label_prompts
from claspkit.router.student import SHIPPED, StudentBackend, read_student


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """The examples as lines, the first 30 of them the test part, with a field that nobody reads."""
    path = tmp_path / "answers.jsonl"
    rows = [
        {"prompt": prompt, "fine": fine, "part": "test" if number < 30 else "train", "more": 1}
        for number, (prompt, fine) in enumerate(FINE_EXAMPLES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON object that a command prints."""
    capsys.readouterr()
    assert claspkit(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_eval_counts_as_by_hand(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rules against the examples, all and of one part."""
    labels = make_backend("rules").label([prompt for prompt, _ in FINE_EXAMPLES])
    right = [label.intent == merge(fine) for label, (_, fine) in zip(labels, FINE_EXAMPLES, strict=True)]
    found = printed(capsys, "router", "eval", str(answers), "--router", "rules")
    assert found["prompts"] == len(right)
    assert found["accuracy"] == pytest.approx(sum(right) / len(right))
    assert found["router"].startswith("rules@")
    part = printed(capsys, "router", "eval", str(answers), "--router", "rules", "--part", "test")
    assert (part["prompts"], part["accuracy"]) == (30, pytest.approx(sum(right[:30]) / 30))


def test_eval_prints_tables_for_people(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped student when no router is named; every class has its row."""
    assert claspkit("router", "eval", str(answers)) == 0
    text = capsys.readouterr().out
    for part in ("student:", "macro F1", "calibration error", "true \\ label", "8 default", "coverage"):
        assert part in text


def test_eval_tells_what_the_routers_own_threshold_does(
    answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Coverage, accuracy of the accepted and of all, counted by hand; drawn too, if asked."""
    student, picture = read_student(SHIPPED), tmp_path / "p.svg"
    labels = student.label([prompt for prompt, _ in FINE_EXAMPLES])
    truth = [merge(fine) for _, fine in FINE_EXAMPLES]
    accepted = [label.intent == true for label, true in zip(labels, truth, strict=True) if label.confidence >= 0.99]
    rejected = [true == "default" for label, true in zip(labels, truth, strict=True) if label.confidence < 0.99]
    strict = tmp_path / "strict.safetensors"
    stored = student._stored
    strict.write_bytes(StudentBackend(stored["weights"], stored["bias"], student.temperature, 0.99).to_bytes())
    words = ["router", "eval", str(answers), "--router-model", str(strict), "--picture", str(picture)]
    found = printed(capsys, *words)["rejection"]
    assert rejected
    assert found["threshold"] == pytest.approx(0.99)
    assert found["coverage"] == pytest.approx(len(accepted) / len(truth))
    assert found["accepted_accuracy"] == pytest.approx(sum(accepted) / len(accepted))
    assert found["accuracy"] == pytest.approx((sum(accepted) + sum(rejected)) / len(truth))
    assert picture.read_text().startswith("<svg ")
    assert claspkit(*words) == 0
    assert "rejecting below 0.990: " in capsys.readouterr().out
    assert claspkit("router", "eval", str(answers), "--picture", str(tmp_path / "p.png")) == 2
    assert ".svg, .html" in capsys.readouterr().err


def test_eval_of_a_runs_labels_is_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The labeller may be wrong, so the word accuracy is not used of it."""
    log = run_with_labels(tmp_path, ["How many cats?", "What color is it?"], 2)
    assert printed(capsys, "router", "eval", str(log), "--router", "rules")["measure"] == "agreement"
    assert claspkit("router", "eval", str(log), "--router", "rules") == 0
    text = capsys.readouterr().out
    assert f"against the labels of {log}" in text.replace("\n", "")
    assert "agreement 100.0 %" in text
    assert "accuracy" not in text
    assert "rejecting" not in text


def test_distill_writes_a_student_that_eval_takes(
    answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on the train part, its held-out figures told; too few to be trusted, which is said."""
    out = tmp_path / "own.safetensors"
    facts = printed(capsys, "router", "distill", str(answers), "--out", str(out), "--part", "train")
    assert facts["bytes"] == out.stat().st_size <= 1_000_000
    assert facts["prompts"] == len(FINE_EXAMPLES) - 30
    assert (facts["threshold_reached"], facts["reject_below"]) == (False, 1.0)
    assert facts["held_out"]["prompts"] < facts["prompts"] / 4
    assert facts["student"] == read_student(out).source
    found = printed(capsys, "router", "eval", str(answers), "--part", "train", "--router-model", str(out))
    assert found["router"] == facts["student"]
    assert found["accuracy"] > 0.95
    assert claspkit("router", "distill", str(answers), "--out", str(out)) == 0
    assert "no threshold makes the accepted labels right 95%" in capsys.readouterr().out


def run_with_labels(folder: Path, prompts: list[str], labelled: int) -> Path:
    """The label log of a run, of whose prompts the rules have labelled the first ones."""
    samples = [
        make_sample(image="a.png", image_sha256="0" * 64, prompt=prompt, answers=["yes"], source=source)
        for prompt, source in ((prompt, Source("d", None, None, row)) for row, prompt in enumerate(prompts))
    ]
    write_samples(RunFolder(folder), LoadResult(samples=samples, quarantine=[], datasets=[]))
    label_prompts(prompts[:labelled], make_backend("rules"), RunFolder(folder).labels, overrides=False)
    return RunFolder(folder).labels


def test_a_run_teaches_what_its_labeller_decided(tmp_path: Path) -> None:
    """Each prompt once, without those that nobody labelled or that have no fine intent."""
    prompts = ["How many cats?", "Hello there.", "What color is it?", "How many cats?", "Why?"]
    log = run_with_labels(tmp_path, prompts, 4)
    assert read_labelled(log) == [
        Labelled("How many cats?", "object_counting", "counting"),
        Labelled("What color is it?", "visual_attribute", "attribute"),
    ]
    with pytest.raises(UsageError, match="no parts"):
        read_labelled(log, "test")
    RunFolder(tmp_path).samples.unlink()
    with pytest.raises(UsageError, match=r"samples\.json, which holds them, is not there"):
        read_labelled(log)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"prompt": "a"}', "line 1: a labelled prompt needs"),
        ('{"prompt": "a", "fine": "counting"}', "object_counting"),
        ('{"prompt": 1, "fine": "other"}', "line 1"),
        ('{"prompt": "a", "fine": ["other"]}', "line 1"),
        ("{torn", "line 1"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, match: str) -> None:
    """What is no labelled prompt is refused with its number."""
    path = tmp_path / "bad.jsonl"
    path.write_text(line)
    with pytest.raises(BadDataError, match=match):
        read_labelled(path)


def test_nothing_to_read_is_a_usage_error(answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file, no such part, nowhere to write, no such router: exit code 2 and what to do."""
    student = str(tmp_path / "x.safetensors")
    for words, part in (
        (["eval", str(tmp_path / "absent")], "name a file"),
        (["eval", str(answers), "--part", "more"], "of part 'more'"),
        (["eval", str(answers), "--router", "magic"], "there are: rules, student"),
        (["distill", str(answers), "--out", str(tmp_path / "no" / "x")], "cannot be written"),
        (["eval", str(answers), "--router-model", student], "router distill"),
    ):
        assert claspkit("router", *words) == 2
        assert part in capsys.readouterr().err.replace("\n", "")


def test_route_asks_the_shipped_student(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a profile and without a name; the rules stay available by name, under either option."""
    for options, source in (([], "student:"), (["--backend", "rules"], "rule:"), (["--router", "rules"], "rule:")):
        monkeypatch.setattr("sys.stdin", io.StringIO("How many dogs are there?\nWhat colour is the car?\n"))
        capsys.readouterr()
        assert claspkit("route", "--json", *options) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["intent"] for row in rows] == ["counting", "attribute"]
        assert all(row["source"].startswith(source) for row in rows)
