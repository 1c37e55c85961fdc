"""What routing errors cost, as arithmetic: a policy sends every sample to a class, and a table says what that scores.

Everything is drawn by hash of sample and seed. A sample that is hit at one share is hit at every larger one, and by the
same wrong class, so that shares of one seed differ by the samples added and by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from claspkit.profiles.canonical import sha256_hex

from .evidence import interval_of

Classes = NDArray[np.int64]
"""(samples,) numbers of classes."""

Scores = NDArray[np.float64]

FEWEST = 3
"""Classes there must be for every sample to have a wrong one that is not the default."""


@dataclass(frozen=True)
class Grid:
    """Every sample's score under every configuration that some class has.

    Attributes:
        uids: of the samples.
        pictures: of the samples; those of one picture are resampled together.
        truth: (samples,) the class that the calibration gave each.
        columns: (classes,) the configuration of each class, a column of ``scores``.
        scores: (samples, configurations) in 0..1.
        default: number of the class that takes what is doubtful.
    """

    uids: Sequence[str]
    pictures: Sequence[str]
    truth: Classes
    columns: NDArray[np.int64]
    scores: Scores
    default: int


@dataclass(frozen=True)
class Cost:
    """What a policy does to the score.

    Attributes:
        changed: share of samples with another class than in the calibration, mean over the seeds.
        moved: share of samples with another configuration; the others cannot change their score.
        score: mean score, 0..1, mean over the seeds.
        deviation: standard deviation of the score over the seeds; None of one seed.
        difference: score minus that of the calibration's own labels.
        ci_low: lower end of the difference's 95 % interval, pictures resampled, seeds averaged.
        ci_high: upper end.
    """

    changed: float
    moved: float
    score: float
    deviation: float | None
    difference: float
    ci_low: float
    ci_high: float


def hit_order(uids: Sequence[str], seed: int) -> NDArray[np.int64]:
    """(samples,) their numbers in the order in which errors reach them, drawn by hash."""
    keys = [sha256_hex(f"misroute:{seed}:{uid}".encode()) for uid in uids]
    return np.array(sorted(range(len(uids)), key=keys.__getitem__), dtype=np.int64)


def wrong_classes(uids: Sequence[str], truth: Classes, classes: int, default: int, seed: int) -> Classes:
    """One wrong class per sample, drawn by hash among those that are neither the sample's own nor the default.

    Args:
        uids: of the samples.
        truth: (samples,) their own classes.
        classes: how many there are, at least :data:`FEWEST`.
        default: number of the default class.
        seed: of the draw.

    Raises:
        ValueError: too few classes for one to be wrong.
    """
    if classes < FEWEST:
        raise ValueError(f"a wrong class that is not the default needs {FEWEST} classes, there are {classes}")
    wrong = np.empty(len(uids), dtype=np.int64)
    for place, (uid, own) in enumerate(zip(uids, truth.tolist(), strict=True)):
        others = [number for number in range(classes) if number not in (own, default)]
        wrong[place] = others[int(sha256_hex(f"wrong:{seed}:{uid}".encode()), 16) % len(others)]
    return wrong


def rerouted(truth: Classes, order: NDArray[np.int64], share: float, to: Classes | int) -> Classes:
    """The classes when the first ``share`` of ``order``, rounded to whole samples, go to ``to`` instead.

    Args:
        truth: (samples,) classes without error.
        order: of :func:`hit_order`.
        share: of the samples, in 0..1.
        to: (samples,) classes, or one for all.
    """
    hit = order[: int(share * len(truth) + 0.5)]
    routed = truth.copy()
    routed[hit] = to if isinstance(to, int) else to[hit]
    return routed


def scored(grid: Grid, routed: Classes) -> Scores:
    """(samples,) scores when every sample runs with its routed class's configuration."""
    found: Scores = grid.scores[np.arange(len(routed)), grid.columns[routed]]
    return found


def cost(grid: Grid, runs: Sequence[Classes], seed: int) -> Cost:
    """What a policy costs against the calibration's labels.

    Args:
        grid: the scores.
        runs: the policy's classes, (samples,) each; one for every seed, at least one.
        seed: of the resampling.
    """
    reference = scored(grid, grid.truth)
    scores = np.stack([scored(grid, routed) for routed in runs])
    differences = (scores - reference).mean(axis=0)  # in this order no error is exactly no difference
    low, high = interval_of(differences, grid.pictures, seed)
    return Cost(
        changed=float(np.mean([routed != grid.truth for routed in runs])),
        moved=float(np.mean([grid.columns[routed] != grid.columns[grid.truth] for routed in runs])),
        score=float(scores.mean()),
        deviation=float(scores.mean(axis=1).std(ddof=1)) if len(runs) > 1 else None,
        difference=float(differences.mean()),
        ci_low=low,
        ci_high=high,
    )


@dataclass(frozen=True)
class Draw:
    """Whom errors of one seed hit.

    Attributes:
        order: of :func:`hit_order`.
        wrong: of :func:`wrong_classes`; None where there are too few classes.
    """

    order: NDArray[np.int64]
    wrong: Classes | None


def draw(grid: Grid, seed: int) -> Draw:
    """Draw for one seed, for all shares."""
    classes = len(grid.columns)
    wrong = wrong_classes(grid.uids, grid.truth, classes, grid.default, seed) if classes >= FEWEST else None
    return Draw(hit_order(grid.uids, seed), wrong)


def forced_default(grid: Grid, draws: Sequence[Draw], share: float) -> list[Classes]:
    """The classes when a share of the samples is sent to the default class, one array per draw."""
    return [rerouted(grid.truth, each.order, share, grid.default) for each in draws]


def random_errors(grid: Grid, draws: Sequence[Draw], share: float) -> list[Classes]:
    """The classes when a share of the samples gets a random wrong class, one array per draw that has them."""
    return [rerouted(grid.truth, each.order, share, each.wrong) for each in draws if each.wrong is not None]
