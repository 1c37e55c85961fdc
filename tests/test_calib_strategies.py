"""Every search strategy on made-up scores: what it asks, what it finds, and that it can be killed anywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.calib.halving import FIRST, mean, rungs, survivors, trails
from claspkit.calib.space import RHO_GRID, Candidate, Space, make_space
from claspkit.calib.strategies import STRATEGIES, Strategy
from claspkit.calib.strategy_race import CUT, FIRST_CUT
from claspkit.calib.strategy_refine import TRIALS

SPACE = make_space(7)
SMALL = make_space(7, (0.1, 0.5, 0.9))
Scores = Callable[[Candidate], Sequence[float]]

every = pytest.mark.parametrize("name", STRATEGIES)


def drive(strategy: Strategy, scores: Scores, limit: int = 10**9) -> dict[str, int]:
    """Answer requests one by one until the search ends or ``limit`` answers; samples seen per candidate."""
    seen: dict[str, int] = {}
    while limit > 0 and (requests := strategy.ask()):
        for request in requests:
            if limit == 0:
                break
            limit -= 1
            samples = sum(strategy.sizes[: request.blocks])
            assert samples > seen.get(request.candidate.id, 0), "asked again for what it was told"
            seen[request.candidate.id] = samples
            strategy.tell(request.candidate, list(scores(request.candidate)[:samples]))
    return seen


def resume(strategy: Strategy, scores: Scores, known: dict[str, int]) -> int:
    """Drive a search whose ledger holds ``known`` samples per candidate already; how many had to be computed."""
    computed, seen = 0, dict.fromkeys(known, 0)
    while requests := strategy.ask():
        for request in requests:
            samples = sum(strategy.sizes[: request.blocks])
            have = known.get(request.candidate.id, 0)
            computed += max(0, samples - max(have, seen.get(request.candidate.id, 0)))
            seen[request.candidate.id] = samples
            # A ledger tells all it has, also what a later rung of the killed run had asked for.
            strategy.tell(request.candidate, list(scores(request.candidate)[: max(samples, have)]))
    return computed


def made(space: Space, sizes: Sequence[int], right: dict[str, float], other: float, seed: int = 0) -> Scores:
    """0/1 scores, right with a probability per candidate, the same for every call."""
    total = sum(sizes)

    def scores(candidate: Candidate) -> list[float]:
        rng = random.Random(f"{seed}:{candidate.id}")
        return [float(rng.random() < right.get(candidate.id, other)) for _ in range(total)]

    return scores


def blocks(samples: int) -> list[int]:
    """Blocks of 32 and what is left."""
    return [32] * (samples // 32) + ([samples % 32] if samples % 32 else [])


@every
def test_finds_what_is_far_better(name: str) -> None:
    """A prototype and a split that each help: right nine times of ten together, six times alone, three times else."""
    sizes = blocks(500)
    for prototype, rho in (("middle", 0.9), ("default", 0.2), ("hybrid", 0.0)):
        right = {c.id: 0.3 + 0.3 * ((c.prototype.name == prototype) + (c.rho == rho)) for c in SPACE.candidates}
        for seed in range(5):
            strategy = STRATEGIES[name](SPACE, sizes)
            drive(strategy, made(SPACE, sizes, right, 0, seed))
            assert strategy.best().id == f"{prototype}/{rho:g}"


@pytest.mark.parametrize("name", ["race", "exhaustive"])
def test_finds_what_two_passes_cannot(name: str) -> None:
    """A prototype that is good at one split only, and bad at the default's."""
    sizes, right = blocks(1000), {"shallow/0": 0.9, "shallow/0.9": 0.1}
    strategy = STRATEGIES[name](SPACE, sizes)
    drive(strategy, made(SPACE, sizes, right, 0.4))
    assert strategy.best().id == "shallow/0"
    passes = STRATEGIES["two-pass"](SPACE, sizes)
    drive(passes, made(SPACE, sizes, right, 0.4))
    assert passes.best().id != "shallow/0"


@every
def test_equals_keep_the_default(name: str) -> None:
    """Where nothing is better than anything the default is the answer."""
    strategy = STRATEGIES[name](SPACE, blocks(200))
    drive(strategy, lambda candidate: [0.5] * 200)
    assert strategy.best() == SPACE.default


@every
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_chosen(name: str, bad: float) -> None:
    """Not even where it is all there is beside the default, or where the default itself is broken."""
    sizes = blocks(100)

    def scores(candidate: Candidate) -> list[float]:
        return [0.1] * 100 if candidate == SPACE.default else [1.0] * 99 + [bad]

    strategy = STRATEGIES[name](SPACE, sizes)
    drive(strategy, lambda candidate: [bad, *scores(candidate)[1:]] if candidate != SPACE.default else [0.1] * 100)
    assert strategy.best() == SPACE.default
    broken = STRATEGIES[name](SPACE, sizes)
    drive(broken, lambda candidate: [bad] * 100)
    assert broken.best() == SPACE.default


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "tpe" else ()) for name in STRATEGIES]
)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 9), st.data())
def test_a_killed_search_goes_on_without_asking_again(
    name: str, sizes: list[int], seed: int, data: st.DataObject
) -> None:
    """Rebuilt from what was told: the same winner, the same samples per candidate, never more than the bound."""
    scores = made(SMALL, sizes, {"deep/0.1": 0.7, "hybrid/0.5": 0.65}, 0.5, seed)
    whole = STRATEGIES[name](SMALL, sizes)
    wanted = drive(whole, scores)
    beside = 2 + TRIALS if name in ("random", "tpe") else 0  # points beside the grid, and what they are compared with
    assert sum(wanted.values()) <= whole.bound() <= (len(SMALL.candidates) + beside) * sum(sizes)
    killed = STRATEGIES[name](SMALL, sizes)
    known = drive(killed, scores, data.draw(st.integers(0, 60)))
    again = STRATEGIES[name](SMALL, sizes)
    computed = resume(again, scores, known)
    assert again.best() == whole.best()
    assert computed == sum(wanted.values()) - sum(known.values())


def test_a_race_asks_for_a_fraction() -> None:
    """Of 55 candidates on 1,000 samples: under 0.3 of what two passes ask for, its own bound kept."""
    sizes = blocks(1000)
    for seed in range(5):
        counts = {}
        for name in ("race", "two-pass", "exhaustive"):
            strategy = STRATEGIES[name](SPACE, sizes)
            scores = made(SPACE, sizes, {f"deep/{rho:g}": 0.6 for rho in RHO_GRID}, 0.5, seed)
            counts[name] = sum(drive(strategy, scores).values())
        assert counts["race"] < 0.3 * counts["two-pass"]
        assert (counts["two-pass"], counts["exhaustive"]) == (15_000, 55_000)


def test_a_race_sees_the_default_at_every_rung() -> None:
    """It is measured on as much as the winner, whatever its scores."""
    sizes = blocks(700)
    strategy = STRATEGIES["race"](SPACE, sizes)
    seen = drive(strategy, made(SPACE, sizes, {SPACE.default.id: 0.05}, 0.5))
    assert seen[SPACE.default.id] == max(seen.values()) == seen[strategy.best().id]


def test_rungs_double() -> None:
    """From the first one with enough samples on; all blocks are the last; a small split is one rung."""
    assert rungs([32] * 32) == (1, 2, 4, 8, 16, 32)
    assert rungs([32] * 5) == (1, 2, 4, 5)
    assert rungs([8] * 8) == (4, 8)
    assert rungs([10, 10]) == (2,)
    assert rungs([FIRST]) == (1,)
    assert rungs([32] * 64) == (2, 4, 8, 16, 32, 64)  # 2,048 samples: the first rung has 64
    assert (FIRST, FIRST_CUT, CUT) == (32, 5, 2)


def test_survivors_are_the_best_without_those_that_clearly_trail() -> None:
    """Ordered by mean, ties by the order given; a paired difference of 2.33 standard errors drops at once."""
    scores = {"a": [0.0, 1.0] * 50, "b": [1.0] * 100, "c": [1.0] * 96 + [0.0] * 4, "d": [1.0] * 100, "e": [math.nan]}
    assert survivors(scores, 4) == ["b", "d", "c"]
    assert survivors(scores, 1) == ["b"]
    assert survivors({"e": [math.nan], "f": []}, 2) == []
    assert trails([1.0] * 94 + [0.0] * 6, [1.0] * 100)  # 0.06 below, standard error 0.0237
    assert not trails([1.0] * 95 + [0.0] * 5, [1.0] * 100)  # 0.05 below, standard error 0.0218
    assert not trails([0.0] * 3, [1.0] * 3)  # no spread: three samples prove nothing
    assert mean([0.5, 1.0]) == 0.75
    assert mean([]) == mean([math.nan, 1.0]) == float("-inf")
