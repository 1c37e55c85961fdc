"""What a search saw of every candidate: its score, and its paired difference to the default on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from .evidence import by_picture
from .ledger import SEARCH, Ledger
from .search import ClassData
from .space import Space, split_id

WIDE = 1.959964
"""Standard errors on either side of a 95 % interval."""


@dataclass(frozen=True)
class Point:
    """One candidate of a class, on the search samples that it saw.

    Attributes:
        candidate: its id.
        prototype: its prototype as the id names it; one beside the grid has scores in brackets.
        rho: share of attention pivots.
        samples: how many of the class's search samples it saw, from the front.
        score: mean on them, 0..1.
        difference: score minus the default's on the same samples, -1..1; None where the default saw fewer.
        error: standard error of ``difference``, samples of one picture taken together; None where that is, or where
            there is one picture only.
    """

    candidate: str
    prototype: str
    rho: float
    samples: int
    score: float
    difference: float | None
    error: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of ``difference`` by the normal approximation; None without an error."""
        if self.difference is None or self.error is None:
            return None
        return self.difference - WIDE * self.error, self.difference + WIDE * self.error


def search_points(space: Space, data: ClassData, ledger: Ledger) -> list[Point]:
    """Every candidate of a class that has scores at the space's budget, in the order in which they were first scored.

    They decide nothing: the largest of many differences on the search split is optimistic, and a candidate that a race
    dropped early saw few samples. One with a score that is not finite is left out.

    Args:
        space: the candidates at one budget.
        data: the class.
        ledger: with the scores of its search split.
    """
    nominal = space.further.nominal if space.further else None
    default = ledger.scores(SEARCH, data.intent, space.default.id)
    pictures = [sample.image_sha256 for sample in data.search]
    points = []
    for name in ledger.candidates(SEARCH, data.intent):
        _, _, rho, its = split_id(name)
        scores = ledger.scores(SEARCH, data.intent, name)
        if its != nominal or not scores or not all(map(isfinite, scores)):
            continue
        difference, error = _paired(scores, default, pictures)
        mean = float(np.mean(scores))
        points.append(Point(name, name.rpartition("/")[0], rho, len(scores), mean, difference, error))
    return points


def _paired(
    scores: Sequence[float], default: Sequence[float], pictures: Sequence[str]
) -> tuple[float | None, float | None]:
    """Mean difference, and its standard error as that of a ratio of per-picture sums."""
    count = len(scores)
    if len(default) < count or len(pictures) < count or not all(map(isfinite, default[:count])):
        return None, None
    sums, sizes = by_picture(np.asarray(scores) - np.asarray(default[:count]), pictures[:count])
    difference = float(sums.sum() / sizes.sum())
    if len(sums) < 2:
        return difference, None
    rests = sums - difference * sizes
    return difference, sqrt(len(sums) / (len(sums) - 1) * float((rests**2).sum())) / float(sizes.sum())
