"""What is true of many answers together and of none alone: measures of yes-or-no questions, as POPE and MME report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .answers import yes_or_no
from .ledger import HOLDOUT, UNPRUNED, Ledger
from .samples import Sample
from .scorers import READINGS
from .search import ClassData, Verdict
from .space import Space

CONFIGURATIONS = ("unpruned", "default", "chosen")
"""Whose answers are measured: the stock model's, the default configuration's, and those of what the profile has."""


@dataclass(frozen=True)
class YesNoMeasures:
    """Measures of yes-or-no questions; "yes" is the positive answer. Shares are 0..1.

    Attributes:
        questions: how many there are.
        accuracy: share answered right; an answer that says neither is wrong.
        precision: share of the answers yes that are right; None where no answer is yes.
        recall: share of the questions to be answered yes that are; None without such a question.
        f1: harmonic mean of the two, 0 where nothing right is yes; None where neither answer nor question is yes.
        yes_share: share of all answers that say yes.
        unread: share of all answers that say neither; MME's "other".
        pairs: pictures with exactly two of the questions.
        accuracy_plus: share of these pictures with both answered right (MME's accuracy+); None without such a picture.
    """

    questions: int
    accuracy: float
    precision: float | None
    recall: float | None
    f1: float | None
    yes_share: float
    unread: float
    pairs: int
    accuracy_plus: float | None


def yes_no_measures(said: Sequence[str | None], right: Sequence[str], pictures: Sequence[str]) -> YesNoMeasures:
    """Measure answers to yes-or-no questions.

    Args:
        said: "yes", "no" or None (neither), one per question.
        right: "yes" or "no", in the same order.
        pictures: the picture of every question.

    Raises:
        ValueError: no question, or lists of different lengths.
    """
    count = len(said)
    if not count or not count == len(right) == len(pictures):
        raise ValueError(
            f"yes_no_measures needs equal, non-empty lists, got {count}, {len(right)} and {len(pictures)} entries"
        )
    hits = [mine == wanted for mine, wanted in zip(said, right, strict=True)]
    yes_said, yes_right = said.count("yes"), list(right).count("yes")
    both = sum(hit for hit, wanted in zip(hits, right, strict=True) if wanted == "yes")
    by_picture: dict[str, list[bool]] = {}
    for picture, hit in zip(pictures, hits, strict=True):
        by_picture.setdefault(picture, []).append(hit)
    pairs = [all(found) for found in by_picture.values() if len(found) == 2]
    return YesNoMeasures(
        questions=count,
        accuracy=sum(hits) / count,
        precision=both / yes_said if yes_said else None,
        recall=both / yes_right if yes_right else None,
        f1=2 * both / (yes_said + yes_right) if yes_said + yes_right else None,
        yes_share=yes_said / count,
        unread=list(said).count(None) / count,
        pairs=len(pairs),
        accuracy_plus=sum(pairs) / len(pairs) if pairs else None,
    )


def holdout_measures(
    classes: Sequence[ClassData], verdicts: Sequence[Verdict], space: Space, ledger: Ledger
) -> list[dict[str, Any]]:
    """Measure the yes-or-no questions of the holdout, per class and per data set, as JSON for the summary.

    Questions are those whose scorer is one of :data:`.scorers.READINGS`, which reads their answers. One whose
    references contradict each other is left out.

    Args:
        classes: the samples used.
        verdicts: one per class, in the same order.
        space: the candidates.
        ledger: with the holdout's answers.

    Returns:
        rows {over: "class" | "dataset", name, scorers, unpruned, default, chosen}, the last three as
        :class:`YesNoMeasures`; None where not every question has an answer in the ledger. Groups without yes-or-no
        questions have no row.
    """
    groups: dict[tuple[str, str], list[tuple[Sample, dict[str, str | None]]]] = {}
    for data, verdict in zip(classes, verdicts, strict=True):
        names = dict(zip(CONFIGURATIONS, (UNPRUNED, space.default.id, verdict.chosen.id), strict=True))
        answers = {name: ledger.answers(HOLDOUT, data.intent, key) for name, key in names.items()}
        for index, sample in enumerate(data.holdout):
            if _right(sample) is None:
                continue
            mine = {name: found[index] if index < len(found) else None for name, found in answers.items()}
            for group in (("class", data.intent), ("dataset", sample.source.dataset)):
                groups.setdefault(group, []).append((sample, mine))
    order = sorted(groups, key=lambda group: group[0])  # classes first, each kind in the order of appearance
    return [_row(over, name, groups[over, name]) for over, name in order]


def _row(over: str, name: str, asked: Sequence[tuple[Sample, dict[str, str | None]]]) -> dict[str, Any]:
    samples = [sample for sample, _ in asked]
    row: dict[str, Any] = {"over": over, "name": name, "scorers": sorted({sample.scorer for sample in samples})}
    right = [_right(sample) or "" for sample in samples]
    for configuration in CONFIGURATIONS:
        answers = [mine[configuration] for _, mine in asked]
        said = [
            READINGS[sample.scorer](answer)
            for sample, answer in zip(samples, answers, strict=True)
            if answer is not None
        ]
        known = len(said) == len(samples)
        pictures = [sample.image_sha256 for sample in samples]
        row[configuration] = asdict(yes_no_measures(said, right, pictures)) if known else None
    return row


def _right(sample: Sample) -> str | None:
    """What is right, "yes" or "no"; None where the sample is no such question or its references disagree."""
    said = {yes_or_no(answer) for answer in sample.answers} - {None}
    return said.pop() if sample.scorer in READINGS and len(said) == 1 else None
