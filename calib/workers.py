"""The parent's end of the processes that fill the feature cache side by side: start, listen, end, bury."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from claspkit.cache.extract import share_of
from claspkit.cache.keys import FeatureKey

from .config import RunConfig
from .folder import RunFolder
from .helper import Helper, start_of

_START: Final = start_of("worker")
_STOP_SECONDS: Final = 60.0
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


class Worker(Helper):
    """One process; what it says goes into ``heard`` as (worker, message), None when it falls silent.

    Attributes:
        passes: vision passes, once it has ended well; None until then.
    """

    def __init__(self, index: int, message: Mapping[str, Any], heard: queue.SimpleQueue[Any]) -> None:
        """Start it."""
        super().__init__(index, _START, message, heard)
        self.passes: int | None = None


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
                    raise worker.death_of("a process that fills the feature cache", _KEPT)
            elif "error" in message:
                raise worker.met(message)
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
