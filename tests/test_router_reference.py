"""The reference prompts are as their README says, and the shipped student does on them what it is shipped for."""

import json
from typing import Any

import pytest
from house import ROOT

from claspkit.profiles.intents import FINE_INTENTS, merge
from claspkit.router.backends import make_backend
from claspkit.router.prompts import prompt_digest
from claspkit.router.scoring import score
from claspkit.router.student import SHIPPED

REFERENCE = ROOT / "router" / "reference"
PARTS = dict.fromkeys(("vqav2", "scienceqa", "mme", "chat"), "train")
PARTS |= dict.fromkeys(("gqa", "textvqa", "mmvet", "pope"), "test")
FINE = {fine.id for fine in FINE_INTENTS}


def lines(name: str) -> list[dict[str, Any]]:
    """The objects of a file of the folder."""
    return [json.loads(line) for line in (REFERENCE / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def reference() -> list[dict[str, Any]]:
    """The prompts that were labelled twice."""
    return lines("prompts.jsonl")


def test_every_reference_prompt_is_whole(reference: list[dict[str, Any]]) -> None:
    """Unique ids, known intents, the part that its style says, and a reason exactly where the passes differ."""
    assert len(reference) >= 500
    assert len({row["id"] for row in reference}) == len(reference)
    assert len({prompt_digest(row["prompt"]) for row in reference}) == len(reference)
    for row in reference:
        fields = {"id", "style", "part", "prompt", "fine", "first", "second"}
        assert row.keys() - {"why"} == fields, row["id"]
        assert {row["fine"], row["first"], row["second"]} <= FINE, row["id"]
        assert row["id"].startswith(row["style"]), row["id"]
        assert row["part"] == PARTS[row["style"]], row["id"]
        agree = row["first"] == row["second"]
        assert ("why" in row) != agree, row["id"]
        assert not agree or row["fine"] == row["first"], row["id"]
        assert agree or row["why"].strip(), row["id"]
    assert {row["style"] for row in reference} == PARTS.keys()
    for part in ("train", "test"):
        assert {row["fine"] for row in reference if row["part"] == part} == FINE


def test_no_training_prompt_is_a_reference_prompt(reference: list[dict[str, Any]]) -> None:
    """More prompts are for training: known intents, and none that is asked in the test."""
    more = lines("more.jsonl")
    assert all(row.keys() == {"prompt", "fine"} and row["fine"] in FINE for row in more)
    known = {prompt_digest(row["prompt"]) for row in reference}
    assert not known & {prompt_digest(row["prompt"]) for row in more}


def test_the_readme_counts_right(reference: list[dict[str, Any]]) -> None:
    """Its figures are those of the files."""
    text = (REFERENCE / "README.md").read_text(encoding="utf-8")
    agreed = sum(row["first"] == row["second"] for row in reference)
    parts = [sum(row["part"] == part for row in reference) for part in ("test", "train")]
    assert f"| {len(reference)} |" in text
    assert f"| {len(lines('more.jsonl')):,} |" in text
    assert f"agree on {agreed} of {len(reference)}" in text
    assert [f"({count})" in text for count in parts] == [True, True]


def test_the_shipped_student_is_small_and_good(reference: list[dict[str, Any]]) -> None:
    """On the test part, which it was not trained on: accuracy of all, and of the surest 85 %."""
    assert SHIPPED.stat().st_size <= 1_000_000
    rows = [row for row in reference if row["part"] == "test"]
    labels = make_backend("student").label([row["prompt"] for row in rows])
    found = score([merge(row["fine"]) for row in rows], labels)
    assert found.accuracy >= 0.88
    assert found.accuracy_at_coverage >= 0.94
    assert found.calibration_error <= 0.08


def test_the_shipped_student_rejects_what_it_should(reference: list[dict[str, Any]]) -> None:
    """What is at least as sure as its own threshold is right nearly always, and that is most of it."""
    rows = [row for row in reference if row["part"] == "test"]
    student: Any = make_backend("student")
    labels = student.label([row["prompt"] for row in rows])
    kept = [
        label.intent == merge(row["fine"])
        for row, label in zip(rows, labels, strict=True)
        if label.confidence >= student.reject_below
    ]
    assert len(kept) / len(rows) >= 0.75
    assert sum(kept) / len(kept) >= 0.94
