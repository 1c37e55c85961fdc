"""Reading a file of ours that may have been exchanged for something else: a folder, a pipe, a loop of links."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from .errors import ClaspError, CorruptError, ResourceError

_NO_FILE = {errno.EISDIR, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG}


def read_plain(path: Path | str, max_bytes: int | None = None) -> bytes:
    """The content of a plain file; never waits on a pipe.

    Args:
        path: the file; a link is followed.
        max_bytes: how long it may be; None for any length.

    Raises:
        FileNotFoundError: there is none.
        CorruptError: something else stands there, or it is longer.
        ResourceError: the system does not let it be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise CorruptError(f"{path} is no plain file; put the file that belongs there in its place")
            data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(error, path) from None
    if max_bytes is not None and len(data) > max_bytes:
        raise CorruptError(f"{path} is larger than the {max_bytes} bytes that such a file may have")
    return data


def unreadable(error: OSError, path: Path | str) -> ClaspError:
    """The error for a file that cannot be opened or read, by what stands in the way."""
    if error.errno in _NO_FILE:
        return CorruptError(
            f"{path} is no plain file ({error.strerror}); put the file that belongs there in its place"
        )
    return ResourceError(f"{path} cannot be read: {error.strerror}. Put that right and run the same command again.")
