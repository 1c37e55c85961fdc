"""What a run found, in words and as a table: for the terminal, and the wording that the report shares."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

CHANGED, KEPT, TOO_FEW = "changed", "kept", "too few"
"""The three outcomes of a class: a new configuration, the default after a search, the default without one."""

_STYLES = {CHANGED: "bold green", KEPT: "", TOO_FEW: "yellow"}
_ROUTERS = {
    "labeller": "the student that labelled",
    "distilled": "a student of this run's labels",
    "shipped": "the shipped student",
    "rules": "the rules",
}
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MARKS_SHOWN = 3  # of the candidates with scores that are not finite
_NATURAL_WIDTH = 1000  # wider than any table here: what it would take if nobody squeezed it


def clean(text: object) -> str:
    """A value as one line that cannot move the cursor, reverse the writing, or fail to encode."""
    kept = (" " if char in "\t\r\n" else char for char in str(text))
    return "".join("\ufffd" if char in _BIDI or unicodedata.category(char) in {"Cc", "Cs"} else char for char in kept)


def percent(score: float | None, missing: str = "-") -> str:
    """A score in 0..1 as percent with one decimal, without the sign."""
    return missing if score is None else f"{100 * score:.1f}"


def points(difference: float | None, missing: str = "-") -> str:
    """A difference of two scores in points, always signed; zero is ``+0.0``."""
    return missing if difference is None else f"{100 * difference + 0.0:+.1f}".replace("-0.0", "+0.0")


def flops(value: float | None) -> str:
    """FLOPs with a unit that leaves one to three digits before the point."""
    if value is None:
        return "unknown"
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e6:.3g} MFLOP"


def interval(row: dict[str, Any], missing: str = "-") -> str:
    """A class's holdout difference with its 95 % interval, in points: ``+6.2 [+1.0, +11.3]``."""
    if row["difference"] is None:
        return missing
    return f"{points(row['difference'])} [{points(row['ci_low'])}, {points(row['ci_high'])}]"


def outcome(row: dict[str, Any]) -> str:
    """One of :data:`CHANGED`, :data:`KEPT` and :data:`TOO_FEW` for a class of the summary."""
    if row["decision"] == "searched":
        return CHANGED
    return KEPT if row["tested"] is not None else TOO_FEW


def holdout_means(rows: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    """Holdout scores averaged over the classes that have one, every class weighing the same.

    Returns:
        ``unpruned``, ``default`` and ``profile`` (each class as the profile runs it), in 0..1; None without data.
    """
    measured = [row for row in rows if row["default"] is not None]
    taken = [
        row["score"] if outcome(row) == CHANGED and row["score"] is not None else row["default"] for row in measured
    ]
    unpruned = [row["unpruned"] for row in measured]
    return {
        "unpruned": fmean(unpruned) if unpruned and None not in unpruned else None,
        "default": fmean(row["default"] for row in measured) if measured else None,
        "profile": fmean(taken) if taken else None,
    }


def headline(summary: dict[str, Any]) -> str:
    """The verdict in one sentence: how many classes changed, what that bought, at which budget."""
    rows = summary["classes"]
    changed = [clean(row["intent"]) for row in rows if outcome(row) == CHANGED]
    at = f"at {summary['budget']['nominal']} of {summary['model']['visual_tokens']} visual tokens"
    if not changed:
        return f"No class changed {at}: {_why_none(rows)}, so the profile is the default configuration."
    means = holdout_means(rows)
    count = f"{len(changed)} of {len(rows)} classes changed ({', '.join(changed)})"
    rise = f"from {percent(means['default'])} % to {percent(means['profile'])} %"
    stock = "" if means["unpruned"] is None else f" (unpruned: {percent(means['unpruned'])} %)"
    return f"{count}, which takes the holdout score averaged over the classes {rise} {at}{stock}."


def _why_none(rows: list[dict[str, Any]]) -> str:
    if all(row["tested"] is None for row in rows):
        return "no class had enough samples for a search"
    if any(row["difference"] is not None for row in rows):
        return "no tested candidate beats the default significantly on the holdout"
    if any(row["tested"] is not None and row["default"] is None for row in rows):
        return "no class could be compared with a default whose scores are finite"
    return "the default was the best on the search split wherever a search was run"


def pooled_words(summary: dict[str, Any]) -> str | None:
    """What one configuration for all classes does, and what being class-adaptive buys beyond it; None if not known."""
    found = summary.get("pooled")
    if found is None:
        return None
    named, beyond = clean(found["candidate"]), f"the profile's difference to it: {interval(found['profile_to_pooled'])}"
    if found["candidate"] == summary["default_candidate"]:
        return f"One configuration for all classes: the default itself, {named}; {beyond}"
    to_default = f"difference to the default: {interval(found['pooled_to_default'])}"
    return f"One configuration for all classes: {named}, {percent(found['score'])} %; {to_default}; {beyond}"


def not_finite_words(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """One sentence without its full stop about all classes of a summary; None where every score is finite.

    Args:
        rows: ``classes`` of a summary, also of an earlier version, which says nothing about it.
    """
    told = [
        f"{clean(row['intent'])} {clean(mark['candidate'])} ({mark['samples']} {mark['split']} samples)"
        for row in rows
        for mark in row.get("not_finite", ())
    ]
    if not told:
        return None
    more = f", and {len(told) - _MARKS_SHOWN} more in summary.json" if len(told) > _MARKS_SHOWN else ""
    named = ", ".join(told[:_MARKS_SHOWN])
    return f"NaN or infinity instead of scores: {named}{more}; such a candidate never takes the default's place"


def router_words(facts: dict[str, Any]) -> str:
    """The profile's router in one line: who it is, and how it does on the run's labels."""
    named = f"{_ROUTERS.get(facts['chosen'], clean(facts['chosen']))} ({clean(facts['source'])})"
    if facts["agreement"] is None:
        return f"{named}: no label to compare with"
    ships = facts["min_confidence"]
    compared_at = facts.get("compared_at", ships)  # trained again on all prompts, a student has another threshold
    return (
        f"{named}: agrees with {percent(facts['agreement'])} % of {facts['compared']} labels, accepting "
        f"{percent(facts['coverage'])} % at {compared_at:.3f}"
        + ("" if compared_at == ships else f"; it rejects below {ships:.3f}")
    )


def summary_table(summary: dict[str, Any]) -> Table:
    """One row per class; 80 columns wide up to 999 samples a split, never more than 100 with shipped names.

    At a further budget of a run the candidates are named without the ``@`` and what follows, which is the budget.
    """
    own = f"@{summary['budget']['nominal']}" if "budget" in summary else "@"
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("\nclass", no_wrap=True)
    for header in ("search/\nholdout", "un-\npruned", "\ndefault"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("chosen\nconfig", no_wrap=True)
    table.add_column("holdout difference\n[95 % interval]", no_wrap=True)
    table.add_column("\ndecision", no_wrap=True)
    for row in summary["classes"]:
        word = outcome(row)
        table.add_row(
            Text(clean(row["intent"])),
            f"{row['n_search']}/{row['n_holdout']}",
            percent(row["unpruned"]),
            percent(row["default"]),
            Text(clean(row["chosen"]).removesuffix(own)),
            Text(interval(row)),
            Text(word, style=_STYLES[word]),
        )
    return table


def print_summary(
    summary: dict[str, Any], console: Console, profile: Path | str, report: Path | str | None = None
) -> None:
    """Print headline, table and what to do next.

    Where the console is too narrow for the table, one short block per class is printed instead.

    Args:
        summary: what :func:`claspkit.calib.outcome.summarise` made.
        console: where to; its width and colours are respected.
        profile: path of the profile, as a person would type it.
        report: path of the HTML report; None leaves its line out.
    """
    _say(console, headline(summary), style="bold")
    console.print()
    table = summary_table(summary)
    if fits(table, console):
        console.print(table)
    else:
        _print_blocks(summary["classes"], console)
    console.print()
    _say(
        console,
        "Scores: holdout, percent. Difference: the best candidate of the search minus the default, in points.",
    )
    _say(console, "Config: prototype/rho, the vision layers fused and the share of attention pivots among the kept.")
    for line in _remarks(summary):
        _say(console, line)
    if told := pooled_words(summary):
        _say(console, f"{told}.")
    if "router" in summary:  # not in one of an earlier version
        _say(console, f"Router: {router_words(summary['router'])}.")
    from .table_budgets import print_budgets  # which takes its wording from here

    print_budgets(summary, console)
    console.print()
    _say(console, f"profile  {clean(profile)}", soft_wrap=True)
    if report is not None:
        _say(console, f"report   {clean(report)}", soft_wrap=True)
    quoted, model = shlex.quote(clean(profile)), shlex.quote(clean(summary["config"]["model"]))
    _say(
        console,
        f'next     claspkit run --profile {quoted} --model {model} --image PICTURE --prompt "QUESTION"',
        soft_wrap=True,
    )


def fits(table: Table, console: Console) -> bool:
    """Whether the console is wide enough for a table that nobody squeezes."""
    return console.measure(table, options=console.options.update(width=_NATURAL_WIDTH)).maximum <= console.width


def _say(console: Console, text: str, *, style: str | None = None, soft_wrap: bool = False) -> None:
    """Print text as it is: nothing in it is markup, and a path that is soft-wrapped can be copied whole."""
    console.print(Text(text), style=style, soft_wrap=soft_wrap, highlight=False)


def _print_blocks(rows: list[dict[str, Any]], console: Console) -> None:
    for row in rows:
        word = outcome(row)
        _say(console, f"{clean(row['intent'])}: {word}", style=_STYLES[word] or None)
        _say(console, f"  {row['n_search']} search and {row['n_holdout']} holdout samples")
        _say(console, f"  unpruned {percent(row['unpruned'])}, default {percent(row['default'])}")
        _say(console, f"  chosen {clean(row['chosen'])}")
        if row["difference"] is not None:
            _say(console, f"  tested {clean(row['tested'])}: {interval(row)}")


def _remarks(summary: dict[str, Any]) -> list[str]:
    """What a person should know before believing the table."""
    rows = summary["classes"]
    remarks = []
    starved = [clean(row["intent"]) for row in rows if outcome(row) == TOO_FEW]
    if starved:
        remarks.append(f"Too few samples for a search: {', '.join(starved)}. More --data gives them a chance.")
    if odd := not_finite_words(rows):
        remarks.append(f"{odd}.")
    if any(outcome(row) == KEPT and row["difference"] is not None for row in rows):
        remarks.append("A kept class may still hide a small gain: a higher --per-class narrows the intervals.")
    if any(outcome(row) == KEPT and (row["ci_low"] or 0) > 0 for row in rows):
        remarks.append(
            "An interval above 0 is not enough for a class to change: its p, corrected for all classes tested (Holm), "
            "has to be below 0.05."
        )
    if summary["quarantine"]:
        count = len(summary["quarantine"])
        remarks.append(f"{count} row{'s' if count > 1 else ''} of data left out; the report has the reasons.")
    return remarks
