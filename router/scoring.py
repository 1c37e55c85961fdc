"""How good a router is: its labels against what is true. Pure functions of lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from math import ceil
from typing import Any

from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import DEFAULT_INTENT, INTENT_IDS

from .labels import Label, settle

BINS = 15
COVERAGE = 0.85
"""The share of prompts whose labels are to be trusted, at which routers are compared."""


@dataclass(frozen=True)
class ClassScore:
    """One class. Precision, recall and F1 are 0 where nothing was labelled so, or nothing is so.

    Attributes:
        intent: its id.
        prompts: how many prompts are of it.
        precision: share of right ones among the labels.
        recall: share found of its prompts.
        f1: harmonic mean of both.
    """

    intent: str
    prompts: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Scores:
    """What :func:`score` finds.

    Attributes:
        prompts: how many.
        accuracy: share of right labels.
        macro_f1: mean F1 of the classes that have prompts.
        calibration_error: see :func:`calibration_error`.
        accuracy_at_coverage: accuracy of the surest COVERAGE of the prompts.
        classes: in the order of the taxonomy.
        confusion: row = true class, column = label, counts.
        curve: see :func:`coverage_curve`.
    """

    prompts: int
    accuracy: float
    macro_f1: float
    calibration_error: float
    accuracy_at_coverage: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    curve: tuple[tuple[float, float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Rejection:
    """What comes of labels when those less sure than a threshold become the default class.

    Attributes:
        threshold: it.
        coverage: share of labels that are accepted.
        accepted_accuracy: share of right ones among these; None where none is accepted.
        accuracy: share of right ones among all, the rejected ones being default.
    """

    threshold: float
    coverage: float
    accepted_accuracy: float | None
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return asdict(self)


def score(truth: Sequence[str], labels: Sequence[Label], intents: Sequence[str] = INTENT_IDS) -> Scores:
    """Score labels against the true intent ids, all of them of ``intents``.

    Raises:
        UsageError: no prompts, or counts that differ.
    """
    _check(truth, labels)
    right = [label.intent == true for true, label in zip(truth, labels, strict=True)]
    sure = [label.confidence for label in labels]
    confusion = confusion_matrix(truth, [label.intent for label in labels], intents)
    classes = class_scores(confusion, intents)
    present = [item.f1 for item in classes if item.prompts]
    return Scores(
        prompts=len(labels),
        accuracy=sum(right) / len(right),
        macro_f1=sum(present) / len(present),
        calibration_error=calibration_error(right, sure),
        accuracy_at_coverage=accuracy_at(right, sure, COVERAGE),
        classes=classes,
        confusion=confusion,
        curve=coverage_curve(right, sure),
    )


def rejection(
    truth: Sequence[str], labels: Sequence[Label], threshold: float, default: str = DEFAULT_INTENT
) -> Rejection:
    """Reject labels below ``threshold`` as a profile's router does, and compare with the true intent ids.

    Raises:
        UsageError: no labels, or counts that differ.
    """
    _check(truth, labels)
    pairs = list(zip(truth, labels, strict=True))
    accepted = [label.intent == true for true, label in pairs if label.confidence >= threshold]
    right = sum(settle(label, threshold, default).intent == true for true, label in pairs)
    return Rejection(
        threshold=threshold,
        coverage=len(accepted) / len(pairs),
        accepted_accuracy=sum(accepted) / len(accepted) if accepted else None,
        accuracy=right / len(pairs),
    )


def confusion_matrix(
    truth: Sequence[str], given: Sequence[str], intents: Sequence[str] = INTENT_IDS
) -> tuple[tuple[int, ...], ...]:
    """K x K counts: row = true intent, column = given intent, in the order of ``intents``."""
    places = {intent: number for number, intent in enumerate(intents)}
    counts = [[0] * len(places) for _ in places]
    for true, label in zip(truth, given, strict=True):
        counts[places[true]][places[label]] += 1
    return tuple(tuple(row) for row in counts)


def class_scores(
    confusion: Sequence[Sequence[int]], intents: Sequence[str] = INTENT_IDS
) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class of a confusion matrix."""
    found = []
    for number, intent in enumerate(intents):
        hit, true, given = confusion[number][number], sum(confusion[number]), sum(row[number] for row in confusion)
        f1 = 2 * hit / (true + given) if true + given else 0.0
        found.append(ClassScore(intent, true, hit / given if given else 0.0, hit / true if true else 0.0, f1))
    return tuple(found)


def calibration_error(right: Sequence[bool], sure: Sequence[float], bins: int = BINS) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, over bins of equal width.

    The bins are (0, 1/b], (1/b, 2/b] ...; confidence 0 belongs to the first. Each weighs as many as it holds.
    """
    hits, total, held = [0] * bins, [0.0] * bins, [0] * bins
    for is_right, value in zip(right, sure, strict=True):
        place = min(max(ceil(value * bins) - 1, 0), bins - 1)
        hits[place] += is_right
        total[place] += value
        held[place] += 1
    return sum(abs(hit - value) for hit, value in zip(hits, total, strict=True)) / sum(held)


def coverage_curve(right: Sequence[bool], sure: Sequence[float]) -> tuple[tuple[float, float, float], ...]:
    """(threshold, coverage, accuracy of the accepted) for each confidence that occurs, the highest first.

    Accepted is what is at least as sure as the threshold, so prompts of one confidence come in together.
    """
    pairs = sorted(zip(sure, right, strict=True), key=lambda pair: -pair[0])
    taken = hits = 0
    curve = []
    for value, group in groupby(pairs, key=lambda pair: pair[0]):
        these = [is_right for _, is_right in group]
        taken += len(these)
        hits += sum(these)
        curve.append((value, taken / len(pairs), hits / taken))
    return tuple(curve)


def accuracy_at(right: Sequence[bool], sure: Sequence[float], coverage: float) -> float:
    """Accuracy of the surest ``coverage`` of the prompts, at least one and rounded up.

    Where the border falls among equally sure prompts, each of these counts by the share of them that fits.
    """
    wanted = max(1, ceil(coverage * len(sure) - 1e-9))
    taken, hits = 0, 0.0
    for _, covered, accuracy in coverage_curve(right, sure):
        count = round(covered * len(sure))
        gained = accuracy * count - hits
        if count >= wanted:
            return (hits + gained * (wanted - taken) / (count - taken)) / wanted
        taken, hits = count, accuracy * count
    raise AssertionError("the curve ends at coverage 1")


def threshold_for(right: Sequence[bool], sure: Sequence[float], accuracy: float, at_least: int = 1) -> float | None:
    """The lowest confidence from which on the accepted are right at least as often as asked.

    None if there is no such confidence. One that accepts fewer than ``at_least`` says too little and does not count.
    """
    share = (at_least - 0.5) / max(len(sure), 1)
    curve = coverage_curve(right, sure)
    return min((value for value, covered, reached in curve if reached >= accuracy and covered > share), default=None)


def _check(truth: Sequence[str], labels: Sequence[Label]) -> None:
    if not labels or len(truth) != len(labels):
        raise UsageError(
            f"scoring needs one true intent per label and at least one: {len(truth)} and {len(labels)} given"
        )
