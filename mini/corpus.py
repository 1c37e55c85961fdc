"""Many pictures at once, kept as plain arrays so that an epoch costs no drawing."""

from __future__ import annotations

from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np

from .draw import LABEL_CLASSES, PATCHES, patch_labels, render
from .layout import PICTURE_SIZE, plan_layout

_CHUNK: Final = 250


def load_or_draw(
    folder: Path, seed: int, count: int, processes: int = 2, labels: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures 0 to ``count - 1`` of ``seed`` and their patch labels, drawn once and then kept in ``folder``.

    Pictures are uint8 of shape (count, 96, 96, 3), red-green-blue; labels uint8 (count, 144, 7) in the column order
    of ``draw.LABEL_CLASSES``, or (0, 144, 7) without ``labels``. Both are memory-mapped for reading.
    """
    pictures_file = folder / f"pictures-{seed}-{count}.npy"
    labels_file = folder / f"labels-{seed}-{count}.npy"
    if not pictures_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        half_done = pictures_file.with_suffix(".part.npy")
        np.save(half_done, draw_pictures(seed, count, processes))
        half_done.rename(pictures_file)
    if labels and not labels_file.exists():
        np.save(labels_file, np.stack([patch_labels(plan_layout(seed, index)) for index in range(count)]))
    empty = np.zeros((0, PATCHES, len(LABEL_CLASSES)), dtype=np.uint8)
    return (
        np.load(pictures_file, mmap_mode="r", allow_pickle=False),
        np.load(labels_file, mmap_mode="r", allow_pickle=False) if labels else empty,
    )


def draw_pictures(seed: int, count: int, processes: int = 1) -> np.ndarray:
    """Return pictures 0 to ``count - 1`` of ``seed``, uint8 of shape (count, 96, 96, 3), red-green-blue."""
    jobs = [(seed, start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    pictures = np.zeros((count, PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)
    # One chunk is drawn here: starting processes takes longer than that, and asks callers to guard against re-import.
    workers = min(processes, len(jobs))
    with get_context("spawn").Pool(workers) if workers > 1 else nullcontext() as pool:
        parts = map(_draw_range, jobs) if pool is None else pool.imap(_draw_range, jobs)
        for (_, start, stop), part in zip(jobs, parts, strict=True):
            pictures[start:stop] = part
    return pictures


def _draw_range(job: tuple[int, int, int]) -> np.ndarray:
    seed, start, stop = job
    return np.stack([np.asarray(render(plan_layout(seed, index))) for index in range(start, stop)])
