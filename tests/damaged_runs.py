"""Ways in which a file of a run can be damaged or exchanged, for the tests of the commands that read runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    def damage(path: Path, _: Path) -> None:
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))

    return damage


def _instead(make: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    def damage(path: Path, outside: Path) -> None:
        if path.exists():
            shutil.copyfile(path, outside)
        path.unlink(missing_ok=True)
        make(path, outside)

    return damage


DAMAGE: dict[str, Callable[[Path, Path], None]] = {
    "missing": _instead(lambda path, _: None),
    "empty": _bytes(lambda _: b""),
    "cut": _bytes(lambda data: data[: len(data) // 2]),
    "junk": _bytes(lambda _: bytes(range(256)) * 40),
    "list": _bytes(lambda _: b"[]"),
    "object": _bytes(lambda _: b"{}"),
    "null": _bytes(lambda _: b"null"),
    "number": _bytes(lambda _: b"5\n"),
    "nan": _bytes(lambda _: b'{"a": NaN}\n'),
    "folder": _instead(lambda path, _: path.mkdir()),
    "loop": _instead(lambda path, _: path.symlink_to(path.name)),
    "link out": _instead(lambda path, outside: path.symlink_to(outside)),
    "pipe": _instead(lambda path, _: os.mkfifo(path)),
}
"""Name -> what is done to a file; the second path is a place outside the run for the target of a link."""


def sha256_of(value: Any) -> str:
    """The digest that our files carry of themselves."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def relock(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a run is locked with, and give the lock the digest that fits."""
    path = run / "config.lock.json"
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps({**record, "sha256": sha256_of(record.get("facts"))}))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every name below a folder with size and time of change; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        found[str(path.relative_to(folder))] = (0 if path.is_dir() else facts.st_size, facts.st_mtime_ns)
    return found
