"""An evaluation on the terminal: one table per data set, then what is retained over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .evaluate_measures import MEASURES
from .ledger import UNPRUNED
from .table import clean, percent

PARTS = ("difference", "ci_low", "ci_high")
"""Of a way's entry: the difference and its interval."""

_WIDE = 120  # characters where no terminal says how many it has


def print_evaluation(found: Mapping[str, Any], console: Console) -> None:
    """Print what :func:`.evaluate.evaluate` found."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)
    for one in found["data"]:
        title = f"{one['data']}: rows {one['rows']:,}, pictures {one['pictures']:,}; {MEASURES[one['measure']]}"
        console.print(Text(clean(title), style="bold"), soft_wrap=True)
        console.print(_table(one))
        for line in remarks(one):
            console.print(Text(line), soft_wrap=True)
        console.print()
    if len(found["data"]) > 1:
        console.print(Text("Share of the unpruned score that is left, percent", style="bold"))
        console.print(_retained(found))
        console.print()
    console.print(
        Text(
            "difference: to the unpruned model on the same rows, 95 % interval over pictures. tokens: visual tokens "
            "that leave a decoder layer, mean over layers and rows."
        )
    )


def remarks(one: Mapping[str, Any]) -> list[str]:
    """What must be known about a data set's numbers."""
    lines = []
    if one["left_out"]:
        first = one["left_out_rows"][0]
        lines.append(
            f"{one['left_out']:,} rows were left out, for all ways; the first: {clean(first['where'])}: "
            f"{clean(first['reason'])}"
        )
    if one["seen"]:
        lines.append(
            f"These rows were seen by the calibration of {', '.join(map(clean, one['seen']))}: it drew from this data "
            "set and split, so the score may be flattered."
        )
    lines += [
        f"{clean(way['name'])}: NaN or infinity on {way['not_finite']} rows, so there is no score."
        for way in one["ways"]
        if way["not_finite"]
    ]
    return lines


def shown(value: float | None, unit: str) -> str:
    """A score: percent with one decimal, or points with one."""
    if unit == "share":
        return percent(value)
    return "-" if value is None else f"{value:.1f}"


def shown_difference(way: Mapping[str, Any], unit: str) -> str:
    """A way's difference to the unpruned model as of :func:`signed`, in points."""
    return signed(*(scaled(way[part], 100 if unit == "share" else 1) for part in PARTS))


def signed(centre: float | None, low: float | None, high: float | None) -> str:
    """``-1.2 [-3.0, +0.5]``, without the interval where there is none; "-" where there is no difference."""
    if centre is None:
        return "-"
    ends = "" if low is None or high is None else f" [{_sign(low)}, {_sign(high)}]"
    return _sign(centre) + ends


def scaled(value: float | None, scale: int) -> float | None:
    """``scale`` times what is there."""
    return None if value is None else scale * value


def _sign(value: float) -> str:
    return "+0.0" if (text := f"{value:+.1f}") == "-0.0" else text


def _table(one: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    heads = ("", "score", "difference", "left %", "tokens", "same answers %")
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 else "right", overflow="fold")
    for way in one["ways"]:
        table.add_row(
            Text(clean(way["name"])),
            shown(way["score"], one["unit"]),
            shown_difference(way, one["unit"]),
            percent(way["retained"]),
            "-" if way["tokens"] is None else f"{way['tokens']:.1f}",
            percent(way["same_answers"]),
        )
    return table


def _retained(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("")
    for one in found["data"]:
        table.add_column(Text(clean(_short(one))), justify="right", overflow="fold")
    table.add_column("average", justify="right")
    for place, average in enumerate(found["average"]):
        if average["name"] != UNPRUNED:
            cells = [percent(one["ways"][place]["retained"]) for one in found["data"]]
            table.add_row(Text(clean(average["name"])), *cells, percent(average["retained"]))
    return table


def _short(one: Mapping[str, Any]) -> str:
    """The data set without its owner, config and split."""
    return str(one["name"]).rpartition("/")[2].partition(":")[0]
