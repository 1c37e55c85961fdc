"""What a benchmark reports of many answers: the mean score, POPE's F1, MME's total, MMBench's circular accuracy.

Every measure is a function of sums over pictures. So its difference between two ways has an interval: pictures are
drawn again, with all their questions, and both ways are measured on the same draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from claspkit.profiles.errors import BadDataError, shorten

from .answers import yes_or_no
from .evidence import RESAMPLES
from .samples import Sample
from .scorers import READINGS
from .sources import Mark

ACCURACY, CIRCULAR, F1, TOTAL = "accuracy", "circular", "f1", "total"

MEASURES: Final[Mapping[str, str]] = {
    ACCURACY: "mean score of the rows",
    CIRCULAR: "share of the questions that are right in every copy with turned-round options",
    F1: "F1 of the answer yes, mean over the data's categories",
    TOTAL: "100 (accuracy + accuracy of both questions about a picture), sum over the data's categories",
}

_SCORERS = {"mme@1": TOTAL, "pope@1": F1, "multiple_choice@1": CIRCULAR}
_DRAWN = 200  # resamples at a time

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """One way's answers to a data set, summed up.

    Attributes:
        sums: (pictures, parts) float64.
        strata: (pictures,) int64; pictures are drawn again within theirs.
        value: from (..., parts) sums to (...) values, in 0..1, or in points for :data:`TOTAL`.
    """

    sums: Sums
    strata: NDArray[np.int64]
    value: Callable[[Sums], Sums]

    @property
    def score(self) -> float:
        """The measure."""
        return float(self.value(self.sums.sum(axis=0)))


def measure_of(samples: Sequence[Sample], marks: Mapping[str, Mark]) -> str:
    """The measure that fits rows by their scorers and marks; the mean score where they have none of their own."""
    scorers = {sample.scorer for sample in samples}
    found = _SCORERS.get(scorers.pop(), ACCURACY) if len(scorers) == 1 else ACCURACY
    if found == CIRCULAR:
        questions = [marks[sample.uid].question for sample in samples if sample.uid in marks]
        named = [question for question in questions if question is not None]
        return CIRCULAR if len(set(named)) < len(named) else ACCURACY
    return found


def tally(
    measure: str, samples: Sequence[Sample], marks: Mapping[str, Mark], scores: Sequence[float], answers: Sequence[str]
) -> Tally:
    """Sum up one way's answers.

    Args:
        measure: a name of :data:`MEASURES`.
        samples: the rows, at least one.
        marks: what the data says about them, by uid.
        scores: one per row, 0..1.
        answers: one per row.

    Raises:
        BadDataError: :data:`TOTAL` without a picture that has exactly two questions of a category.
    """
    pictures = {name: place for place, name in enumerate(dict.fromkeys(sample.image_sha256 for sample in samples))}
    place = np.array([pictures[sample.image_sha256] for sample in samples])
    categories = [marks.get(sample.uid, Mark()).category or "" for sample in samples]
    names = list(dict.fromkeys(categories))
    if measure == ACCURACY:
        columns = np.stack([np.asarray(scores, dtype=float), np.ones(len(samples))], axis=1)
        return _tally(place, columns, np.zeros(len(pictures), dtype=np.int64), _ratio)
    if measure == CIRCULAR:
        groups = _groups(samples, marks, [""] * len(samples))
        columns = np.zeros((len(samples), 2))
        for rows in groups.values():  # a group counts for the picture of its first row
            columns[rows[0]] = min(scores[row] for row in rows), 1.0
        return _tally(place, columns, np.zeros(len(pictures), dtype=np.int64), _ratio)
    if measure == F1:
        columns = np.zeros((len(samples), len(names), 2))
        for row, (sample, answer, category) in enumerate(zip(samples, answers, categories, strict=True)):
            says, right = READINGS[sample.scorer](answer) == "yes", right_answer(sample) == "yes"
            columns[row, names.index(category)] = 2.0 * (says and right), float(says) + float(right)
        return _tally(place, columns.reshape(len(samples), -1), np.zeros(len(pictures), dtype=np.int64), _mean_ratio)
    columns = np.zeros((len(samples), len(names), 4))
    for row, (score, category) in enumerate(zip(scores, categories, strict=True)):
        columns[row, names.index(category), :2] = score, 1.0
    for rows in _groups(samples, marks, categories).values():
        if len(rows) == 2:
            columns[rows[0], names.index(categories[rows[0]]), 2:] = min(scores[row] for row in rows), 1.0
    lacking = [name for index, name in enumerate(names) if not columns[:, index, 3].any()]
    if lacking:
        named = shorten(lacking[0]) if lacking[0] else "(none)"
        raise BadDataError(
            f"MME's total needs pictures with two questions, and the category {named} has none among these rows; "
            "read more of them (--max-rows)"
        )
    strata = np.zeros(len(pictures), dtype=np.int64)
    strata[place[::-1]] = [names.index(category) for category in categories[::-1]]
    return _tally(place, columns.reshape(len(samples), -1), strata, _total)


def mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean, as the paper averages; None where one is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def interval(mine: Tally, theirs: Tally, seed: int) -> tuple[float, float] | None:
    """95 % interval of the difference of two ways on the same rows, pictures resampled.

    None where every stratum has one picture: all draws would be the same, which says nothing about other pictures.

    Args:
        mine: of one way.
        theirs: of the other, of the same rows and measure.
        seed: of the resampling; the same tallies give the same numbers.
    """
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(mine.strata == stratum) for stratum in np.unique(mine.strata)]
    if max(map(len, members)) == 1:
        return None
    found = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _DRAWN):
        count = min(_DRAWN, RESAMPLES - start)
        times = np.zeros((count, len(mine.strata)))
        for inside in members:
            drawn = random.integers(0, len(inside), size=(count, len(inside)))
            flat = (drawn + len(inside) * np.arange(count)[:, None]).ravel()
            times[:, inside] = np.bincount(flat, minlength=count * len(inside)).reshape(count, len(inside))
        found[start : start + count] = mine.value(times @ mine.sums) - theirs.value(times @ theirs.sums)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def right_answer(sample: Sample) -> str:
    """What is right of a yes-or-no question, "yes" or "no"; such a sample has at least one reference that says it."""
    return next(said for said in map(yes_or_no, sample.answers) if said)


def _tally(
    place: NDArray[np.int64], columns: Sums, strata: NDArray[np.int64], value: Callable[[Sums], Sums]
) -> Tally:
    sums = np.zeros((len(strata), columns.shape[1]))
    np.add.at(sums, place, columns)
    return Tally(sums, strata, value)


def _groups(
    samples: Sequence[Sample], marks: Mapping[str, Mark], categories: Sequence[str]
) -> dict[tuple[str, str], list[int]]:
    """Rows that belong together: by the question the data names, else by picture."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, (sample, category) in enumerate(zip(samples, categories, strict=True)):
        named = marks.get(sample.uid, Mark()).question
        found.setdefault((category, sample.image_sha256 if named is None else f"question {named}"), []).append(row)
    return found


def _share(part: Sums, whole: Sums) -> Sums:
    """``part / whole``, 0 where there is nothing of either."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _ratio(sums: Sums) -> Sums:
    return _share(sums[..., 0], sums[..., 1])


def _mean_ratio(sums: Sums) -> Sums:
    parts = sums.reshape(*sums.shape[:-1], -1, 2)
    return np.asarray(_share(parts[..., 0], parts[..., 1]).mean(axis=-1))


def _total(sums: Sums) -> Sums:
    parts = sums.reshape(*sums.shape[:-1], -1, 4)
    each = _share(parts[..., 0], parts[..., 1]) + _share(parts[..., 2], parts[..., 3])
    return np.asarray(100.0 * each.sum(axis=-1))
