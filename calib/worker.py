"""A process that computes its share of the features; started by ``workers``, never by a person."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers.utils import logging

from claspkit.cache.encoder import feature_key
from claspkit.cache.extract import extract
from claspkit.cache.keys import FeatureKey
from claspkit.cache.store import FeatureStore
from claspkit.profiles.errors import MismatchError
from claspkit.runtime.models import load_model

from .features import openers
from .serving import Tell, serve_job


def serve(job: bytes) -> NoReturn:
    """Do a job and end the process.

    Args:
        job: a JSON object: ``model``, ``revision``, ``dtype`` and ``device`` as the command line has them,
            ``threads`` to compute with, ``key`` of the features, ``batch_size``, ``root`` and ``pictures`` (SHA-256
            hex -> name), and the ``store`` to fill.

    Answers on standard output, one JSON object a line: ``{"pictures", "bytes"}`` after a batch, ``{"reject": [SHA-256
    hex, reason]}``, and at the end ``{"passes"}``, or ``{"error", "text"}`` with the name of a typed error. A line on
    standard input asks to end after the batch in work; its end says that the parent is gone.
    """
    serve_job(job, lambda asked, tell: tell(passes=_fill(asked, tell)))


def _fill(job: dict[str, Any], tell: Tell) -> int:
    """Compute what is missing; returns the vision passes."""
    working, stopped = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(working, stopped), daemon=True).start()
    logging.disable_progress_bar()
    torch.set_num_threads(job["threads"])
    dtype = getattr(torch, job["dtype"]) if job["dtype"] else None
    loaded = load_model(job["model"], device=job["device"], dtype=dtype, revision=job["revision"])
    wanted = FeatureKey.from_dict(job["key"])
    key = feature_key(loaded, layers=wanted.layers, dtype=wanted.dtype)
    if differing := key.diff(wanted):
        lines = "\n  ".join(differing)
        raise MismatchError(f"the model changed while it was being used:\n  {lines}\nRun the same command again.")
    size = done = 0

    def written(count: int) -> None:
        nonlocal size
        size += count

    def progress(now: int, _: int) -> None:
        nonlocal size, done
        tell(pictures=now - done, bytes=size)
        size, done = 0, now
        if stopped.is_set():
            raise KeyboardInterrupt  # commits the shard in work

    with FeatureStore.open(Path(job["store"]), key, write=True) as store:
        working.set()
        return extract(
            loaded,
            openers(job["pictures"], Path(job["root"])),
            store,
            batch_size=job["batch_size"],
            progress=progress,
            written=written,
            reject=lambda image, reason: tell(reject=[image, reason]),
        ).vision_passes


def _listen(working: threading.Event, stopped: threading.Event) -> None:
    """Wait for the parent's word, or for its death, which leaves nobody to work for."""
    asked = bool(sys.stdin.buffer.read(1))
    if not asked or not working.is_set():
        os._exit(1)
    stopped.set()
