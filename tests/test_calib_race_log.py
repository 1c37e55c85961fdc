"""A race told again: by hand on constructed scores, and held against the race itself on drawn ones."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.calib.race_log import CUT, DEFAULT, DROPPED, FAILED, STAYED, TRAILED, WAITING, WON, Rung, race_log
from claspkit.calib.space import Space, make_space
from claspkit.calib.strategy_race import Race

SPACE = make_space(8, (0.0, 0.5, 0.9))
IDS = [candidate.id for candidate in SPACE.candidates]
SIZES = (32, 32, 32, 32)


def drawn(seed: int, space: Space = SPACE, samples: int = 128) -> dict[str, list[float]]:
    """0/1 scores; the later a candidate stands in the grid the better it is."""
    random = np.random.default_rng(seed)
    chances = np.linspace(0.3, 0.8, len(space.candidates))
    return {
        candidate.id: (random.random(samples) < chance).astype(float).tolist()
        for candidate, chance in zip(space.candidates, chances, strict=True)
    }


def run(scores: dict[str, list[float]]) -> tuple[str, dict[str, int]]:
    """The race itself: its winner, and how many samples each candidate was asked about."""
    race, asked = Race(SPACE, SIZES), dict.fromkeys(IDS, 0)
    while requests := race.ask():
        for request in requests:
            name = request.candidate.id
            asked[name] = sum(SIZES[: request.blocks])
            race.tell(request.candidate, scores[name][: asked[name]])
    return race.best().id, asked


def fates(rung: Rung) -> dict[str, str]:
    """Candidate -> what became of it."""
    return {each.candidate: each.fate for each in rung.standings}


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_what_is_told_is_what_the_race_did(seed: int) -> None:
    """The same winner; on every rung those whom the race asked about that many samples, no one else."""
    scores = drawn(seed)
    winner, asked = run(scores)
    rungs = race_log(SPACE, SIZES, {name: scores[name][: asked[name]] for name in IDS})
    assert all(rung.complete for rung in rungs)
    assert [each.candidate for each in rungs[-1].standings if each.fate == WON] == [winner]
    for rung in rungs:
        assert {each.candidate for each in rung.standings} == {name for name in IDS if asked[name] >= rung.samples}
        means = [each.mean for each in rung.standings if each.mean is not None]
        assert means == sorted(means, reverse=True)
    for before, after in pairwise(rungs):
        left = {each.candidate for each in before.standings} - {each.candidate for each in before.dropped}
        assert left == {each.candidate for each in after.standings}


def test_margins_are_paired_differences_to_the_leader() -> None:
    scores = drawn(5)
    first = race_log(SPACE, SIZES, scores)[0]
    leader = max((name for name in IDS if name != SPACE.default.id), key=lambda name: fmean(scores[name][:32]))
    for each in first.standings:
        differences = [a - b for a, b in zip(scores[each.candidate][:32], scores[leader][:32], strict=True)]
        assert each.behind == pytest.approx(fmean(differences))
        assert each.error == pytest.approx(stdev(differences) * (31 / 32) ** 0.5 / 32**0.5)
    assert next(each for each in first.standings if each.candidate == leader).behind == 0


def test_who_clearly_trails_is_told_from_who_was_one_too_many() -> None:
    """One candidate is wrong throughout; the others differ by one sample each, too little to trail clearly."""
    best = [1.0] * 32
    scores = {
        name: [0.0] * 31 + [1.0] if name == "middle/0.5" else [0.0, *best[1:]] if number > 3 else list(best)
        for number, name in enumerate(IDS)
    }
    (rung,) = race_log(SPACE, (32,), scores)
    found = fates(rung)
    assert found["middle/0.5"] == TRAILED
    assert found[SPACE.default.id] == WON  # a tie goes to the default
    assert found[IDS[1]] == CUT
    assert STAYED not in found.values()


def test_the_default_stays_however_bad_it_is() -> None:
    scores = drawn(1)
    scores[SPACE.default.id] = [0.0] * 128
    rungs = race_log(SPACE, SIZES, scores)
    assert len(rungs) > 1
    assert {fates(rung)[SPACE.default.id] for rung in rungs} == {DEFAULT}
    assert min(rungs[0].standings, key=lambda each: each.behind or 0.0).candidate == SPACE.default.id


def test_a_score_that_is_not_finite_drops_its_candidate() -> None:
    scores = drawn(2)
    scores["deep/0"][3] = float("nan")
    rungs = race_log(SPACE, SIZES, scores)
    odd = next(each for each in rungs[0].standings if each.candidate == "deep/0")
    assert (odd.fate, odd.mean, odd.behind, odd.error) == (FAILED, None, None, None)
    assert "deep/0" not in fates(rungs[1])


def test_a_killed_race_ends_in_the_rung_that_it_was_on() -> None:
    """The second rung has scores of one candidate only."""
    scores = drawn(3)
    whole = race_log(SPACE, SIZES, scores)
    field = [each.candidate for each in whole[1].standings]
    cut = {name: scores[name][: 64 if name == field[0] else 32] for name in IDS}
    rungs = race_log(SPACE, SIZES, cut)
    assert rungs[0] == whole[0]
    assert len(rungs) == 2
    assert not rungs[1].complete
    assert set(fates(rungs[1])) == set(field)
    assert set(fates(rungs[1]).values()) == {WAITING}
    assert [each.candidate for each in rungs[1].standings if each.mean is not None] == [field[0]]
    assert not rungs[1].dropped


def test_without_scores_there_is_no_race() -> None:
    assert race_log(SPACE, SIZES, {}) == []
    assert race_log(SPACE, (), drawn(0)) == []
    assert {each.fate for rung in race_log(SPACE, SIZES, drawn(0)) for each in rung.dropped} <= set(DROPPED)
