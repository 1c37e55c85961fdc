"""Budgets by class: chosen where the search split says so, taken only where the holdout agrees; truth is planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from made_samples import made_samples

from claspkit.calib import evidence
from claspkit.calib.adaptive import Adaptive, estimate, judge_adaptive
from claspkit.calib.budgets import BudgetResult, budget_spaces
from claspkit.calib.evidence import over_classes, over_classes_p, sign_flip_p
from claspkit.calib.ledger import HOLDOUT, SEARCH, Entry, Ledger
from claspkit.calib.samples import Sample
from claspkit.calib.schedule import run_budgets
from claspkit.calib.search import MIN_SAMPLES, ClassData, Verdict, decide
from claspkit.calib.space import Candidate, make_space
from claspkit.profiles.intents import INTENT_IDS

BUDGETS = run_budgets("128,192,64", "plain", (), 576, 32)
"""The target in the middle; one dearer, one cheaper."""

COSTS = (100, 128, 72)
SPACES = budget_spaces(make_space(23, (0.2, 0.5, 0.7)), BUDGETS)
SAMPLES = 60


def some_samples(intent: str, split: str, count: int = SAMPLES) -> tuple[Sample, ...]:
    """Samples of as many pictures, which no other class asks about."""
    number = INTENT_IDS.index(intent) * 10_000 + (split == HOLDOUT) * 5_000
    return made_samples(count, f"made-{intent}-{split}", number)


CLASSES = [ClassData(intent, some_samples(intent, SEARCH), some_samples(intent, HOLDOUT)) for intent in INTENT_IDS]

Truth = Callable[[int, int], float]
"""From class and budget to the share of right answers, of every configuration alike."""


def calibration(truth: Truth, seed: int, fields: int = 8, classes: Sequence[ClassData] = CLASSES) -> Adaptive:
    """Searches over a field of configurations, the holdout, the verdicts per budget, and the budgets by class.

    Every answer is an independent coin of the truth's weight; a search takes the best of its field.
    """
    random = np.random.default_rng(seed)
    entries: dict[tuple[str, str, str, int], Entry] = {}

    def put(split: str, intent: str, candidate: Candidate, scores: np.ndarray) -> None:
        entry = Entry(split, intent, candidate.id, 0, "", tuple(scores.astype(float)), ("",) * len(scores))
        entries[entry.key] = entry

    winners: list[dict[str, Candidate]] = [{} for _ in SPACES]
    for number, data in enumerate(classes):
        for budget, space in enumerate(SPACES):
            right = truth(number, budget)
            found = random.random((fields, len(data.search))) < right
            best = 0
            if len(data.search) >= MIN_SAMPLES:
                best = int(found.mean(axis=1).argmax())
                winners[budget][data.intent] = space.candidates[best]
            for place in {0, best}:
                put(SEARCH, data.intent, space.candidates[place], found[place])
                held = random.random(len(data.holdout)) < right
                put(HOLDOUT, data.intent, space.candidates[place], held)
    ledger = Ledger(Path("nowhere"), entries, None)
    results = [
        BudgetResult(budget, space, decide(classes, won, space, ledger, 0))
        for budget, space, won in zip(BUDGETS, SPACES, winners, strict=True)
    ]
    return judge_adaptive(classes, results, ledger, COSTS, 0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples for the intervals; the tests of 0/1 scores in classes of one size are exact and draw nothing."""
    monkeypatch.setattr(evidence, "RESAMPLES", 200)


def needy(number: int, budget: int) -> float:
    """Classes 2 and 5 need tokens, classes 0 and 3 do not care, the others lose little above the target."""
    if number in (2, 5):
        return (0.5, 0.95, 0.2)[budget]
    return 0.9 if number in (0, 3) else (0.85, 0.87, 0.4)[budget]


@pytest.mark.usefixtures("quick")
def test_the_planted_allocation_is_found_and_taken() -> None:
    """The two classes that need tokens get them, only classes that do not care pay, and the holdout agrees."""
    found = calibration(needy, seed=1)
    assert found.accepted
    assert found.choice["text"] == found.choice["counting"] == 1
    assert {found.choice[INTENT_IDS[number]] for number in (0, 3)} == {2}
    assert {found.choice[INTENT_IDS[number]] for number in (1, 4, 6, 7, 8)} == {0}
    assert found.flops == (5 * 100 + 2 * 128 + 2 * 72) / 9 <= found.target_flops == 100
    assert found.difference is not None
    assert found.difference == pytest.approx(0.1, abs=0.04)
    assert found.score == pytest.approx((found.uniform or 0) + found.difference)
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert "beat one budget for all" in found.reason


@pytest.mark.usefixtures("quick")
def test_the_planted_allocation_is_found_again_and_again() -> None:
    """Fresh coins: taken in every one of 40 calibrations, and never above the compute of the target."""
    runs = [calibration(needy, seed) for seed in range(100, 140)]
    assert all(found.accepted for found in runs)
    assert all(found.flops <= found.target_flops for found in runs)
    assert np.mean([found.difference for found in runs]) == pytest.approx(0.1, abs=0.02)


NULLS: dict[str, Truth] = {
    "tokens do not matter": lambda number, budget: 0.8,
    "classes differ, budgets do not": lambda number, budget: 0.55 + 0.05 * number,
    "tokens help all classes alike": lambda number, budget: 0.75 + 0.002 * (COSTS[budget] - 100),
}


EVERYDAY = "tokens do not matter"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "name", [name if name == EVERYDAY else pytest.param(name, marks=pytest.mark.long) for name in NULLS]
)
def test_without_a_difference_between_classes_it_is_seldom_taken(name: str) -> None:
    """500 calibrations in which no allocation is better than one budget for all: taken in at most 5 % of them.

    The search split is nearly always fooled into one; only the holdout is not.
    """
    runs = [calibration(NULLS[name], seed) for seed in range(500)]
    assert sum(any(found.choice.values()) for found in runs) >= 450
    assert np.mean([found.search_gain for found in runs]) > 0.005
    assert sum(found.accepted for found in runs) <= 25


@pytest.mark.usefixtures("quick")
def test_nothing_is_tested_where_nothing_looks_better() -> None:
    """Equal scores everywhere: one budget for all, by the tie rule, and no p-value."""
    found = calibration(lambda number, budget: 1.0, seed=0)
    assert not any(found.choice.values())
    assert (found.accepted, found.difference, found.p_value) == (False, None, None)
    assert found.flops == found.target_flops
    assert "no other distribution" in found.reason


@pytest.mark.usefixtures("quick")
def test_classes_without_a_search_keep_the_first_budget() -> None:
    """They count in the mean compute, and nobody takes tokens from them."""
    few = [
        ClassData(data.intent, data.search[:5], data.holdout[:5]) if number in (0, 6) else data
        for number, data in enumerate(CLASSES)
    ]
    found = calibration(needy, seed=1, classes=few)
    assert found.choice[INTENT_IDS[0]] == found.choice[INTENT_IDS[6]] == 0
    assert INTENT_IDS[0] not in found.samples
    assert found.choice[INTENT_IDS[3]] == 2  # it still pays, for one of the two that need tokens
    assert 1 in (found.choice["text"], found.choice["counting"])
    assert found.flops <= found.target_flops


@pytest.mark.usefixtures("quick")
def test_classes_without_samples_count_in_no_mean() -> None:
    """Three of nine are empty. Of the other six one is wrong at the target alone, and one is right everywhere."""

    def truth(number: int, budget: int) -> float:
        if number == 2:
            return (0.0, 1.0, 0.0)[budget]
        return 1.0 if number == 0 or budget < 2 else 0.0

    empty = [
        ClassData(data.intent, (), ()) if number in (1, 4, 7) else data for number, data in enumerate(CLASSES)
    ]
    found = calibration(truth, seed=1, classes=empty)
    assert {intent: number for intent, number in found.choice.items() if number} == {
        INTENT_IDS[2]: 1,
        INTENT_IDS[0]: 2,
    }
    assert found.flops == (4 * 100 + 128 + 72) / 6
    assert found.search_gain == pytest.approx(1 / 6)
    assert found.uniform == pytest.approx(5 / 6)
    assert found.score == 1
    assert found.difference == pytest.approx(1 / 6)
    assert found.accepted


@pytest.mark.usefixtures("quick")
def test_without_any_samples_the_compute_is_that_of_the_first_budget() -> None:
    found = calibration(needy, seed=1, classes=[ClassData(data.intent, (), ()) for data in CLASSES])
    assert (found.flops, found.search_gain, found.accepted) == (100, 0, False)


def test_the_estimate_is_the_defaults_where_the_winner_is_not_surely_better() -> None:
    """A winner by luck counts with the default's score, a sure one with its own, on the samples that all have."""
    default, other = SPACES[0].default, SPACES[0].candidates[3]
    data = CLASSES[:2]
    entries: dict[tuple[str, str, str, int], Entry] = {}

    def put(intent: str, name: str, right: int, count: int) -> None:
        scores = (1.0,) * right + (0.0,) * (count - right)
        entries[SEARCH, intent, name, 0] = Entry(SEARCH, intent, name, 0, "", scores, ("",) * count)

    for intent, gain in ((data[0].intent, 2), (data[1].intent, 20)):
        put(intent, default.id, 30, 60)
        put(intent, other.id, 30 + gain, 60)
        for space in SPACES[1:]:
            put(intent, space.default.id, 24, 50)  # its search ended earlier
    ledger = Ledger(Path("nowhere"), entries, None)
    won = (other, SPACES[1].default, SPACES[2].default)
    results = [
        BudgetResult(budget, space, [verdict(each.intent, best, space.default) for each in data])
        for budget, space, best in zip(BUDGETS, SPACES, won, strict=True)
    ]
    found = estimate(data, results, ledger, 0)
    assert {each.samples for each in found.values()} == {50}
    lucky, sure = found[data[0].intent].scores, found[data[1].intent].scores
    assert lucky == (30 / 50, 24 / 50, 24 / 50)
    assert sure == (50 / 50, 24 / 50, 24 / 50)


def verdict(intent: str, winner: Candidate, default: Candidate) -> Verdict:
    """A class whose search ended at ``winner``; what the holdout says of it is not looked at."""
    return Verdict(intent, winner, default, None, None, None, None, "")


def test_the_test_over_classes_weighs_every_class_the_same() -> None:
    """A small class counts as much as a large one; one size of class and difference is the exact sign test."""
    random = np.random.default_rng(0)
    moves = [random.integers(-1, 2, size).astype(float) for size in (40, 40, 40)]
    groups = [[f"{number}-{i}" for i in range(len(mine))] for number, mine in enumerate(moves)]
    flat, names = np.concatenate(moves), [name for each in groups for name in each]
    assert over_classes_p(moves, groups, 0) == sign_flip_p(flat, names, 0)
    small, large = np.full(10, 1.0), np.concatenate([np.full(60, -1.0), np.zeros(940)])
    pictures = [[f"s{i}" for i in range(10)], [f"l{i}" for i in range(1000)]]
    centre, _, _ = over_classes([small, large], pictures, 0)
    assert centre == pytest.approx(0.47)
    assert over_classes_p([small, large], pictures, 0) < 0.01
    assert sign_flip_p(np.concatenate([small, large]), pictures[0] + pictures[1], 0) > 0.99
