"""Chunks past HDF5's filters: written with the checksum behind them, read by plain reads into their places.

HDF5 only says where chunks lie. It would copy each once more, take several times as long over its checksum, and hold
the interpreter and its own lock meanwhile; this way a helping thread takes half of what a read asks for, and other
threads run on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .fletcher import fletcher32
from .helping import settle
from .layout import FLETCHER32_BYTES, SCALES, Features
from .quantise import quantise

_SHARED_BYTES: Final = 4 << 20
"""From how many bytes on a read is worth a second thread."""


@dataclass(frozen=True)
class Job:
    """A chunk to read.

    Attributes:
        place: the byte of the file at which it begins.
        out: where its values go: C-contiguous, as many bytes as the chunk without its checksum.
        checksum: fletcher32 that its values must have; None where they are not compared.
    """

    place: int
    out: NDArray[Any]
    checksum: int | None


class ImageWriter:
    """Appends images to an open shard.

    Attributes:
        checksums: those of all chunks so far, as the manifest has them.
    """

    def __init__(self, dataset: Any) -> None:
        """Prepare; ``dataset`` is that of the values, of :func:`layout.create_dataset`."""
        self._quantised = dataset.dtype == np.int8
        parts = [dataset, dataset.parent[SCALES]] if self._quantised else [dataset]
        self._writers = [ChunkWriter(part) for part in parts]
        self.checksums = bytearray()

    def append(self, features: Features) -> None:
        """Add one image: (layers, tokens, width) in storage dtype."""
        parts: tuple[Features, ...] = quantise(features) if self._quantised else (features,)
        found = [writer.append(values) for writer, values in zip(self._writers, parts, strict=True)]
        for of_layer in zip(*found, strict=True):
            self.checksums += b"".join(of_layer)


class ChunkWriter:
    """Appends images to a dataset, in the bytes that HDF5's own checksum filter would write."""

    def __init__(self, dataset: Any) -> None:
        """Prepare; ``dataset`` is (images, layers, ...), can grow, and one chunk is one image at one layer."""
        self._dataset = dataset
        size = prod(dataset.shape[2:]) * dataset.dtype.itemsize
        self._chunk = np.empty(size + FLETCHER32_BYTES, np.uint8)

    def append(self, values: NDArray[Any]) -> list[bytes]:
        """Add one image: (layers, ...) in the dataset's dtype; returns the checksum of each layer's chunk."""
        row, *_ = self._dataset.shape
        self._dataset.resize(row + 1, axis=0)
        inside, found = (0,) * (values.ndim - 1), []
        for layer, part in enumerate(values):
            data, checksum = self._chunk[:-FLETCHER32_BYTES], self._chunk[-FLETCHER32_BYTES:]
            data[:] = part.reshape(-1).view(np.uint8)
            found.append(fletcher32(data).to_bytes(FLETCHER32_BYTES, "little"))
            checksum[:] = np.frombuffer(found[-1], np.uint8)
            self._dataset.id.write_direct_chunk((row, layer, *inside), self._chunk)
        return found


class ChunkError(Exception):
    """Chunks that are not where and how they must be; the text says which and why."""


def chunk_places(dataset: Any, file_bytes: int) -> NDArray[np.int64]:
    """Return where the chunks of a dataset lie in its file: (images, layers) byte offsets.

    Args:
        dataset: low-level HDF5 dataset with a checksum, chunked by image and layer, all chunks present.
        file_bytes: size of the file.

    Raises:
        ChunkError: a chunk has another size, skips the checksum, overlaps another, or reaches beyond the file.
    """
    size = prod(dataset.shape[2:]) * dataset.dtype.itemsize + FLETCHER32_BYTES
    places = np.full(dataset.shape[:2], -1, np.int64)

    def note(chunk: Any) -> None:
        image, layer, *rest = chunk.chunk_offset
        if chunk.size != size or chunk.filter_mask or any(rest):
            raise ChunkError(f"the chunk of image {image}, layer {layer} takes {chunk.size} bytes, expected {size}")
        places[image, layer] = chunk.byte_offset

    dataset.chunk_iter(note)
    ends = np.sort(places, axis=None)
    if ends[0] < 0 or ends[-1] > file_bytes - size or bool((np.diff(ends) < size).any()):
        raise ChunkError("its chunks overlap or do not lie inside the file")
    return places


def read_chunks(file: int, jobs: Sequence[Job], helper: ThreadPoolExecutor | None = None) -> None:
    """Read chunks into their arrays, comparing the checksums that are to be compared.

    Args:
        file: descriptor of the file.
        jobs: what to read.
        helper: takes half of it, where that is worth it; of :func:`helping.helping_thread`, and nobody else's now.

    Raises:
        ChunkError: a checksum does not fit, or the file ended too early.
        OSError: the file cannot be read.
    """
    _announce(file, jobs)
    if helper is None or len(jobs) < 2 or sum(job.out.nbytes for job in jobs) < _SHARED_BYTES:
        _read_all(file, jobs)
        return
    half = len(jobs) // 2
    try:
        other = helper.submit(_read_all, file, jobs[half:])
        _read_all(file, jobs[:half])
        other.result()
    except BaseException:
        # Also on Ctrl-C: nobody may still write into the caller's array.
        settle(helper)
        raise


def _announce(file: int, jobs: Sequence[Job]) -> None:
    """Let the disk begin with all chunks of a first read, while the first of them is still being compared."""
    if hasattr(os, "posix_fadvise"):
        for job in jobs:
            if job.checksum is not None:
                os.posix_fadvise(file, job.place, job.out.nbytes, os.POSIX_FADV_WILLNEED)


def _read_all(file: int, jobs: Sequence[Job]) -> None:
    for job in jobs:
        octets = job.out.reshape(-1).view(np.uint8)
        _read_at(file, job.place, octets.data)
        if job.checksum is not None and fletcher32(octets) != job.checksum:
            raise ChunkError(f"the values of the chunk at byte {job.place} do not fit their checksum")


def _read_at(file: int, place: int, octets: memoryview) -> None:
    """Fill ``octets`` from ``place`` on."""
    while octets:
        got = os.preadv(file, [octets], place)
        if not got:
            raise ChunkError(f"the file ends at byte {place}, in the midst of a chunk")
        place, octets = place + got, octets[got:]
