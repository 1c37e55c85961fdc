"""Memory that two processes share: images go to the writing process through it, one copy and no page by page queue.

It is a file without a name, in memory where the system has such files, and made of slots of one size.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
from numpy.typing import NDArray

_ZEROS = bytes(1 << 20)


def shared_file() -> int:
    """Return the descriptor of a new, empty file that goes away with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("clasp-images")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Slots:
    """The slots of a shared file as one process sees them."""

    def __init__(self, file: int) -> None:
        """Look at the file behind a descriptor, which is closed with this object."""
        self._file = file
        self._bytes = np.empty(0, np.uint8)

    def grow(self, size: int) -> None:
        """Make the file at least ``size`` bytes long; its bytes exist from then on, so that no access can fail.

        Raises:
            OSError: no room.
        """
        there = os.fstat(self._file).st_size
        while there < size:
            there += os.pwrite(self._file, _ZEROS[: size - there], there)

    def view(self, start: int, size: int) -> NDArray[np.uint8]:
        """The bytes from ``start`` on, shared with the other process."""
        if self._bytes.size < start + size:
            mapped = mmap.mmap(self._file, os.fstat(self._file).st_size)
            self._bytes = np.frombuffer(mapped, np.uint8)
        return self._bytes[start : start + size]

    def close(self) -> None:
        """Close the descriptor; views go on."""
        number, self._file = self._file, -1
        if number >= 0:
            os.close(number)
