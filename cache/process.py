"""The parent's end of the writing process: starts it, feeds it, and turns its death into a typed error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from claspkit.profiles.errors import ResourceError

from .exchange import Slots, shared_file
from .keys import FeatureKey
from .layout import PART_SUFFIX, Features, image_shape, shard_bytes_needed
from .manifest import ShardEntry

# A fresh interpreter, not multiprocessing: its spawn runs the user's script a second time when that lacks a
# `__main__` guard. The child sees the same modules because it is given the same path.
_START = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from claspkit.cache.child import serve; serve(sys.argv[1], int(sys.argv[2]))"
)
_SLOTS = 2
"""Images on their way to the child: it writes one while the next one is copied."""


def free_bytes(folder: Path) -> int:
    """Bytes an ordinary user can still write in the folder's file system; 0 when the folder is gone."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise ResourceError, naming bytes needed and free, unless ``needed`` bytes are free in ``folder``."""
    free = free_bytes(folder)
    if free < needed:
        raise ResourceError(
            f"not enough disk space for {what}: {needed} bytes needed, {free} free in {folder}. "
            "Make room, or choose another folder, and run the same command again; finished shards are kept."
        )


class ShardWriter:
    """Writes shards one after the other through one child process, which lives as long as this object.

    After a ResourceError the writer is finished; what was committed stays, the shard in work is removed.
    """

    def __init__(self, folder: Path, key: FeatureKey) -> None:
        """Start the child; ResourceError where the system has no descriptors or processes left."""
        self._folder = folder.resolve()
        self._key = key
        self._name: str | None = None
        self._sent = self._written = 0
        self._expected = self._size = 0
        self._tokens: int | None = key.tokens
        with contextlib.ExitStack() as undo:
            try:
                shared = shared_file()
                self._slots = Slots(shared)
                undo.callback(self._slots.close)
                self._errors: IO[bytes] = undo.enter_context(tempfile.TemporaryFile())
                self._child = subprocess.Popen(
                    [sys.executable, "-c", _START, str(self._folder), str(shared), *sys.path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    pass_fds=(shared,),
                )
            except OSError as error:
                raise ResourceError(
                    f"the process that writes features into {folder} could not be started: {error.strerror}. "
                    "Finished shards are kept; run the same command again to continue."
                ) from error
            undo.pop_all()  # closed in close()

    def begin(self, name: str, images: int, tokens: int) -> None:
        """Start a shard that is going to hold up to ``images`` images of ``tokens`` tokens each.

        Raises:
            ResourceError: not enough free space, or the child is gone.
        """
        needed = shard_bytes_needed(self._key, images, tokens)
        require_space(self._folder, needed, f"the next shard of {images} images")
        self._name, self._expected, self._tokens = name, images, tokens
        self._send({"op": "begin", "name": name, "key": self._key.to_dict(), "tokens": tokens})

    def add(self, digest: str, features: Features) -> None:
        """Hand over one image: (layers, tokens, width) in storage dtype.

        Raises:
            ResourceError: the child failed, for instance because the disk is full.
        """
        size, start = features.nbytes, self._sent % _SLOTS * features.nbytes
        while self._sent - self._written >= (_SLOTS if size == self._size else 1):
            self._receive()
        if size != self._size:  # slots of another size lie elsewhere: the child must be done with the old ones
            try:
                self._slots.grow(_SLOTS * size)
            except OSError as error:
                self._reap()
                raise ResourceError(
                    f"no memory for {_SLOTS} images of {size} bytes on their way to the writing process: "
                    f"{error.strerror}. Finished shards are kept; run the same command again to continue."
                ) from error
            self._size = size
        np.copyto(self._slots.view(start, size).view(features.dtype).reshape(features.shape), features)
        self._send({"op": "image", "digest": digest, "start": start, "size": size})
        self._sent += 1

    def commit(self) -> ShardEntry:
        """Finish the shard: when this returns, its file is on disk under its final name.

        Raises:
            ResourceError: the child failed.
        """
        assert self._name is not None
        self._send({"op": "commit"})
        while "sha256" not in (answer := self._receive()):
            pass
        images = tuple(answer["images"])
        name, self._name = self._name, None
        shape = (len(images), *image_shape(self._key, self._tokens))
        checksums = bytes.fromhex(answer["checksums"])
        return ShardEntry(name, answer["sha256"], answer["bytes"], images, shape, checksums=checksums)

    def kill(self) -> None:
        """Make whatever waits for the child fail soon."""
        self._child.kill()

    def close(self) -> None:
        """End the child and remove an unfinished shard; may be called twice."""
        self._reap()
        self._errors.close()
        self._slots.close()

    def _send(self, command: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(command).encode() + b"\n")
            self._child.stdin.flush()
        except (BrokenPipeError, ValueError) as error:  # ValueError: closed by an earlier failure
            raise self._failure(None) from error

    def _receive(self) -> dict[str, Any]:
        """Wait for one answer of the child's."""
        assert self._child.stdout is not None
        answer = None if self._child.stdout.closed else self._parse(self._child.stdout.readline())
        if answer is None or "error" in answer:
            raise self._failure(answer)
        self._written = answer.get("written", self._written)
        return answer

    @staticmethod
    def _parse(line: bytes) -> dict[str, Any] | None:
        try:
            answer = json.loads(line)
        except ValueError:
            return None
        return answer if isinstance(answer, dict) else None

    def _reap(self) -> bytes:
        """Close the pipes, wait for the child, remove what it left; return what it had still answered."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        rest = b"" if self._child.stdout.closed else self._child.stdout.read()
        self._child.stdout.close()
        self._child.wait()
        name, self._name = self._name, None
        if name is not None:
            with contextlib.suppress(OSError):  # gone already, or its folder is; the next opening looks again
                (self._folder / (name + PART_SUFFIX)).unlink()
        return rest

    def _failure(self, answer: dict[str, Any] | None) -> ResourceError:
        """The error for a child that failed; ends it first, so that the space it held counts as free."""
        name, needed = self._name or "a shard", shard_bytes_needed(self._key, self._expected, self._tokens or 1)
        rest = self._reap()
        answer = answer or self._parse(rest.splitlines()[-1] if rest else b"")
        end = "Finished shards are kept; run the same command again to continue."
        if answer and answer.get("full"):
            return ResourceError(
                f"the disk is full: writing {name} needs {needed} bytes, {free_bytes(self._folder)} are free "
                f"now in {self._folder} (its unfinished part was removed). Make room first. {end}"
            )
        if answer and "error" in answer:
            return ResourceError(f"{name} could not be written in {self._folder}: {answer['error']}. {end}")
        cause = cause_of_death(self._child.returncode, self._errors)
        return ResourceError(f"the process that writes {name} {cause}. {end}")


def cause_of_death(code: int, errors: IO[bytes]) -> str:
    """Say in words how a process ended; ``errors`` is the file of its standard error, perhaps closed already."""
    if code < 0:
        try:
            which = signal.Signals(-code).name
        except ValueError:  # a real-time signal has no name
            which = str(-code)
        hint = "; the system kills a process so when memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by signal {which}{hint}"
    if errors.closed:
        return f"ended with exit code {code}"
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - 2000))
    said = errors.read().decode(errors="replace").strip().splitlines()
    return f"ended with exit code {code}" + (f", saying {said[-1][:300]!r}" if said else "")
