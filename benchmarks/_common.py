"""What every benchmark prints: a table for people, or one JSON object with title, rows, machine and commit.

Importing this module also makes claspkit importable from a checkout in which nothing is installed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: what was measured.
        value: the figure.
        unit: its unit.
        bar: what it should be, in words.
        holds: whether it is; None where there is no bar.
        low: lower quartile of the repeats, or the lower end of the interval that the unit names; None for neither.
        high: the upper one.
    """

    what: str
    value: float
    unit: str
    bar: str = ""
    holds: bool | None = None
    low: float | None = None
    high: float | None = None


def machine() -> str:
    """CPU, cores and system of this machine, in words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def commit() -> str:
    """The commit checked out, with "+" where files differ from it; "unknown" where there is no git or no history."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    try:
        return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("status", "--porcelain") else "")
    except FileNotFoundError:
        return "unknown"


def show(title: str, rows: Sequence[Row], as_json: bool) -> None:
    """Print the rows: with rich where it is installed, else in plain columns."""
    if as_json:
        found = {"title": title, "rows": [asdict(row) for row in rows], "machine": machine(), "commit": commit()}
        print(json.dumps(found))
        return
    heads: tuple[str, ...] = ("what", "value", "from - to", "unit", "bar", "holds")
    cells = [_cells(row) for row in rows]
    if not any(row.low is not None for row in rows):
        heads, cells = _without(heads, 2), [_without(line, 2) for line in cells]
    foot = f"{machine()}; commit {commit()}"
    if find_spec("rich") is None:
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (heads, *cells)]
        print("\n".join((title, *lines, foot)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads, title=title, title_justify="left")
    for line in cells:
        table.add_row(*line)
    console = Console(width=110)
    console.print(table)
    console.print(foot)


def _cells(row: Row) -> tuple[str, ...]:
    holds = "" if row.holds is None else "yes" if row.holds else "NO"
    spread = "" if row.low is None or row.high is None else f"{row.low:.4g} - {row.high:.4g}"
    return row.what, f"{row.value:.4g}", spread, row.unit, row.bar, holds


def _without(line: tuple[str, ...], index: int) -> tuple[str, ...]:
    return line[:index] + line[index + 1 :]


def _find_claspkit() -> None:
    """Stand in for the installation: the folders at the top of the repository are claspkit's packages."""
    if find_spec("claspkit") is None:
        package = ModuleType("claspkit")
        package.__path__ = [str(ROOT)]
        sys.modules["claspkit"] = package


_find_claspkit()
