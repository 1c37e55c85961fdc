"""The writing process: only it writes through HDF5, so a full disk or a crash in there cannot end a run.

It reads commands from standard input and answers on standard output, one JSON line each; see :func:`serve`.
HDF5 2.0 segfaults at interpreter exit after a failed write, so the process always leaves by ``os._exit``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from claspkit.profiles.canonical import fsync_folder

from .chunks import ImageWriter
from .exchange import Slots
from .keys import FeatureKey
from .layout import (
    PART_SUFFIX,
    create_dataset,
    finish_dataset,
    image_shape,
    open_hdf5,
    storage_dtype,
)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Shard:
    """The shard being written, under its temporary name."""

    def __init__(self, folder: Path, name: str, key: FeatureKey, tokens: int) -> None:
        self.dtype, self.shape = storage_dtype(key.dtype), image_shape(key, tokens)
        self.path = folder / name
        self.part = folder / (name + PART_SUFFIX)
        self.digests: list[str] = []
        # "x": a file of that name is never ours.
        self.file = open_hdf5(str(self.part), "x")
        self.dataset = create_dataset(self.file, key, tokens)
        self.images = ImageWriter(self.dataset)

    def add(self, digest: str, data: NDArray[np.uint8]) -> None:
        self.images.append(data.view(self.dtype).reshape(self.shape))
        self.digests.append(digest)

    def commit(self) -> dict[str, Any]:
        """Make it durable under its final name: data first, then the name, then the folder."""
        finish_dataset(self.dataset, self.digests)
        self.file.close()
        with self.part.open("rb") as file, ThreadPoolExecutor(1) as other:
            durable = other.submit(os.fsync, file.fileno())  # the disk works while the processor hashes
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            durable.result()
        self.part.rename(self.path)
        fsync_folder(self.path.parent)
        checksums = self.images.checksums.hex()
        return {"sha256": sha256, "bytes": size, "images": self.digests, "checksums": checksums}

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self.part.unlink()


def serve(folder: str, shared: int) -> None:
    """Write shards into ``folder`` until standard input ends; never returns.

    Commands, one JSON line each: ``{"op": "begin", "name", "key", "tokens"}``; ``{"op": "image", "digest", "start",
    "size"}`` for ``size`` bytes that lie from ``start`` on in the file behind the descriptor ``shared``, (layers,
    tokens, width) in storage dtype, C order; ``{"op": "commit"}``. Answers: ``{"written": images so far}`` when the
    bytes of an image are not needed any more; ``{"sha256", "bytes", "images", "checksums"}`` when a committed shard
    is durable. An answer with ``error`` may come at any time and is the last. Whatever is not committed when the
    input ends is removed.
    """
    # Ctrl-C reaches the whole process group; what is kept is for the parent to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    status = 1
    os.dup2(2, 1)  # nothing that a library prints may pass for an answer
    with open(0, "rb", closefd=False) as commands:
        try:
            status = _serve(Path(folder), Slots(shared), commands, answers)
        finally:
            os._exit(status)


def _serve(folder: Path, slots: Slots, commands: BufferedReader, answers: IO[bytes]) -> int:
    shard: _Shard | None = None
    written = 0
    try:
        while line := commands.readline():
            command = json.loads(line)
            if command["op"] == "begin":
                shard = _Shard(folder, command["name"], FeatureKey.from_dict(command["key"]), command["tokens"])
            elif command["op"] == "image":
                assert shard is not None
                shard.add(command["digest"], slots.view(command["start"], command["size"]))
                written += 1
                _answer(answers, {"written": written})
            else:
                assert shard is not None
                answer, shard = shard.commit(), None
                _answer(answers, answer)
        return 0
    except BaseException as error:
        # Every failure ends here: the parent learns the reason, and HDF5's own exit handlers are never run.
        _answer(answers, {"error": f"{type(error).__name__}: {error}", "full": _is_disk_full(error)})
        return 1
    finally:
        if shard is not None:
            shard.abandon()


def _answer(answers: IO[bytes], answer: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(answer).encode() + b"\n")
    except BrokenPipeError:
        return  # the parent is gone; there is nobody to tell


def _is_disk_full(error: BaseException) -> bool:
    """HDF5 reports a full disk as RuntimeError or OSError with the number in the text only."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _FULL:
            return True
        text = str(link)
        if any(f"errno = {number}," in text or os.strerror(number) in text for number in _FULL):
            return True
        link = link.__cause__ or link.__context__
    return False
