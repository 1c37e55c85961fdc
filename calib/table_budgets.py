"""A run's several budgets for the terminal, and the wording that the report shares."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .table import clean, fits, interval, percent

ADAPTIVE = "adaptive"
"""The decision for budgets that differ between classes; the other is that the first budget stays for all."""


def budgets_table(summary: dict[str, Any]) -> Table | None:
    """One row per budget, 80 columns wide; None for a run with one budget."""
    rows = summary.get("budgets")
    if not rows:
        return None
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for header in ("\nbudget", "prefill\nFLOPs %", "\ndefault", "\nprofile"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("profile - default\n[95 % interval]", no_wrap=True)
    table.add_column("classes\nchanged", justify="right", no_wrap=True)
    table.add_column("\nfolder", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["nominal"]),
            percent(row["flops_share"]),
            percent(row["default"]),
            percent(row["profile"]),
            Text(interval(row)),
            str(len(row["changed"])),
            Text(folder_of(row)),
        )
    return table


def print_budgets(summary: dict[str, Any], console: Console) -> None:
    """Print the table, or a line per budget where the console is too narrow for it, and what came of mixing them.

    Nothing for a run with one budget.
    """
    table = budgets_table(summary)
    if table is None:
        return
    console.print()
    if fits(table, console):
        console.print(table)
    else:
        for row in summary["budgets"]:
            means = f"default {percent(row['default'])}, profile {percent(row['profile'])}, {interval(row)}"
            line = f"{row['nominal']} tokens, {percent(row['flops_share'])} % of the FLOPs: {means}; {folder_of(row)}"
            console.print(Text(line), highlight=False)
    if words := adaptive_words(summary):
        console.print()
        console.print(Text(f"{words}."), highlight=False)


def folder_of(row: dict[str, Any]) -> str:
    """The folder of a budget's profile inside the run."""
    return clean(row["path"]).rpartition("/")[0]


def adaptive_words(summary: dict[str, Any]) -> str | None:
    """What came of different budgets for the classes, in one sentence; None where that was not asked for."""
    found = summary.get("adaptive")
    if found is None:
        return None
    target = f"the mean compute of {found['target']} tokens"
    if found["difference"] is None:
        return f"Budgets by class at {target}: not tested; {clean(found['reason'])}"
    verdict = f"taken, in {folder_of(found)}" if found["decision"] == ADAPTIVE else "refused"
    means = f"{percent(found['uniform'])} % to {percent(found['score'])} %, {interval(found)}"
    return f"Budgets by class at {target}: {verdict}; {clean(found['reason'])}; {means}"
