"""A class's search on a terminal: the rungs of a race with who was dropped and by what margin, or plain standings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from .race_log import CUT, FAILED, TRAILED, WON
from .table import clean, percent, points

CLOSEST = 2
"""Dropped candidates named per rung where not all are asked for: those that came closest to the leader."""

_WHY = {TRAILED: "clearly behind", CUT: "too many as good or better", FAILED: "a score is not finite"}


def print_races(rows: Sequence[dict[str, Any]], console: Console, full: bool) -> None:
    """Print one block per class and budget; ``full`` names every candidate."""
    if not rows:
        _say(console, "  no scores yet")
        return
    _say(console, "  Margins: mean paired difference to the rung's leader on its samples, points, +- standard error.")
    for row in rows:
        budget = "" if row["nominal"] is None else f" at {row['nominal']} tokens"
        _say(console, f"{clean(row['intent'])}{budget}: {row['strategy']}, {row['search_samples']} search samples")
        for rung in row["rungs"]:
            _rung(rung, row["default"], console, full)
        if not row["rungs"] or full:
            _standings(row["candidates"], console, full)


def _rung(rung: dict[str, Any], default: str, console: Console, full: bool) -> None:
    standings, samples = rung["standings"], rung["samples"]
    if not rung["complete"]:
        seen = sum(each["mean"] is not None for each in standings)
        _say(console, f"  {samples:>5} samples  {rung['alive']:>3} in, {seen} of them scored so far")
        return
    head = f"  {samples:>5} samples  {rung['alive']:>3} in, {rung['dropped']} dropped"
    if winner := next((each for each in standings if each["fate"] == WON), None):
        head += f"; {clean(winner['candidate'])} won with {percent(winner['mean'])} %"
    _say(console, head)
    ended = winner is not None
    dropped = [each for each in standings if each["fate"] in _WHY]
    for each in standings if full else dropped[:CLOSEST]:
        fate = "did not win" if ended and each["fate"] == CUT else _WHY.get(each["fate"], each["fate"])
        named = f"{clean(each['candidate'])}{' (default)' if each['candidate'] == default else ''}"
        _say(console, f"                 {named:<24} {_margin(each):>15}  {fate}")
    if len(dropped) > CLOSEST and not full:
        _say(console, f"                 ... {len(dropped) - CLOSEST} more (--class, --candidate)")


def _margin(each: dict[str, Any]) -> str:
    if each["behind"] is None:
        return "-"
    return f"{points(each['behind'])} +- {100 * each['error']:4.1f}"


def _standings(candidates: Sequence[dict[str, Any]], console: Console, full: bool) -> None:
    shown = candidates if full else candidates[: 2 * CLOSEST]
    if shown:
        _say(console, "  by samples scored; score, then difference to the default [95 % interval]:")
    for each in shown:
        lead = "-" if each["ci_low"] is None else f"[{points(each['ci_low'])}, {points(each['ci_high'])}]"
        score = f"{percent(each['score'])} % on {each['samples']}"
        _say(console, f"    {clean(each['candidate']):<24} {score:>16}  {points(each['difference']):>6} {lead}")
    if len(candidates) > len(shown):
        _say(console, f"    ... {len(candidates) - len(shown)} more (--class, --candidate)")


def _say(console: Console, text: str) -> None:
    console.print(Text(text), highlight=False)
