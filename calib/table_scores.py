"""A router's scores as tables for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from claspkit.router.scoring import COVERAGE, Scores

from .table import clean, percent

_COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


def print_scores(scores: Scores, title: str, console: Console) -> None:
    """Print the figures, then a table of classes with their confusion, then accuracy by coverage."""
    console.print(Text(clean(title), style="bold"), soft_wrap=True)
    for line in (
        f"prompts {scores.prompts}, accuracy {percent(scores.accuracy)} %, macro F1 {percent(scores.macro_f1)} %",
        f"accuracy on the surest {COVERAGE:.0%}: {percent(scores.accuracy_at_coverage)} %",
        f"expected calibration error {percent(scores.calibration_error)} points",
    ):
        console.print(Text(line), soft_wrap=True)
    console.print(_class_table(scores))
    console.print(_confusion_table(scores))
    console.print(_coverage_table(scores))


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


def _coverage_table(scores: Scores) -> Table:
    """For each coverage, the highest threshold that accepts as much."""
    table = Table("coverage", "threshold", "accuracy")
    _right(table, first=0)
    for wanted in _COVERAGES:
        threshold, covered, accuracy = next(row for row in scores.curve if row[1] >= wanted - 1e-9)
        table.add_row(f"{percent(covered)}", f"{threshold:.3f}", percent(accuracy))
    return table


def _right(table: Table, first: int = 1) -> None:
    for column in table.columns[first:]:
        column.justify = "right"
