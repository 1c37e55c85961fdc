"""Successive halving: many candidates on few samples, few candidates on many. Pure arithmetic on score lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt
from statistics import fmean, pstdev

FIRST = 32
"""Samples of the first rung, at least."""

SHARE = 32
"""The first rung has one sample in this many, so that more data makes a search surer and not only its end."""

CLEAR = 2.33
"""Standard errors by which a candidate must trail the leader to be dropped at once (one-sided 1 %)."""


def rungs(sizes: Sequence[int]) -> tuple[int, ...]:
    """How many blocks each rung takes: the first holds FIRST samples and one in SHARE, each next one twice as many.

    The last rung is all blocks. Samples are taken from the front, so a rung contains the one before.

    Args:
        sizes: samples per block.
    """
    found, wanted, total = [], max(FIRST, sum(sizes) // SHARE), 0
    for number, size in enumerate(sizes, 1):
        total += size
        if total >= wanted and number < len(sizes):
            found.append(number)
            wanted = 2 * total
    return (*found, len(sizes))


def survivors(scores: Mapping[str, Sequence[float]], keep: int) -> list[str]:
    """Who goes on: the best ``keep`` by mean, without those that clearly trail the best; the best one always does.

    Args:
        scores: candidate id -> its scores on the same samples, in one order; the order of ids settles ties. A
            candidate with a score that is not finite is dropped.
        keep: how many, at most; at least 1.

    Returns:
        ids, the best first; none where no candidate has finite scores.
    """
    means = {name: mean(values) for name, values in scores.items()}
    order = sorted((name for name in means if isfinite(means[name])), key=lambda name: -means[name])
    if not order:
        return []
    leader = scores[order[0]]
    return [order[0], *(name for name in order[1:keep] if not trails(scores[name], leader))]


def trails(scores: Sequence[float], leader: Sequence[float]) -> bool:
    """Whether the paired differences to the leader are CLEAR standard errors below zero."""
    lead, error = behind(scores, leader)
    # Where every sample differs by the same amount the error is 0, which a handful of samples does not prove.
    return error > 0 and lead < -CLEAR * error


def behind(scores: Sequence[float], leader: Sequence[float]) -> tuple[float, float]:
    """Mean of the paired differences to the leader, below zero for who trails it, and the standard error of this mean.

    Args:
        scores: per sample, finite, at least one.
        leader: the leader's, on the same samples.
    """
    differences = [mine - its for mine, its in zip(scores, leader, strict=True)]
    return fmean(differences), pstdev(differences) / sqrt(len(differences))


def mean(scores: Sequence[float]) -> float:
    """Mean score; minus infinity where there is none, or one that is not finite."""
    return fmean(scores) if scores and all(map(isfinite, scores)) else float("-inf")
