"""How many holdout samples a difference needs, before they are spent: the arithmetic behind ``claspkit power``.

The test is the one of :mod:`.evidence`: one-sided, paired, over pictures; for 0/1 scores McNemar's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from .evidence import by_picture

EXACT = 1000
"""Expected disagreements up to which power is summed exactly."""


@dataclass(frozen=True)
class Spread:
    """How paired differences of two configurations scatter.

    Attributes:
        disagreement: mean squared difference; for 0/1 scores the share of samples that only one of the two gets right.
        per_picture: questions asked about one picture, as the average question sees it.
        correlation: of the differences of two questions about one picture, 0..1.
    """

    disagreement: float
    per_picture: float = 1.0
    correlation: float = 0.0

    @property
    def design_effect(self) -> float:
        """How many samples do the work of one that has a picture of its own."""
        return 1 + (self.per_picture - 1) * self.correlation


def measure(differences: Sequence[np.ndarray], groups: Sequence[Sequence[str]]) -> Spread:
    """Measure the spread of paired differences.

    The correlation is that within a class: what is left after each class's own mean is taken off. It is estimated from
    all pairs of questions about one picture, and 0 if that comes out negative or no picture has two questions.

    Args:
        differences: one array (samples of the class,) float64 per class, none of them empty; at least one class.
        groups: the picture of every sample, in the same shape.
    """
    squared, pairs, shared, rest, samples = 0.0, 0.0, 0.0, 0.0, 0
    for mine, names in zip(differences, groups, strict=True):
        around = mine - mine.mean()
        sums, sizes = by_picture(around, names)
        squared += float((mine**2).sum())
        rest += float((around**2).sum())
        shared += float((sums**2).sum() - (around**2).sum())
        pairs += float((sizes**2).sum()) - len(mine)
        samples += len(mine)
    correlation = 0.0 if pairs == 0 or rest == 0 else shared / pairs / (rest / samples)
    return Spread(squared / samples, 1 + pairs / samples, min(max(correlation, 0.0), 1.0))


def power_of(samples: int, difference: float, disagreement: float, alpha: float) -> float:
    """Probability that the exact test finds a true difference on so many 0/1 samples, each with a picture of its own.

    The number of disagreements m is binomial, and of these the number of wins; the test asks for so many wins that a
    fair coin would reach them with probability ``alpha`` at most. Summed exactly up to :data:`EXACT` disagreements
    expected; beyond that by the normal approximation with half a step of the test as its correction.

    Args:
        samples: at least 1.
        difference: of the mean scores, 0 < difference <= disagreement.
        disagreement: share of samples that only one of the two configurations gets right, at most 1.
        alpha: level of the one-sided test.
    """
    if samples * disagreement > EXACT:
        reach = NormalDist().inv_cdf(1 - alpha) * math.sqrt(samples * disagreement)
        spread = math.sqrt(samples * max(disagreement - difference**2, 1e-12))  # 0 where all differ by 1
        return NormalDist().cdf((samples * difference - 1 - reach) / spread)
    mean, deviation = samples * disagreement, math.sqrt(samples * disagreement * (1 - disagreement))
    disagreements = np.arange(max(0, int(mean - 8 * deviation)), min(samples, math.ceil(mean + 8 * deviation) + 8) + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, samples + 1)))])
    m, wins = disagreements[:, None], np.arange(disagreements[-1] + 1)
    losses = m - wins
    ways = np.where(losses >= 0, factorials[m] - factorials[wins] - factorials[np.maximum(losses, 0)], -np.inf)
    by_chance = np.exp(ways - m * math.log(2))[:, ::-1].cumsum(axis=1)[:, ::-1]  # this many wins or more
    share = (disagreement + difference) / (2 * disagreement)
    really = np.exp(ways + wins * math.log(share) + np.maximum(losses, 0) * _log(1 - share))
    passed = np.where(by_chance <= alpha, really, 0.0).sum(axis=1)
    rest = samples - disagreements
    drawn = factorials[samples] - factorials[disagreements] - factorials[rest]
    drawn += disagreements * math.log(disagreement) + rest * _log(1 - disagreement)
    return float((np.exp(drawn) * passed).sum())


def samples_needed(difference: float, spread: Spread, alpha: float, power: float) -> int:
    """Holdout samples with which a true difference is found with probability ``power``.

    Several questions on a picture multiply what :func:`power_of` asks for by the design effect. Scores between 0 and 1
    count as 0/1 scores whose differences have the same mean square. Where nearly every sample is a disagreement (more
    than 85 %), the power goes up and down by the steps of the test, and the number is one that suffices, not always the
    smallest.

    Args:
        difference: true difference of the mean scores, 0 < difference <= ``spread.disagreement``.
        spread: of the paired differences.
        alpha: level of the one-sided test; for several classes that of Holm's first step, ALPHA / classes.
        power: 0.5 < power < 1.

    Raises:
        ValueError: an argument outside of these bounds, or ``alpha`` outside of 0..0.5.
    """
    _check(difference, spread.disagreement, alpha, power)
    few, enough = 0, 1
    while power_of(enough, difference, spread.disagreement, alpha) < power:
        few, enough = enough, 2 * enough
    while enough - few > 1:
        middle = (few + enough) // 2
        if power_of(middle, difference, spread.disagreement, alpha) < power:
            few = middle
        else:
            enough = middle
    return math.ceil(enough * spread.design_effect)


def detectable(samples: int, spread: Spread, alpha: float, power: float) -> float | None:
    """The smallest true difference that so many holdout samples find with probability ``power``.

    Returns:
        a difference of mean scores; None if not even one as large as the disagreement is found.

    Raises:
        ValueError: as of :func:`samples_needed`.
    """
    low, high = 0.0, spread.disagreement
    own = int(samples / spread.design_effect)
    if own < 1 or high == 0:
        return None
    _check(high, high, alpha, power)
    if power_of(own, high, high, alpha) < power:
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        if power_of(own, middle, spread.disagreement, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def _check(difference: float, disagreement: float, alpha: float, power: float) -> None:
    if not 0 < difference <= disagreement <= 1:
        raise ValueError(f"needs 0 < difference <= disagreement <= 1, got {difference} and {disagreement}")
    if not 0 < alpha < 0.5 < power < 1:
        raise ValueError(f"needs 0 < alpha < 0.5 < power < 1, got {alpha} and {power}")


def _log(value: float) -> float:
    """Logarithm; so low for 0 (or a rounding error below) that it only leaves what it is taken 0 times of."""
    return math.log(max(value, 1e-300))
