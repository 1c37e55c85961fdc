"""Interval, exact test and Holm's correction against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claspkit.calib.evidence import RESAMPLES, compare, holm, interval_of

scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40)


def test_exact_p_value_is_the_binomial_tail() -> None:
    """Eight wins, two losses, ten ties: P(at least 8 of 10) under a fair coin."""
    ours = [1.0] * 8 + [0.0] * 2 + [1.0] * 10
    theirs = [0.0] * 8 + [1.0] * 2 + [1.0] * 10
    found = compare(ours, theirs, [str(i) for i in range(20)], seed=0)
    assert found.p_value == pytest.approx(sum(math.comb(10, k) for k in (8, 9, 10)) / 2**10)
    assert found.difference == pytest.approx(0.3)
    assert found.ci_low < 0.3 < found.ci_high


def test_samples_of_one_picture_count_as_one_flip() -> None:
    """Ten wins on one picture are one observation: no evidence."""
    found = compare([1.0] * 10, [0.0] * 10, ["same"] * 10, seed=0)
    assert found.p_value == 0.5
    assert (found.ci_low, found.ci_high) == (1.0, 1.0)


def test_unequal_differences_are_drawn() -> None:
    """Scores in thirds: the drawn sign flips agree with full enumeration."""
    ours, theirs = [1.0, 2 / 3, 1.0, 1 / 3, 0.0, 1.0], [0.0, 0.0, 2 / 3, 1.0, 0.0, 1 / 3]
    sizes = [a - b for a, b in zip(ours, theirs, strict=True) if a != b]
    total = sum(sizes)
    flips = [sum(s * (1 if bits >> i & 1 else -1) for i, s in enumerate(map(abs, sizes))) for bits in range(32)]
    exact = sum(value >= total - 1e-12 for value in flips) / 32
    assert compare(ours, theirs, list("abcdef"), seed=1).p_value == pytest.approx(exact, abs=0.015)


@given(scores)
def test_a_configuration_is_not_better_than_itself(values: list[float]) -> None:
    """No difference: p = 1 and an interval of zero width."""
    found = compare(values, values, [str(i) for i in range(len(values))], seed=0)
    assert (found.difference, found.ci_low, found.ci_high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("pictures", [1, 7, 40])
def test_drawing_in_blocks_changes_no_interval(pictures: int) -> None:
    """The interval of pictures of unequal size equals that of all draws made at once."""
    random = np.random.default_rng(3)
    groups = [f"{number % pictures}" for number in random.integers(0, 1000, 97)]
    differences = random.normal(size=97)
    names = list(dict.fromkeys(groups))
    sums = np.array([differences[[g == name for g in groups]].sum() for name in names])
    sizes = np.array([groups.count(name) for name in names])
    draws = np.random.default_rng(5).integers(0, len(names), size=(RESAMPLES, len(names)))
    wanted = np.quantile(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1), [0.025, 0.975])
    assert interval_of(differences, groups, 5) == pytest.approx(tuple(wanted), abs=1e-12)


def test_bad_input_is_refused() -> None:
    """Empty, unequal or non-finite scores never become evidence."""
    for ours, theirs in (([], []), ([1.0], [1.0, 0.0]), ([math.nan], [0.0]), ([math.inf], [0.0])):
        with pytest.raises(ValueError, match="compare"):
            compare(ours, theirs, ["a"] * len(ours), seed=0)


def test_holm_known_answer() -> None:
    """The textbook example, in the order given."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_never_lowers_a_p_value(values: list[float]) -> None:
    """Adjusted values are at least the raw ones, at most 1, and keep the order."""
    adjusted = holm(values)
    assert all(raw <= corrected <= 1 for raw, corrected in zip(values, adjusted, strict=True))
    ranked = [corrected for _, corrected in sorted(zip(values, adjusted, strict=True))]
    assert ranked == sorted(ranked)
