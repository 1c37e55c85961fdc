"""The part of the report about yes-or-no questions, whose usual measures are properties of many answers."""

from __future__ import annotations

from typing import Any

from .charts import data_table
from .metrics import CONFIGURATIONS
from .table import clean, percent

_HEADER = [
    *("questions", "configuration", "asked", "accuracy", "accuracy+", "pairs"),
    *("precision", "recall", "F1", "says yes", "says neither"),
]


def measures_table(summary: dict[str, Any]) -> str:
    """A table as HTML; nothing for a run whose holdout has no yes-or-no questions.

    Args:
        summary: what :func:`claspkit.calib.outcome.summarise` made, or the same read back from summary.json.
    """
    found = summary.get("measures")
    if not found:
        return ""
    rows = [
        _cells(f"{row['over'].replace('dataset', 'data set')} {clean(row['name'])}", name, row[name])
        for row in found
        for name in CONFIGURATIONS
        if row[name] is not None
    ]
    return (
        "<h3>Yes-or-no questions</h3>"
        + data_table("Holdout, percent; yes is the positive answer", _HEADER, rows)
        + '<p class="note">accuracy+ is the share of pictures with exactly two of these questions ("pairs") that have '
        "both right; MME's score of a category is 100 (accuracy + accuracy+). What says neither is wrong.</p>"
    )


def _cells(group: str, configuration: str, row: dict[str, Any]) -> tuple[str, ...]:
    shares = ("precision", "recall", "f1", "yes_share", "unread")
    return (
        group,
        configuration,
        str(row["questions"]),
        percent(row["accuracy"]),
        percent(row["accuracy_plus"]),
        str(row["pairs"]),
        *(percent(row[name]) for name in shares),
    )
