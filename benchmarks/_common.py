"""What every benchmark prints: a table for people, or one JSON object with rows, machine and commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One figure. ``bar`` is what it should be, in words; ``holds`` is None where there is no bar."""

    what: str
    value: float
    unit: str
    bar: str = ""
    holds: bool | None = None


def machine() -> str:
    """CPU, cores and system of this machine, in words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def commit() -> str:
    """The commit checked out, with "+" where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")


def show(title: str, rows: Sequence[Row], as_json: bool) -> None:
    """Print the rows."""
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "machine": machine(), "commit": commit()}))
        return
    table = Table("what", "value", "unit", "bar", "holds", title=title, title_justify="left")
    for row in rows:
        holds = "" if row.holds is None else "yes" if row.holds else "NO"
        table.add_row(row.what, f"{row.value:.4g}", row.unit, row.bar, holds)
    console = Console(width=110)
    console.print(table)
    console.print(f"{machine()}; commit {commit()}")
