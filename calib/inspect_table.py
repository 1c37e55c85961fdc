"""What ``claspkit inspect`` says on a terminal. Every text from outside is one line that moves no cursor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .inspect_race import print_races
from .table import clean, fits, flops, interval, outcome, percent, points, summary_table
from .table_budgets import ADAPTIVE

QUARANTINE_SHOWN = 20
"""Rows left out that a terminal lists; ``--json`` has all."""


def print_inspection(facts: Mapping[str, Any], console: Console, *, full: bool, tables: bool = True) -> None:
    """Print the sections that are there.

    Args:
        facts: of :func:`.inspecting.inspect_run`.
        console: where to; its width is respected.
        full: list every candidate of a race instead of the closest of those dropped.
        tables: print the table of classes; without it their reasons alone.
    """
    if facts["state"] != "finished":
        _unfinished(facts, console)
    if len(facts["budgets"]) > 1:
        _budgets(facts, console)
    for name, (title, body) in _SECTIONS.items():
        if name in facts:
            console.print()
            say(console, title, style="bold")
            if name == "classes" and not tables:
                for row in facts[name]:
                    say(console, f"{clean(row['intent'])}: {outcome(row)}; {clean(row['reason'])}")
                continue
            body(facts[name], console, full)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: nothing in it is markup."""
    console.print(Text(text), style=style, highlight=False)


def _unfinished(facts: Mapping[str, Any], console: Console) -> None:
    progress, quiet = facts["progress"], facts["quiet_for"]
    asked = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts["asked"].items())
    say(console, f"{clean(facts['run'])}: unfinished", style="bold")
    say(console, f"asked for   {clean(asked)}")
    say(console, f"so far      {progress['samples']:,} samples, {progress['labels']:,} of them labelled")
    say(console, f"            {progress['evaluations']:,} evaluations, {progress['quarantined']:,} rows left out")
    if quiet is not None:
        say(console, f"last write  {_ago(quiet)} ago; a run that is going on writes often while it searches")


def _budgets(facts: Mapping[str, Any], console: Console) -> None:
    """Which budgets there are, and which one is shown."""
    shown = "each class at its own" if facts["budget"] == ADAPTIVE else f"{facts['budget']} tokens"
    named = ", ".join(
        f"{row['nominal']}" if row["asked"] == str(row["nominal"]) else f"{row['nominal']} ({clean(row['asked'])})"
        for row in facts["budgets"]
    )
    say(console, f"budget      {shown}; there are {named}, and --budget picks one")


def _ago(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _classes(rows: Sequence[dict[str, Any]], console: Console, full: bool) -> None:
    if not rows:
        say(console, "  no labels yet, so no classes")
        return
    decided = [row for row in rows if row["decision"] is not None]
    if decided:
        table = summary_table({"classes": decided})
        if fits(table, console):
            console.print(table)
        for row in decided:
            _decision(row, console, alone=not fits(table, console))
    for row in rows:
        if row["decision"] is None:
            _standing(row, console)


def _decision(row: dict[str, Any], console: Console, *, alone: bool) -> None:
    say(console, f"{clean(row['intent'])}: {outcome(row)}; {clean(row['reason'])}")
    if alone:
        say(console, f"  {row['n_search']} search and {row['n_holdout']} holdout samples")
        say(console, f"  unpruned {percent(row['unpruned'])}, default {percent(row['default'])}")
    if alone and row["difference"] is not None:
        say(console, f"  tested {clean(row['tested'])}: {interval(row)}")


def _standing(row: dict[str, Any], console: Console) -> None:
    counts = f"{row['n_search']} search and {row['n_holdout']} holdout samples"
    say(console, f"{clean(row['intent'])}: {row['state']}; {counts}")
    best = row["best_so_far"]
    if best is not None:
        lead = points(best["search_difference"])
        seen = f"{percent(best['search_score'])} % on {best['search_samples']} search samples"
        say(console, f"  leads so far: {clean(best['candidate'])}, {seen}, {lead} to the default (optimistic)")
    if row["default"] is not None:
        say(console, f"  holdout so far: default {percent(row['default'])}, unpruned {percent(row['unpruned'])}")


def _costs(costs: dict[str, Any], console: Console, full: bool) -> None:
    asked, whole = costs["evaluations"], costs["exhaustive_evaluations"]
    share = f" ({100 * asked / whole:.0f} %)" if whole else ""
    lines = [
        f"  search    {asked:,} evaluations; every candidate on every sample: {whole:,}{share}",
        f"  holdout   {costs['holdout_evaluations']:,} evaluations",
        f"  pictures  {costs['pictures']:,}, each encoded once; {costs['bytes_read'] / 1e6:,.1f} MB of features read",
    ]
    if costs["counted"]:
        lines += [
            f"  decoder   {flops(costs['flops'])} in the search, {flops(costs['flops_alone'])} had nothing been "
            f"shared, {flops(costs['flops_exhaustive'])} exhaustively",
            f"            {flops(costs['holdout_flops'])} on the holdout, {flops(costs['holdout_flops_alone'])} had "
            "nothing been shared",
        ]
    else:
        lines.append("  decoder   no FLOPs in the ledger")
    if mine := costs["at_budget"]:
        shared = f", {flops(mine['flops'])} of the decoder's" if mine["counted"] else ""
        lines.append(
            f"  of these  at {mine['nominal']} tokens: {mine['evaluations']:,} evaluations in the search{shared}; "
            f"{mine['holdout_evaluations']:,} on the holdout"
        )
    if costs["seconds"]:
        told = ", ".join(f"{clean(name)} {value:.1f} s" for name, value in costs["seconds"].items())
        lines.append(f"  time      of the last invocation: {told}")
    for line in lines:
        say(console, line)


def _labels(facts: dict[str, Any], console: Console, full: bool) -> None:
    counts = f"{facts['labelled']:,} of {facts['samples']:,} samples labelled"
    say(console, f"  {counts}; {facts['unread']} answers of a teacher could not be read")
    sources = list(facts["sources"].items())
    shown = sources if full else sources[:8]
    for source, count in shown:
        say(console, f"  {count:>7,}  {clean(source)}")
    if len(sources) > len(shown):
        rest = sum(count for _, count in sources[len(shown) :])
        say(console, f"  {rest:>7,}  by {len(sources) - len(shown)} others (--json has all)")
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("  class", no_wrap=True)
    for header in ("labelled", "named so by the data", "of these labelled so"):
        table.add_column(header, justify="right")
    for row in facts["classes"]:
        table.add_row(Text(f"  {clean(row['intent'])}"), *(f"{row[key]:,}" for key in ("labelled", "hinted", "agree")))
    console.print(table)
    say(console, f"  rules overruled the labeller on {facts['overruled']:,} samples")
    for row in facts["overrides"]:
        say(console, f"  {row['samples']:>7,}  {clean(row['said'])} -> {clean(row['now'])} by {clean(row['rule'])}")
        say(console, f"           such as {clean(row['prompts'][0])}")


def _quarantine(rows: Sequence[dict[str, str]], console: Console, full: bool) -> None:
    if not rows:
        say(console, "  none")
    shown = rows if full else rows[:QUARANTINE_SHOWN]
    for row in shown:
        say(console, f"  {clean(row['where'])}: {clean(row['reason'])}")
    if len(rows) > len(shown):
        say(console, f"  ... and {len(rows) - len(shown):,} more (--json has all)")


_Body = Callable[[Any, Console, bool], None]
_SECTIONS: dict[str, tuple[str, _Body]] = {
    "classes": ("Classes", _classes),
    "race": ("Race", print_races),
    "costs": ("Costs", _costs),
    "labels": ("Labels", _labels),
    "quarantine": ("Left out", _quarantine),
}
