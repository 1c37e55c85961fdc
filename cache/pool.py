"""Open shards of a store: opened at their first read, verified as they are read, the idlest closed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal

import numpy as np

from .helping import helping_thread
from .keys import FeatureKey
from .layout import Features
from .manifest import ShardEntry
from .shard import Compared, FileState, OpenShard, check_file, check_sha256

_MAX_OPEN: Final = 32

Verify = Literal["chunks", "shards"]
"""What a process compares: each chunk's checksum at its first read, and anew when the file was touched since; or that
and each shard's SHA-256 before its first use, which reads all of it."""


class ShardPool:
    """Reads from shards by name; safe between threads, and after a fork (no handle of the parent is used)."""

    def __init__(self, folder: Path, key: FeatureKey, verify: Verify) -> None:
        """Prepare, opening nothing."""
        self._folder = folder
        self._key = key
        self._verify = verify
        self._known: dict[str, tuple[FileState, Compared]] = {}
        self._open: OrderedDict[str, OpenShard] = OrderedDict()
        self._helper: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def read(self, entry: ShardEntry, row: int, positions: Sequence[int], out: Features) -> None:
        """Read layers of one row into ``out``, see :meth:`OpenShard.read`.

        Raises:
            ShardDamageError: the shard is not what the manifest promised.
            ResourceError: the system does not let it be read.
        """
        self._after_fork()
        with self._lock:
            try:
                self._get(entry).read(row, positions, out, self._helping())
            except BaseException:
                self._forget(entry.file)
                raise

    def forget(self, file: str) -> None:
        """Close one shard, if it is open."""
        self._after_fork()
        with self._lock:
            self._forget(file)

    def close(self) -> None:
        """Close all shards."""
        self._after_fork()
        with self._lock:
            for file in list(self._open):
                self._forget(file)
            if self._helper is not None:
                self._helper.shutdown()
                self._helper = None

    def _after_fork(self) -> None:
        """Forget the parent's handles: HDF5's do not survive a fork, nor does a lock that a thread held then."""
        if os.getpid() != self._pid:
            self._open, self._lock, self._pid = OrderedDict(), threading.Lock(), os.getpid()
            self._helper = None

    def _helping(self) -> ThreadPoolExecutor | None:
        if self._helper is None and (os.cpu_count() or 1) > 1:
            self._helper = helping_thread("feature reading")
        return self._helper

    def _get(self, entry: ShardEntry) -> OpenShard:
        shard = self._open.get(entry.file)
        if shard is not None:
            if shard.state() == self._known[entry.file][0]:
                self._open.move_to_end(entry.file)
                return shard
            self._forget(entry.file)
        path = self._folder / entry.file
        state = check_file(path, entry)
        before, compared = self._known.get(entry.file, (None, None))
        if compared is None or before != state:
            if self._verify == "shards" or not entry.checksums:
                check_sha256(path, entry)
            compared = np.full(entry.shape[:2], not entry.checksums)
            self._known[entry.file] = state, compared
        shard = OpenShard(path, entry, self._key, compared)
        self._open[entry.file] = shard
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        return shard

    def _forget(self, file: str) -> None:
        self._known.pop(file, None)
        shard = self._open.pop(file, None)
        if shard is not None:
            shard.close()
