"""The tables of the CLASP paper as data: its numbers, and which of them can be had here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from claspkit.profiles.canonical import strict_loads
from claspkit.profiles.errors import UsageError

RETAINED, MEAN = "retained", "mean"
"""What a table's last column is: the mean of the shares of the upper bound, or of the scores."""

OURS: Final = "profile"
"""The way of a row that a calibrated profile stands for; other ways are those of ``claspkit evaluate --way``."""

STATUS: Final[Mapping[str, str]] = {
    "partly": "can be run here, with the differences said",
    "other": "comes from another command",
    "no": "cannot be had here",
}

_FILE = Path(__file__).with_name("paper_tables.json")
_MAX_BYTES = 2**20
Number = int | float


@dataclass(frozen=True)
class PaperData:
    """A data set of the paper's.

    Attributes:
        id: what ``claspkit paper`` calls it.
        title: what the paper calls it.
        data: what ``--data`` would say; None where it cannot be read.
        measure: a name of :data:`.evaluate_measures.MEASURES`; None likewise.
        note: how the rows differ from the paper's, or why they cannot be read.
    """

    id: str
    title: str
    data: str | None
    measure: str | None
    note: str


@dataclass(frozen=True)
class PaperRow:
    """One row.

    Attributes:
        method: as the paper calls it.
        values: one per column; None where the paper has none. Percent, points for MME.
        average: the last column; None where there is none.
        way: how it is had here: :data:`OURS`, "unpruned", or a value of ``--way``; None for methods of others.
    """

    method: str
    values: tuple[Number | None, ...]
    average: Number | None
    way: str | None


@dataclass(frozen=True)
class PaperBudget:
    """Rows at one budget: its words, its share of the visual tokens (None where the paper does not say), the rows."""

    label: str
    share: Fraction | None
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        number: in the paper.
        title: in our words.
        status: a key of :data:`STATUS`.
        why: what stands between this table and a table of one's own.
        command: the other command, where the status says so.
        models: aliases.
        columns: ids of data sets; empty where the table is no table of scores.
        average: :data:`RETAINED`, :data:`MEAN` or None.
        upper: the row of the unpruned model; None where the table has none.
        budgets: the rows.
        heads: of a table that is no table of scores, its columns; empty otherwise.
        lines: its cells, as the paper's text has them; numbers that the text lost are missing.
    """

    number: int
    title: str
    status: str
    why: str
    command: str | None
    models: tuple[str, ...]
    columns: tuple[str, ...]
    average: str | None
    upper: PaperRow | None
    budgets: tuple[PaperBudget, ...]
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    @property
    def ours(self) -> dict[Fraction, PaperRow]:
        """The row of the calibrated profile at every budget that has one."""
        return {
            budget.share: row for budget in self.budgets for row in budget.rows if row.way == OURS and budget.share
        }


@cache
def paper_tables() -> dict[int, PaperTable]:
    """All tables by number, in the paper's order."""
    return {table.number: table for table in map(_table, _read()["tables"])}


@cache
def paper_data() -> dict[str, PaperData]:
    """All data sets by id."""
    return {
        name: PaperData(name, entry["title"], entry["data"], entry["measure"], entry["note"])
        for name, entry in _read()["data_sets"].items()
    }


def find_table(number: int) -> PaperTable:
    """The table of that number; UsageError listing those there are."""
    tables = paper_tables()
    if number not in tables:
        raise UsageError(f"the paper has no table {number}; it has {min(tables)} to {max(tables)}: claspkit paper")
    return tables[number]


def computed_average(table: PaperTable, row: PaperRow, columns: Sequence[str] | None = None) -> float | None:
    """The last column as the others give it, percent; None where the table has none or a value is missing.

    Args:
        table: the row's.
        row: one of it.
        columns: data sets to average over; None for all.
    """
    pairs = [
        pair
        for name, pair in zip(table.columns, _pairs(table, row), strict=True)
        if columns is None or name in columns
    ]
    known = [(value, upper) for value, upper in pairs if value is not None and upper is not None]
    if table.average is None or not known or len(known) < len(pairs):
        return None
    if table.average == MEAN:
        return fmean(value for value, _ in known)
    return fmean(100 * value / upper for value, upper in known)


def follows(table: PaperTable, row: PaperRow) -> bool:
    """Whether the row's average can follow from its columns, whatever they were before they were rounded.

    True where the table has no average, or the row none.
    """
    if row.average is None or computed_average(table, row) is None:
        return True
    lows, highs = [], []
    for value, upper in _pairs(table, row):
        assert value is not None
        assert upper is not None
        (low, high), (least, most) = _rounded(value), _rounded(upper)
        if table.average == RETAINED:
            low, high = 100 * low / most, 100 * high / least
        lows.append(low)
        highs.append(high)
    least, most = _rounded(row.average)
    return sum(lows) / len(lows) <= most and least <= sum(highs) / len(highs)


def _pairs(table: PaperTable, row: PaperRow) -> list[tuple[Number | None, Number | None]]:
    uppers = table.upper.values if table.upper is not None else (None,) * len(row.values)
    return list(zip(row.values, uppers, strict=True))


def _rounded(value: Number) -> tuple[Fraction, Fraction]:
    """What a printed number may have been."""
    exact = Decimal(repr(value))
    half = Fraction(1, 2) * Fraction(10) ** int(exact.as_tuple().exponent)
    return Fraction(exact) - half, Fraction(exact) + half


@cache
def _read() -> dict[str, Any]:
    found: dict[str, Any] = strict_loads(_FILE.read_bytes(), max_bytes=_MAX_BYTES)
    return found


def _table(entry: Mapping[str, Any]) -> PaperTable:
    text = entry.get("text", {"heads": (), "rows": ()})
    upper = entry.get("upper")
    return PaperTable(
        number=entry["number"],
        title=entry["title"],
        status=entry["status"],
        why=entry["why"],
        command=entry.get("command"),
        models=tuple(entry.get("models", ())),
        columns=tuple(entry.get("columns", ())),
        average=entry.get("average"),
        upper=None if upper is None else _row(upper),
        budgets=tuple(
            PaperBudget(one["label"], _share(one["share"]), tuple(map(_row, one["rows"])))
            for one in entry.get("budgets", ())
        ),
        heads=tuple(text["heads"]),
        lines=tuple(tuple(line) for line in text["rows"]),
    )


def _row(entry: Mapping[str, Any]) -> PaperRow:
    return PaperRow(entry["method"], tuple(entry["values"]), entry.get("average"), entry["way"])


def _share(value: Sequence[int] | None) -> Fraction | None:
    return None if value is None else Fraction(*value)
