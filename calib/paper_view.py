"""The paper's tables on the terminal: the list of them, one of them, and one with one's own rows beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .evaluate_table import PARTS, remarks, signed
from .paper import (
    RETAINED,
    STATUS,
    Number,
    PaperRow,
    PaperTable,
    computed_average,
    follows,
    paper_data,
    paper_tables,
)
from .table import clean, percent

_WIDE = 140  # characters where no terminal says how many it has


def print_list(console: Console) -> None:
    """All tables: number, title, what can be had, and why not more."""
    _widen(console)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("table", justify="right")
    for head in ("of", "here", "why"):
        table.add_column(head, overflow="fold")
    for each in paper_tables().values():
        why = each.why + (f" Run: {each.command}" if each.command else "")
        table.add_row(str(each.number), Text(each.title), Text(each.status), Text(why))
    console.print(table)
    console.print()
    for status, words in STATUS.items():
        console.print(Text(f"{status}: {words}"))


def print_table(table: PaperTable, console: Console) -> None:
    """The table as the paper has it."""
    _widen(console)
    console.print(Text(f"Table {table.number} of the paper: {table.title}", style="bold"))
    if table.heads:
        found = _grid(table.heads)
        for cells in table.lines:
            found.add_row(*(Text(cell) for cell in cells))
    else:
        found = _grid(("", *_titles(table.columns), *(["average"] if table.average else [])))
        for label, row in _rows(table):
            found.add_row(*([Text(label, style="bold")] if row is None else _cells(table, row)))
    if table.heads or table.budgets:
        console.print(found)
    for line in _remarks(table):
        console.print(Text(line), soft_wrap=True)


def print_beside(table: PaperTable, made: Mapping[str, Any], notes: Sequence[str], console: Console) -> None:
    """One's own rows beside the paper's: first the scores, then what each difference is worth."""
    _widen(console)
    names = made["measured"]
    console.print(Text(f"Table {table.number} of the paper, and one's own: {table.title}", style="bold"))
    scores = _grid(("", *_titles(names), *(["average"] if table.average else [])))
    unpruned = made["unpruned"]
    upper = [unpruned["paper"][name] for name in names]
    own = unpruned["own"]
    tail = [] if not table.average else ["100.0" if table.average == RETAINED else "-"]
    if table.upper is not None:
        scores.add_row(Text(f"{table.upper.method}, the paper"), *map(_number, upper), *tail)
    scores.add_row("own, unpruned", *(_own(own["values"][n], n) for n in names), *_average(table, own["average"]))
    for row in made["rows"]:
        theirs, mine = row["paper"], row["own"]
        words = f"{row['method']} at {percent(row['budget'])} % of the tokens"
        cells = [_number(theirs["values"][name]) for name in names]
        scores.add_row(Text(f"{words}, the paper"), *cells, *_average(table, theirs["average"]))
        cells = [_own(mine["values"][name], name) for name in names]
        scores.add_row(Text(f"own, {clean(row['way'])}"), *cells, *_average(table, mine["average"]), style="bold")
    console.print(scores)
    if table.average and set(names) != set(table.columns):
        console.print(Text(f"Averages are over {', '.join(_titles(names))} alone, in the paper's rows as well."))
    console.print()
    console.print(Text("Pruned against unpruned", style="bold"))
    console.print(_differences(made))
    console.print()
    for line in [*notes, *_own_remarks(table, made)]:
        console.print(Text(line), soft_wrap=True)


def _differences(made: Mapping[str, Any]) -> Table:
    found = _grid(("own row", "data", "rows", "own difference [95 %]", "own left %", "paper's left %"), left=2)
    sets = dict(zip(made["measured"], made["evaluation"]["data"], strict=True))
    for row in made["rows"]:
        for name in made["measured"]:
            parts = row["own"]["differences"][name]
            found.add_row(
                Text(clean(row["way"])),
                paper_data()[name].title,
                f"{sets[name]['rows']:,}",
                signed(*(parts[part] for part in PARTS)),
                percent(row["own"]["left"][name]),
                percent(row["paper"]["left"][name]),
            )
    return found


def _rows(table: PaperTable) -> Iterator[tuple[str, PaperRow | None]]:
    """The rows from top to bottom; None stands for the line above a budget's."""
    if table.upper is not None:
        yield table.upper.method, table.upper
    for budget in table.budgets:
        yield budget.label, None
        for row in budget.rows:
            yield row.method, row


def _cells(table: PaperTable, row: PaperRow) -> list[Text]:
    style = "bold" if row.way is not None else ""
    mark = "" if follows(table, row) else " *"
    average = [] if not table.average else [_number(row.average) + mark]
    return [Text(cell, style=style) for cell in (row.method, *map(_number, row.values), *average)]


def _remarks(table: PaperTable) -> list[str]:
    lines = [f"{STATUS[table.status]}: {table.why}"]
    if table.command:
        lines.append(f"Run: {table.command}")
    odd = [row for budget in table.budgets for row in budget.rows if not follows(table, row)]
    if odd:
        listed = ", ".join(f"{row.method} {computed_average(table, row):.1f}" for row in odd)
        lines.append(f"* does not follow from the row's columns, however they were rounded; they give {listed}.")
    lines += [f"{paper_data()[name].title}: {paper_data()[name].note}." for name in table.columns]
    return lines


def _own_remarks(table: PaperTable, made: Mapping[str, Any]) -> list[str]:
    data = paper_data()
    sets = dict(zip(made["measured"], made["evaluation"]["data"], strict=True))
    lines = [f"{data[name].title}: {data[name].note}." for name, one in sets.items() if one["data"] == data[name].data]
    lacking = [name for name in table.columns if name not in made["measured"]]
    lines += [f"{data[name].title} is not here: {data[name].note}." for name in lacking if data[name].data is None]
    for name, one in sets.items():
        lines += [f"{data[name].title}: {line}" for line in remarks(one)]
    return lines


def _titles(names: Sequence[str]) -> list[str]:
    return [paper_data()[name].title for name in names]


def _average(table: PaperTable, value: float | None) -> list[str]:
    if not table.average:
        return []
    return ["-" if value is None else f"{value:.1f}" if table.average == RETAINED else f"{value:.2f}"]


def _number(value: Number | None) -> str:
    return "-" if value is None else str(value)


def _own(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if paper_data()[name].measure == "total" else f"{value:.1f}"


def _grid(heads: Sequence[str], left: int = 1) -> Table:
    found = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        found.add_column(Text(head), justify="left" if place < left else "right", overflow="fold")
    return found


def _widen(console: Console) -> None:
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)
