"""What the rules do on the reference prompts: on the train material they were written on, and on the test part."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from house import ROOT

from claspkit.profiles.intents import merge
from claspkit.router.backends import make_backend
from claspkit.router.rules import RULES, match
from claspkit.router.scoring import score

REFERENCE = ROOT / "router" / "reference"
Decided = dict[str, list[tuple[str, str, str]]]


def lines(name: str) -> list[dict[str, Any]]:
    """The objects of a file of the folder."""
    return [json.loads(line) for line in (REFERENCE / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def decided() -> Decided:
    """Per rule (intent it gives, true one, prompt) of the train material it decides."""
    rows = lines("more.jsonl") + [row for row in lines("prompts.jsonl") if row["part"] == "train"]
    found: Decided = defaultdict(list)
    for row in rows:
        rule = match(row["prompt"])
        if rule is not None:
            found[rule.id].append((rule.intent, merge(row["fine"]), row["prompt"]))
    return found


@pytest.mark.long
def test_a_rule_that_overrules_a_teacher_is_nearly_always_right(decided: Decided) -> None:
    """At least 97 % where it decides."""
    for rule in RULES:
        if rule.overrides:
            wrong = [prompt for given, true, prompt in decided[rule.id] if given != true]
            assert len(wrong) <= 0.03 * len(decided[rule.id]), (rule.id, wrong)


@pytest.mark.long
def test_no_rule_is_dead(decided: Decided) -> None:
    """Each decides some prompts, and is not wholly shadowed by those before it."""
    assert {rule.id: len(decided[rule.id]) for rule in RULES if len(decided[rule.id]) < 3} == {}


@pytest.mark.long
def test_the_rules_were_not_only_learned_by_heart(decided: Decided) -> None:
    """Most of the train material is decided, and rightly; the rules were written on half of it."""
    answers = [given == true for rows in decided.values() for given, true, _ in rows]
    assert len(answers) >= 0.90 * 8063
    assert sum(answers) / len(answers) >= 0.84


def test_the_rules_are_right_in_four_of_five_held_out_prompts() -> None:
    """In styles they were not written on; a prompt that no rule decides counts as the default class."""
    rows = [row for row in lines("prompts.jsonl") if row["part"] == "test"]
    labels = make_backend("rules").label([row["prompt"] for row in rows])
    found = score([merge(row["fine"]) for row in rows], labels)
    assert found.accuracy >= 0.80
    assert found.macro_f1 >= 0.80
    assert all(item.f1 >= 0.70 for item in found.classes)
