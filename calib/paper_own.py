"""A table of the paper's with one's own profiles: which data sets and ways it takes, and the numbers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from claspkit.profiles.errors import UsageError
from claspkit.profiles.profile import Profile

from .evaluate_data import Rows
from .evaluate_measures import mean_of_all
from .evaluate_table import PARTS, scaled
from .evaluate_ways import Way, read_ways, varied
from .ledger import UNPRUNED
from .paper import OURS, RETAINED, PaperRow, PaperTable, computed_average, paper_data


@dataclass(frozen=True)
class OwnRow:
    """A row of the paper's and the way that stands beside it."""

    share: Fraction
    row: PaperRow
    way: Way


def parse_data(table: PaperTable, given: Sequence[str], only: Sequence[str]) -> dict[str, str]:
    """The data of every column that can be read: column id -> what ``--data`` of an evaluation says.

    Args:
        table: the table.
        given: ``COLUMN=DATA``, in the place of the paper's data set.
        only: columns to keep; empty for all that can be read.

    Raises:
        UsageError: a column that the table lacks, that cannot be read or that is given twice, or nothing left to read.
    """
    known = paper_data()
    found = {name: data for name in table.columns if (data := known[name].data) is not None}
    named = [text.partition("=")[0] for text in given]
    for text in given:
        name, equals, data = text.partition("=")
        _check_column(table, name, "--data")
        if named.count(name) > 1:
            raise UsageError(f"--data {name} is given more than once; a column has one data set")
        if not equals or not data:
            raise UsageError(f"--data {text}: give COLUMN=DATA, for example {name}=rows.jsonl")
        found[name] = data
    for name in only:
        _check_column(table, name, "--only")
        if name not in found:
            raise UsageError(f"--only {name}: {known[name].title} cannot be read here: {known[name].note}")
    found = {name: found[name] for name in table.columns if name in found and (not only or name in only)}
    if not found:
        raise UsageError(f"table {table.number} cannot be had here: {table.why}")
    return found


def own_rows(table: PaperTable, profiles: Sequence[Path]) -> list[OwnRow]:
    """The rows of the table that the profiles stand for, in the table's order.

    Raises:
        UsageError: the table has no such row, or none at a profile's budget.
        ProfileError: a profile cannot be read.
    """
    wanted = [(budget.share, row) for budget in table.budgets for row in budget.rows if row.way is not None]
    shares = {share for share, _ in wanted if share is not None}
    if not shares or not table.models:
        other = f" Run: {table.command}" if table.command else ""
        raise UsageError(f"table {table.number} has no row that a profile stands for: {table.why}{other}")
    found: list[OwnRow] = []
    taken: dict[Fraction, str] = {}
    for way in read_ways(profiles, []):
        if way.profile is None:
            continue
        share = _budget_of(table, way.profile, shares, way.path or "")
        if share in taken:
            twice = f"{taken[share]} and {way.path}"
            raise UsageError(f"{twice} are both of the budget {_words(share, way.profile)}; give one of them")
        taken[share] = way.path or ""
        found += [
            OwnRow(share, row, way if row.way == OURS else varied(way, row.way or ""))
            for mine, row in wanted
            if mine == share
        ]
    order = list(dict.fromkeys(share for share, _ in wanted))
    return sorted(found, key=lambda own: order.index(own.share))


def ways_of(rows: Sequence[OwnRow]) -> list[Way]:
    """What to ask: the unpruned model, then every row's way."""
    return [Way(UNPRUNED), *{own.way.name: own.way for own in rows}.values()]


def beside(
    table: PaperTable, rows: Sequence[OwnRow], data: Mapping[str, str], found: Mapping[str, Any]
) -> dict[str, Any]:
    """One's own numbers beside the paper's.

    Args:
        table: the table.
        rows: of :func:`own_rows`.
        data: of :func:`parse_data`.
        found: the evaluation.

    Returns:
        JSON values: {table, title, columns, measured, unpruned, rows, evaluation}. ``columns`` are ids, ``measured``
        those evaluated. ``unpruned`` and every row have a ``paper`` and an ``own`` part with ``values`` by column, in
        the paper's units, and ``average``, over the measured columns in both; a row also has ``published``, the
        paper's own average, and per column the ``left`` share of both and the own ``difference`` with its interval.
    """
    sets = {one["data"]: one for one in found["data"]}
    entries = {name: {way["name"]: way for way in sets[where]["ways"]} for name, where in data.items()}
    scale = {name: 1 if sets[where]["unit"] == "points" else 100 for name, where in data.items()}
    uppers = dict(zip(table.columns, table.upper.values, strict=True)) if table.upper is not None else {}

    def own(way: str) -> dict[str, Any]:
        values = {name: scaled(ways[way]["score"], scale[name]) for name, ways in entries.items()}
        left = {name: ways[way]["retained"] for name, ways in entries.items()}
        if table.average == RETAINED:
            average = scaled(mean_of_all(list(left.values())), 100)
        else:
            average = mean_of_all(list(values.values()))
        return {"values": values, "left": left, "average": average}

    made = []
    for each in rows:
        values = dict(zip(table.columns, each.row.values, strict=True))
        theirs = {name: values[name] for name in data}
        differences = {
            name: {part: scaled(ways[each.way.name][part], scale[name]) for part in PARTS}
            for name, ways in entries.items()
        }
        left = {name: _left(theirs[name], uppers.get(name)) for name in data}
        average = computed_average(table, each.row, list(data))
        made.append(
            {
                "budget": float(each.share),
                "method": each.row.method,
                "way": each.way.name,
                "paper": {"values": theirs, "left": left, "average": average, "published": each.row.average},
                "own": {**own(each.way.name), "differences": differences},
            }
        )
    return {
        "table": table.number,
        "title": table.title,
        "columns": list(table.columns),
        "measured": list(data),
        "unpruned": {"paper": {name: uppers.get(name) for name in data}, "own": own(UNPRUNED)},
        "rows": made,
        "evaluation": dict(found),
    }


def data_notes(data: Mapping[str, str], rows: Sequence[Rows]) -> list[str]:
    """What must be said before the run: columns that have other rows than the paper's, or another measure."""
    known, by_data, lines = paper_data(), {each.data: each for each in rows}, []
    for name, where in data.items():
        title, measure = known[name].title, by_data[where].measure
        if where != known[name].data:
            lines.append(f"{title} is measured on {where}, which is not the paper's data")
        if known[name].measure not in (None, measure):
            lines.append(f"{title} is measured as {measure}, the paper's column as {known[name].measure}")
    return lines


def _check_column(table: PaperTable, name: str, option: str) -> None:
    if name not in table.columns:
        raise UsageError(f"{option} {name}: table {table.number} has the columns {', '.join(table.columns)}")


def _budget_of(table: PaperTable, profile: Profile, shares: set[Fraction], path: str) -> Fraction:
    """The table's budget that a profile has, to within one token."""
    tokens = profile.model.visual_tokens
    near = min(shares, key=lambda share: abs(share * tokens - profile.budget.nominal))
    if abs(near * tokens - profile.budget.nominal) <= 1:
        return near
    listed = ", ".join(_words(share, profile) for share in sorted(shares, reverse=True))
    raise UsageError(
        f"table {table.number} has no budget of {profile.budget.nominal} of {tokens} visual tokens, which {path} has; "
        f"it has: {listed}. Calibrate with --budget {_option(near)}"
    )


def _words(share: Fraction, profile: Profile) -> str:
    tokens = profile.model.visual_tokens
    return f"{round(share * tokens)} of {tokens} (--budget {_option(share)})"


def _option(share: Fraction) -> str:
    """The share as ``--budget`` takes it."""
    return f"{share.numerator}/{share.denominator}"


def _left(value: float | None, upper: float | None) -> float | None:
    return None if value is None or not upper else value / upper
