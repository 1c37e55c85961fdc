"""Markdown made of words that somebody else wrote: a table cell stays a cell, and a name stays a name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*{}\[\]<>#|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def literal(value: object) -> str:
    """Any value as text that Markdown shows as it is: on one line, without markup, links or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table; cells are made literal, None is a dash."""
    body = (f"| {' | '.join('-' if cell is None else literal(cell) for cell in row)} |" for row in rows)
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *body]
