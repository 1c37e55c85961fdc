"""A study of routing errors as tables for the terminal, and the wording that the page shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .table import clean, interval, percent, points

Study = dict[str, Any]

HEADER = ("routing", "other\nclass", "other\nconfig", "score", "+/-", "difference\n[95 % interval]")


def policy_name(row: dict[str, Any]) -> str:
    """A policy or a router in words."""
    if "router" in row:
        below = row["reject_below"]
        return row["router"] if below is None else f"{row['router']}, < {below:.2f} to default"
    if row["policy"] == "labels":
        return "the calibration's labels"
    if row["share"] >= 1:
        return "default for all"
    return f"{'default' if row['policy'] == 'default' else 'a wrong class'} for {100 * row['share']:g} %"


def rows_of(found: Study) -> list[tuple[str, ...]]:
    """The table's cells, every row in the order of :data:`HEADER`."""
    return [_cells(row) for row in (*found["policies"], *found["routers"])]


def headline(found: Study) -> str:
    """What the study says, in one or two sentences."""
    if found["distinct"] == 1:
        name = next(iter(found["classes"].values()))
        more = "" if found["configs"] == "winners" else " `--configs winners` studies what the search liked best."
        return f"All classes share one configuration, {clean(name)}: routing errors cannot cost anything here.{more}"
    told = [
        f"{points(value / 10)} points in {words}"
        for name, words in (("wrong", "a random wrong class"), ("default", "the default class"))
        if (value := price(found, name)) is not None
    ]
    return f"Every tenth prompt routed to another class: {', '.join(told)}."


def price(found: Study, policy: str) -> float | None:
    """Score difference per changed prompt, of a policy's largest share below 1; None if it changed none."""
    rows = [row for row in found["policies"] if row["policy"] == policy and row["share"] < 1 and row["changed"] > 0]
    if not rows:
        return None
    row = max(rows, key=lambda each: each["share"])
    return float(row["difference"] / row["changed"])


def remarks(found: Study) -> list[str]:
    """How to read the table."""
    paper, budget, distinct = found["paper"], found["budget"], found["distinct"]
    lines = [
        f"{found['samples']} holdout samples on {found['pictures']} pictures, {distinct} distinct configuration"
        f"{'' if distinct == 1 else 's'}, budget {budget['nominal']} of {budget['visual_tokens']} visual tokens.",
        "Score: mean over the samples, percent; +/-: standard deviation over "
        f"{found['seeds']} draws of who is hit; difference: to the calibration's labels, in points.",
    ]
    if found["configs"] == "winners" and found["distinct"] > 1:
        lines.append(
            "Configurations: each class's best of the search split, undecided: the holdout did not confirm all of "
            "them, and what it did not confirm is not in the profile."
        )
    lines.append(
        f"The paper ({paper['benchmark']}), calibrated {paper['reference']}: default for rising shares "
        f"{_listed(paper['forced_default'])}; a wrong class for rising shares {_listed(paper['random_error'])}; router "
        + ", ".join(f"{name} {value}" for name, value in paper["routers"].items())
        + ". Another benchmark and scale: compare shapes, not numbers."
    )
    return lines


def print_study(found: Study, console: Console) -> None:
    """Print headline, table and how to read it."""
    _say(console, headline(found), "bold")
    console.print()
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for place, name in enumerate(HEADER):
        table.add_column(name, justify="left" if place in (0, 5) else "right", no_wrap=True)
    for cells in rows_of(found):
        table.add_row(*(Text(clean(cell)) for cell in cells))
    console.print(table)
    console.print()
    for line in remarks(found):
        _say(console, line)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    own = row.get("policy") == "labels"
    return (
        policy_name(row),
        percent(row["changed"]),
        percent(row["moved"]),
        percent(row["score"]),
        percent(row["deviation"], ""),
        "" if own else interval(row),
    )


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(Text(text), style=style, highlight=False)
