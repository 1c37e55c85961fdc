"""What a difference between two configurations is worth: interval, exact test, Holm over classes.

The search split says which candidate looks best; its score there is optimistic by construction. Only the holdout,
which the search never saw, decides. Samples of one picture are not independent, so both statistics work on
per-picture sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05
"""Family-wise level of the keep-default rule, over the nine classes."""

RESAMPLES = 10_000
"""Bootstrap and sign-flip draws; a p-value cannot be smaller than 1 / (RESAMPLES + 1) where the test is drawn."""

_DRAWN = 500  # resamples at a time: 9,000 pictures take about 75 MB


@dataclass(frozen=True)
class Paired:
    """A paired comparison on the same samples.

    Attributes:
        samples: number of samples.
        score: mean score of the candidate, 0..1.
        default_score: mean score of the default configuration, 0..1.
        difference: score - default_score.
        ci_low: lower end of the 95 % interval of the difference, pictures resampled.
        ci_high: upper end.
        p_value: one-sided, "the candidate is not better", before any correction.
    """

    samples: int
    score: float
    default_score: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float


def compare(scores: Sequence[float], default_scores: Sequence[float], groups: Sequence[str], seed: int) -> Paired:
    """Compare a candidate with the default, sample by sample.

    Args:
        scores: the candidate's per-sample scores, 0..1.
        default_scores: the default's, in the same order.
        groups: the picture of every sample.
        seed: of the resampling; the same inputs give the same numbers.

    Raises:
        ValueError: empty input, unequal lengths, or a score that is not finite.
    """
    if not scores or not len(scores) == len(default_scores) == len(groups):
        raise ValueError(
            f"compare needs equal, non-empty lists, got {len(scores)}, {len(default_scores)}, {len(groups)}"
        )
    ours, theirs = np.asarray(scores, dtype=float), np.asarray(default_scores, dtype=float)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("compare: a score is NaN or infinite")
    sums, sizes = by_picture(ours - theirs, groups)
    low, high = _interval(sums, sizes, seed)
    return Paired(
        samples=len(ours),
        score=float(ours.mean()),
        default_score=float(theirs.mean()),
        difference=float(ours.mean() - theirs.mean()),
        ci_low=low,
        ci_high=high,
        p_value=_p_value(sums, seed),
    )


def interval_of(differences: np.ndarray, groups: Sequence[str], seed: int) -> tuple[float, float]:
    """95 % interval of the mean of paired differences, pictures resampled, as in :func:`compare`.

    Args:
        differences: (samples,) float64.
        groups: the picture of every sample.
        seed: of the resampling.
    """
    return _interval(*by_picture(differences, groups), seed)


def over_classes(
    differences: Sequence[np.ndarray], groups: Sequence[Sequence[str]], seed: int
) -> tuple[float, float, float]:
    """Mean of the classes' mean differences, every class weighing the same, with its 95 % interval.

    Pictures are resampled over all classes at once, since one picture may be asked about in several. What is resampled
    is how the samples lie around the mean of their own class: how many samples a class has, and how far the classes
    lie apart, is no accident. (The linearised bootstrap of a stratified mean.)

    Args:
        differences: one array (samples of the class,) float64 per class, none of them empty; at least one class.
        groups: the picture of every sample, in the same shape.
        seed: of the resampling.

    Returns:
        mean, lower end, upper end.
    """
    centre = float(np.mean([mine.mean() for mine in differences]))
    shares = [(mine - mine.mean()) / (len(mine) * len(differences)) for mine in differences]
    sums, _ = by_picture(np.concatenate(shares), [name for names in groups for name in names])
    low, high = _interval(sums, np.full(len(sums), 1 / len(sums)), seed)  # sizes that make its mean a sum
    return centre, centre + low, centre + high


def sign_flip_p(differences: np.ndarray, groups: Sequence[str], seed: int) -> float:
    """One-sided p-value of paired differences, "they are not positive", as in :func:`compare`.

    Args:
        differences: (samples,) float64, finite.
        groups: the picture of every sample.
        seed: of the flips where they are drawn.
    """
    return _p_value(by_picture(differences, groups)[0], seed)


def over_classes_p(differences: Sequence[np.ndarray], groups: Sequence[Sequence[str]], seed: int) -> float:
    """One-sided p-value, "the mean of :func:`over_classes` is not positive", by flipping each picture's difference.

    A sample counts as in that mean: the less, the more samples its class has. Exact where all differences that are not
    zero then have one size, otherwise drawn, as in :func:`compare`.

    Args:
        differences: one array (samples of the class,) float64 per class, none of them empty; at least one class.
        groups: the picture of every sample, in the same shape.
        seed: of the flips where they are drawn.
    """
    mean = sum(map(len, differences)) / len(differences)  # weights around 1, of which the test takes no notice
    weighted = [mine * (mean / len(mine)) for mine in differences]
    return sign_flip_p(np.concatenate(weighted), [name for names in groups for name in names], seed)


def by_picture(differences: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the differences of every picture, (pictures,) float64 both, in the order of appearance.

    Args:
        differences: (samples,) float64.
        groups: the picture of every sample.
    """
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    place = np.array([names[name] for name in groups])
    return np.bincount(place, weights=differences), np.bincount(place).astype(float)


def _interval(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile bootstrap over pictures, 95 %.

    Drawn in blocks, which changes no draw: all at once would take 16 bytes for every draw and picture.
    """
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _DRAWN):
        count = min(_DRAWN, RESAMPLES - start)
        draws = random.integers(0, len(sums), size=(count, len(sums)))
        means[start : start + count] = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _p_value(sums: np.ndarray, seed: int) -> float:
    """One-sided sign test by flipping each picture's difference.

    Where all non-zero differences have one size the flips are a binomial and the value is exact (McNemar's exact
    test for 0/1 scores); otherwise flips are drawn.
    """
    moved = sums[sums != 0]
    if len(moved) == 0:
        return 1.0
    if np.allclose(np.abs(moved), abs(moved[0])):
        wins, trials = int((moved > 0).sum()), len(moved)
        return float(sum(math.comb(trials, k) for k in range(wins, trials + 1)) / 2**trials)
    flips = np.random.default_rng(seed).integers(0, 2, size=(RESAMPLES, len(moved)), dtype=np.int8) * 2 - 1
    reached = (flips @ np.abs(moved) >= moved.sum() - 1e-12).sum()
    return float((1 + reached) / (1 + RESAMPLES))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given, each at most 1."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = running
    return adjusted
