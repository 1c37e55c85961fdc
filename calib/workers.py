"""The parent's end of the processes that fill the feature cache side by side: start, listen, end, bury."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import torch

from claspkit.cache.extract import share_of
from claspkit.cache.keys import FeatureKey
from claspkit.cache.process import cause_of_death
from claspkit.profiles.errors import (
    BadDataError,
    ClaspError,
    CorruptError,
    MismatchError,
    ResourceError,
    UsageError,
)

from .config import RunConfig
from .folder import RunFolder

# A fresh interpreter: a fork would take over torch's threads and CUDA's state, which survive none. The job is read
# before anything large is imported, so that the parent can start the next one at once.
_START: Final = (
    "import sys; sys.path[:] = sys.argv[1:]; job = sys.stdin.buffer.readline(); "
    "from claspkit.calib.worker import serve; serve(job)"
)
_STOP_SECONDS: Final = 60.0
_ERRORS: Final[dict[str, type[ClaspError]]] = {
    kind.__name__: kind for kind in (BadDataError, CorruptError, MismatchError, ResourceError, UsageError)
}
_KEPT: Final = "What the workers finished is kept; run the same command again to continue."


@dataclass(frozen=True)
class Job:
    """What several processes do together.

    Attributes:
        config: model, device, dtype and batches.
        key: of the features.
        root: folder of the pictures.
        pictures: SHA-256 hex -> name below ``root``.
    """

    config: RunConfig
    key: FeatureKey
    root: Path
    pictures: Mapping[str, str]

    def message(self, images: Sequence[str], store: Path, device: str, threads: int) -> dict[str, Any]:
        """The part of one worker as a JSON object, see :func:`calib.worker.serve`."""
        config = self.config
        return {
            "model": config.model,
            "revision": config.revision,
            "dtype": config.dtype,
            "device": device,
            "threads": threads,
            "key": self.key.to_dict(),
            "batch_size": config.block_size,
            "root": str(self.root),
            "pictures": {image: self.pictures[image] for image in images},
            "store": str(store.resolve()),
        }


class Worker:
    """One process; what it says goes into ``heard`` as (worker, message), None when it falls silent.

    Attributes:
        index: its number among the workers.
        passes: vision passes, once it has ended well; None until then.
    """

    def __init__(self, index: int, message: Mapping[str, Any], heard: queue.SimpleQueue[Any]) -> None:
        """Start it."""
        self.index = index
        self.passes: int | None = None
        self._heard = heard
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            process_group=0,  # Ctrl-C is for the parent, which tells its workers itself
        )
        self._tell(json.dumps(message))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def stop(self) -> None:
        """Ask it to end after the batch in work, keeping all it has."""
        self._tell("stop")

    def wait(self, seconds: float) -> None:
        """Wait for its end, so long at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))

    def close(self) -> None:
        """End it if it still runs, and free what it took."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def death(self) -> ResourceError:
        """The error for a worker that fell silent before its end."""
        how = cause_of_death(self._process.wait(), self._errors)
        return ResourceError(f"worker {self.index}, a process that fills the feature cache, {how}. {_KEPT}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, which its silence says as well
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # cut short by its death
                self._heard.put((self, json.loads(line)))
        self._heard.put((self, None))


def run_workers(
    job: Job,
    folder: RunFolder,
    count: int,
    advance: Callable[[int], None],
    written: Callable[[int], None],
    reject: Callable[[str, str], None],
) -> int:
    """Let ``count`` processes compute the job's pictures, split by digest, each into a store of its own.

    Args:
        job: what to compute.
        folder: of the run; the stores are its :meth:`RunFolder.worker_features`.
        count: processes; one that has no pictures is not started. On a CPU they share this process's threads.
        advance: hears of pictures done.
        written: hears of bytes computed.
        reject: takes (SHA-256 hex, reason) of a picture that cannot be used; what it raises ends the workers.

    Returns:
        Vision passes.

    Raises:
        ResourceError: a worker died.
        ClaspError: what a worker met.
    """
    threads = max(1, torch.get_num_threads() // count)
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    team: list[Worker] = []
    try:
        for index in range(count):
            if images := share_of(job.pictures, (index, count)):
                device = worker_device(job.config.device, index)
                message = job.message(images, folder.worker_features(index), device, threads)
                team.append(Worker(index, message, heard))
        silent = 0
        while silent < len(team):
            worker, message = heard.get()
            if message is None:
                silent += 1
                if worker.passes is None:
                    raise worker.death()
            elif "error" in message:
                kind = _ERRORS.get(message["error"], ResourceError)
                raise kind(f"{message['text']} (met by worker {worker.index})")
            elif "reject" in message:
                reject(*message["reject"])
            elif "passes" in message:
                worker.passes = int(message["passes"])
            else:
                written(int(message["bytes"]))
                advance(int(message["pictures"]))
        return sum(worker.passes or 0 for worker in team)
    except BaseException:
        # Also on Ctrl-C. A second one cuts the waiting short: then only whole shards are kept.
        end = time.monotonic() + _STOP_SECONDS
        for worker in team:
            worker.stop()
        for worker in team:
            worker.wait(end - time.monotonic())
        raise
    finally:
        for worker in team:
            worker.close()


def worker_device(device: str, index: int) -> str:
    """The device of a worker: "cuda" goes round the GPUs, every other name means the same to all."""
    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{index % count}" if count else device
