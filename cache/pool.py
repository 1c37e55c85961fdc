"""Open shards of a store: opened at their first read, verified once per process, the idlest closed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from .keys import FeatureKey
from .layout import Features
from .manifest import ShardEntry
from .shard import FileState, OpenShard, check_file, check_sha256

_MAX_OPEN = 32


class ShardPool:
    """Reads from shards by name; safe between threads, and after a fork (no handle of the parent is used)."""

    def __init__(self, folder: Path, key: FeatureKey, *, hashed: bool) -> None:
        """Prepare, opening nothing; ``hashed``: compare each file's SHA-256 before its first use."""
        self._folder = folder
        self._key = key
        self._hashed = hashed
        self._verified: dict[str, FileState] = {}
        self._open: OrderedDict[str, OpenShard] = OrderedDict()
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def read(self, entry: ShardEntry, row: int, positions: Sequence[int], out: Features) -> None:
        """Read layers of one row into ``out``, see :meth:`OpenShard.read`.

        Raises:
            ShardDamageError: the shard is not what the manifest promised.
        """
        self._after_fork()
        with self._lock:
            try:
                self._get(entry).read(row, positions, out)
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

    def _after_fork(self) -> None:
        """Forget the parent's handles: HDF5's do not survive a fork, nor does a lock that a thread held then."""
        if os.getpid() != self._pid:
            self._open, self._lock, self._pid = OrderedDict(), threading.Lock(), os.getpid()

    def _get(self, entry: ShardEntry) -> OpenShard:
        shard = self._open.get(entry.file)
        if shard is not None:
            self._open.move_to_end(entry.file)
            return shard
        path = self._folder / entry.file
        state = check_file(path, entry)
        if self._hashed and self._verified.get(entry.file) != state:
            check_sha256(path, entry)
            self._verified[entry.file] = state
        shard = OpenShard(path, entry, self._key)
        self._open[entry.file] = shard
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        return shard

    def _forget(self, file: str) -> None:
        self._verified.pop(file, None)
        shard = self._open.pop(file, None)
        if shard is not None:
            shard.close()
