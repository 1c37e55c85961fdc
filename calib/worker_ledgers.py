"""Ledgers of the processes that search side by side: one file each, taken over into the run's own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from claspkit.profiles.errors import ResourceError
from claspkit.profiles.records import hold_lock

from .folder import RunFolder
from .ledger import Ledger

_ORPHAN_SECONDS: Final = 30.0
"""How long the writer of such a file may take to notice that its parent is gone."""


def open_beside(path: Path, run: Path) -> Ledger:
    """Open a worker's ledger for writing; it also knows, and does not write again, what the run's ledger holds.

    Args:
        path: the worker's own file.
        run: the run's ledger, which another process may be writing.
    """
    return Ledger.open(path, known=Ledger.read(run))


def copy_over(ledger: Ledger, paths: Sequence[Path]) -> None:
    """Take lines over that the ledger lacks, also from files that are being written."""
    for path in paths:
        if path.exists():
            ledger.take(Ledger.read(path))


def take_over(ledger: Ledger, paths: Sequence[Path]) -> None:
    """Take lines over that the ledger lacks, and delete the files.

    Raises:
        ResourceError: somebody still writes one of them.
        CorruptError: one is damaged elsewhere than at its torn end.
    """
    for path in paths:
        with _left(path):
            copy_over(ledger, [path])
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".lock").unlink(missing_ok=True)


def read_all(folder: RunFolder) -> Ledger | None:
    """All that a run has scored so far, its own ledger and those of workers together, for reading; None if nothing."""
    found: Ledger | None = None
    for path in (folder.ledger, *folder.left_ledgers):
        if path.exists():
            found = Ledger.read(path, known=found)
    return found


@contextmanager
def _left(path: Path) -> Iterator[None]:
    """Hold the lock of a file that nobody writes any more; a writer whose parent was killed needs a moment to end."""
    end = time.monotonic() + _ORPHAN_SECONDS
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(hold_lock(path))
                break
            except ResourceError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        yield
