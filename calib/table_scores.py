"""A router's labels and its scores, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from claspkit.router.labels import Label
from claspkit.router.scoring import COVERAGE, Rejection, Scores

from .table import clean, percent

_HEAD = ("class", "sure", "unsure of", "who", "prompt")
_COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


def print_routes(prompts: Sequence[str], raw: Sequence[Label], labels: Sequence[Label], console: Console) -> None:
    """Print one line per prompt in columns: class, confidence, class answered where it was rejected, who, prompt.

    On a terminal there are a head and lines no wider than it; elsewhere prompts stand whole. A prompt is one line
    whatever it holds, and moves no cursor.

    Args:
        prompts: the texts.
        raw: their labels as the router gave them.
        labels: the same after rejection.
        console: where to.
    """
    rows = [
        (
            label.intent,
            f"{label.confidence:.2f}",
            "-" if answered.intent == label.intent else answered.intent,
            clean(label.source),
            clean(prompt),
        )
        for prompt, answered, label in zip(prompts, raw, labels, strict=True)
    ]
    shown = [_HEAD, *rows] if console.is_terminal else rows
    classes, who = (max((len(row[column]) for row in shown), default=0) for column in (0, 3))
    for intent, sure, unsure, source, prompt in shown:
        line = Text(f"{intent:<{classes}}  {sure}  {unsure:<{classes}}  {source:<{who}}  {prompt}".rstrip())
        if console.is_terminal:
            line.truncate(console.width, overflow="ellipsis")
        console.print(line, soft_wrap=True, highlight=False)


def print_scores(
    scores: Scores, title: str, console: Console, rejected: Rejection | None = None, word: str = "accuracy"
) -> None:
    """Print the figures, then a table of classes with their confusion, then accuracy by coverage.

    Args:
        scores: what to print.
        title: who was scored on what.
        console: where to.
        rejected: what comes of rejecting below the router's own threshold; left out if None or without a threshold.
        word: what a right label shows: "accuracy", or "agreement" with labels that may be wrong.
    """
    console.print(Text(clean(title), style="bold"), soft_wrap=True)
    lines = [
        f"prompts {scores.prompts}, {word} {percent(scores.accuracy)} %, macro F1 {percent(scores.macro_f1)} %",
        f"{word} on the surest {COVERAGE:.0%}: {percent(scores.accuracy_at_coverage)} %",
        f"expected calibration error {percent(scores.calibration_error)} points",
    ]
    if rejected is not None and rejected.threshold > 0:
        accepted = rejected.accepted_accuracy
        lines.append(
            f"rejecting below {rejected.threshold:.3f}: {percent(rejected.coverage)} % accepted, "
            + ("" if accepted is None else f"{word} {percent(accepted)} % there, ")
            + f"{percent(rejected.accuracy)} % with the rejected as default"
        )
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    console.print(_class_table(scores))
    console.print(_confusion_table(scores))
    console.print(_coverage_table(scores, word))


def _class_table(scores: Scores) -> Table:
    table = Table("class", "prompts", "precision", "recall", "F1")
    _right(table)
    for row in scores.classes:
        table.add_row(row.intent, str(row.prompts), percent(row.precision), percent(row.recall), percent(row.f1))
    return table


def _confusion_table(scores: Scores) -> Table:
    table = Table("true \\ label", *(str(number) for number in range(len(scores.classes))))
    _right(table)
    for number, row in enumerate(scores.confusion):
        cells = [str(count) if count else "" for count in row]
        table.add_row(f"{number} {scores.classes[number].intent}", *cells)
    return table


def _coverage_table(scores: Scores, word: str) -> Table:
    """For each coverage, the highest threshold that accepts as much."""
    table = Table("coverage", "threshold", word)
    _right(table, first=0)
    for wanted in _COVERAGES:
        threshold, covered, accuracy = next(row for row in scores.curve if row[1] >= wanted - 1e-9)
        table.add_row(f"{percent(covered)}", f"{threshold:.3f}", percent(accuracy))
    return table


def _right(table: Table, first: int = 1) -> None:
    for column in table.columns[first:]:
        column.justify = "right"
