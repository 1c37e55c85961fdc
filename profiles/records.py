"""Append-only JSON lines that survive a kill: a checksum per line, and an append is on disk on return.

A line is ``<crc32 of the JSON, 8 lowercase hex digits> <canonical JSON object>\\n``. An append that was cut
short leaves a bad last line, which the next opening removes. A bad line anywhere else is damage and is never
skipped.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from .canonical import canonical_json, disk_error, fsync_folder, strict_loads
from .errors import CorruptError, ResourceError, UsageError
from .plain_files import read_plain, unreadable

MAX_LINE = 64 * 2**20
_PREFIX = 9  # 8 digits and a space

Record = dict[str, Any]


def encode_record(record: Record) -> bytes:
    """One line for ``record``; ValueError for what canonical JSON refuses or a line beyond MAX_LINE."""
    body = canonical_json(record)
    if len(body) > MAX_LINE:
        raise ValueError(f"a record of {len(body)} bytes is longer than the {MAX_LINE} allowed")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> Record:
    """The record of one line without its newline; ValueError with the reason when it is bad."""
    body = line[_PREFIX:]
    if line[:_PREFIX] != b"%08x " % zlib.crc32(body):
        raise ValueError("its checksum does not match")
    record = strict_loads(body, max_bytes=MAX_LINE)
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    return record


def _decode_all(data: bytes, path: Path) -> tuple[list[Record], int]:
    """All good records and the number of bytes they take; what follows those bytes is a torn tail."""
    records: list[Record] = []
    good = 0
    while good < len(data):
        end = data.find(b"\n", good)
        if end < 0:
            break
        try:
            records.append(_decode(data[good:end]))
        except ValueError as error:
            if end + 1 < len(data):
                raise CorruptError(
                    f"{path}, line {len(records) + 1}: {error}. Lines after it are whole, so this is damage "
                    "and not an interrupted write. Restore the file from a backup, or move it away to start "
                    "anew."
                ) from None
            break
        good = end + 1
    return records, good


def read_records(path: Path | str) -> list[Record]:
    """All records of a log, oldest first, without locking or changing it; a torn tail is left out.

    Raises:
        UsageError: there is no such file.
        CorruptError: a bad line that is not the last, names file and line number; or no plain file.
        ResourceError: the system does not let it be read.
    """
    path = Path(path)
    try:
        data = read_plain(path)
    except FileNotFoundError:
        raise UsageError(f"there is no record log at {path}") from None
    return _decode_all(data, path)[0]


class RecordLog:
    """A log that is open for appending, locked against every other process.

    Opening creates a missing file and cuts off a torn tail. The lock is ``flock`` on ``<path>.lock``, which
    also says who holds it and stays behind; the system drops the lock when its process ends, however it ends.

    Attributes:
        path: the file.
        found: the records that were there on opening.
        dropped: bytes of torn tail that were cut off on opening.

    Raises:
        ResourceError: another process has the log open, or the disk is full.
        CorruptError: a bad line that is not the last, or no plain file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock: int | None = _lock(self.path)
        self._file: int | None = None
        try:
            existed = self.path.exists()
            self._file = _open_plain(self.path)
            if not existed:
                fsync_folder(self.path.parent)
            data = read_plain(self.path)
            self.found, self._size = _decode_all(data, self.path)
            self.dropped = len(data) - self._size
            if self.dropped:
                os.ftruncate(self._file, self._size)
                os.fsync(self._file)
        except BaseException:
            self.close()
            raise

    def append(self, records: Iterable[Record]) -> None:
        """Write all records and return when they are on disk; on an error none of them is in the log.

        Raises:
            ValueError: a record that canonical JSON refuses; nothing was written.
            ResourceError: the disk is full.
            UsageError: the log is closed.
        """
        if self._file is None:
            raise UsageError(f"{self.path} is closed; open it again to append")
        data = b"".join(map(encode_record, records))
        if not data:
            return
        try:
            _write_all(self._file, data, self._size)
            os.fsync(self._file)
        except BaseException as error:
            # Also on Ctrl-C: half a block must not stand before the next one.
            os.ftruncate(self._file, self._size)
            if isinstance(error, OSError):
                raise disk_error(error, self.path, len(data)) from error
            raise
        self._size += len(data)

    def close(self) -> None:
        """Give up file and lock; may be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RecordLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_log(path: Path | str) -> tuple[RecordLog, list[Record]]:
    """Open a log for appending and return it with the records it holds; see :class:`RecordLog`."""
    log = RecordLog(path)
    return log, log.found


@contextmanager
def hold_lock(path: Path | str) -> Iterator[None]:
    """Keep every other process from opening a log, whatever is in it: to delete it, for example.

    A log that nobody has opened yet has no lock, and gets none.

    Raises:
        ResourceError: another process has the log open.
    """
    path = Path(path)
    handle = _lock(path) if _lock_path(path).exists() else None
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _open_plain(path: Path) -> int:
    """Open for reading and writing, made if need be; CorruptError where something else than a file stands."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    except OSError as error:
        known = unreadable(error, path)
        if isinstance(known, CorruptError):
            raise known from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CorruptError(f"{path} is no plain file; move it away and run the same command again")
    return handle


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view = view[written:]
        offset += written


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _lock(path: Path) -> int:
    """Lock ``<path>.lock`` and write into it who we are; the handle holds the lock until it is closed."""
    lock_path = _lock_path(path)
    try:
        handle = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        raise UsageError(f"the folder of {path} does not exist; create {path.parent} first") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = _holder(handle)
        os.close(handle)
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise ResourceError(
                f"{path} is in use by {holder}. Wait for it to end, or stop it, and run the same command again."
            ) from None
        raise ResourceError(
            f"{path} cannot be locked ({os.strerror(error.errno or 0)}); put it on a file system that supports locks."
        ) from error
    me = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, me, 0)
    except OSError as error:
        os.close(handle)
        raise disk_error(error, lock_path, len(me)) from error
    return handle


def _holder(handle: int) -> str:
    """Who wrote the lock file, in words."""
    try:
        who = strict_loads(os.pread(handle, 4096, 0), max_bytes=4096)
        return f"process {int(who['pid'])} on {str(who['host'])[:64]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
