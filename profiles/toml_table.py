"""Strict reading of TOML tables: unknown keys, types, lengths and bounds, each error with the key's path."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, TypeVar

from .errors import BadDataError, shorten

_Row = TypeVar("_Row")

_MOST_DOTS = 1000
"""In a line: a key of as many parts as fit into a file takes the parser minutes."""


def toml_root(data: bytes) -> dict[str, Any]:
    """The root table of TOML in UTF-8; BadDataError for anything else, however deep."""
    if any(line.count(b".") > _MOST_DOTS for line in data.splitlines()):
        raise BadDataError(f"it is no TOML of this kind: a line has more than {_MOST_DOTS:,} dots")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOML and Unicode errors are ValueErrors
        raise BadDataError(f"it is no TOML: {shorten(str(error), 200)}") from None


class TomlTable:
    """One table of a TOML file that may be hostile, read strictly: every error names the key.

    Attributes:
        where: its path in the file, "" for the root.
        fields: what it holds.
    """

    def __init__(self, where: str, fields: Any, allowed: set[str] | None = None) -> None:
        """Take a table; BadDataError if it is none, or has a key that is not ``allowed`` (None: see :meth:`names`)."""
        if not isinstance(fields, dict):
            raise BadDataError(f"{where} must be a table, not {shorten(fields)}")
        self.where, self.fields = where, fields
        if allowed is not None:
            self.names(allowed)

    def names(self, allowed: set[str]) -> None:
        """Refuse other keys."""
        unknown = sorted(self.fields.keys() - allowed)
        if unknown:
            raise BadDataError(f"{self._path(unknown[0])} is unknown; there are: {', '.join(sorted(allowed))}")

    def wrong(self, name: str, wanted: str) -> BadDataError:
        """An error to raise: what the key must be, and what it is."""
        got = f"not {shorten(self.fields[name])}" if name in self.fields else "and is missing"
        return BadDataError(f"{self._path(name)} must be {wanted}, {got}")

    def id(self, pattern: re.Pattern[str]) -> str:
        """The key ``id``, which fits a pattern."""
        value = self.fields.get("id")
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.wrong("id", f"small letters, digits and _ ({pattern.pattern})")
        return value

    def text(self, name: str, shortest: int, longest: int) -> str:
        """Printable text of so many characters; "" where it may be absent."""
        value = self.fields.get(name, None if shortest else "")
        if not _is_text(value, shortest, longest):
            raise self.wrong(name, f"printable text of {shortest} to {longest} characters")
        return str(value)

    def texts(self, name: str, fewest: int, most: int, longest: int) -> tuple[str, ...]:
        """So many printable texts; none where they may be absent."""
        value = self.fields.get(name, None if fewest else [])
        if not isinstance(value, list) or not fewest <= len(value) <= most:
            raise self.wrong(name, f"a list of {fewest} to {most} texts")
        if not all(_is_text(item, 1, longest) for item in value):
            raise self.wrong(name, f"printable texts of at most {longest} characters")
        return tuple(value)

    def one_of(self, name: str, allowed: Iterable[str]) -> str:
        """One of these words."""
        value = self.fields.get(name)
        if not isinstance(value, str) or value not in set(allowed):
            raise self.wrong(name, f"one of {', '.join(allowed)}")
        return value

    def numbers(self, name: str, low: float, high: float, most: int) -> tuple[float, ...]:
        """1 to ``most`` finite numbers between two, as floats."""
        values = self.fields.get(name)
        fits = isinstance(values, list) and 1 <= len(values) <= most
        if not fits or not all(is_number(value) and low <= value <= high for value in values or ()):
            raise self.wrong(name, f"a list of 1 to {most} numbers from {low:g} to {high:g}")
        return tuple(float(value) for value in values or ())

    def rows(
        self, name: str, fewest: int, most: int, make: Callable[[TomlTable, int], _Row], says: str
    ) -> tuple[_Row, ...]:
        """What ``make`` makes of each table ``[[name]]`` and its number; ``says`` begins the error for their count."""
        value = self.fields.get(name, [])
        if not isinstance(value, list) or not fewest <= len(value) <= most:
            raise BadDataError(f"{says} {fewest} to {most} tables [[{name}]], not {shorten(value, 60)}")
        return tuple(make(TomlTable(f"{name}[{index}]", row), index) for index, row in enumerate(value))

    def _path(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else shorten(name)[1:-1]


def is_number(value: object) -> bool:
    """Whether a value is an integer of any length or a finite float, and no bool."""
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object, shortest: int, longest: int) -> bool:
    return (
        isinstance(value, str)
        and shortest <= len(value.strip())
        and len(value) <= longest
        and all(letter.isprintable() for letter in value)
    )
