"""How fast this machine is, measured in a second or two: its disk, and matrix products on a device."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from claspkit.profiles.errors import ResourceError, UsageError

PROBE_BYTES: Final = 256 << 20
"""Bytes written and read to measure a disk."""

_BLOCK = 8 << 20
_MATMUL_SECONDS = 0.3


@dataclass(frozen=True)
class Machine:
    """What a plan needs to know about a machine.

    Attributes:
        folder: the folder that was looked at: that of the cache, or the nearest one above it that exists.
        free: bytes an ordinary user can still write there.
        write: bytes a second written there and made durable; None if not measured.
        read: bytes a second read from there; None if not measured. Where the file system cannot be told to forget
            what it holds in memory (tmpfs), this is the speed of that memory.
        device: torch device that would run the vision encoder.
        flops: floating-point operations a second of matrix products on the device; None if not measured.
    """

    folder: str
    free: int
    write: float | None
    read: float | None
    device: str
    flops: float | None


def probe_machine(folder: Path, device: str, *, speeds: bool = True) -> Machine:
    """Look at the disk of ``folder``, which need not exist yet, and at ``device``; without ``speeds`` nothing is run.

    Raises:
        ResourceError: the probe does not fit on the disk, or it cannot be written.
        UsageError: the device cannot be used.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    write, read = probe_disk(there) if speeds else (None, None)
    return Machine(str(there), free, write, read, device, probe_matmul(device) if speeds else None)


def probe_disk(folder: Path, size: int = PROBE_BYTES) -> tuple[float, float]:
    """Write a file of ``size`` bytes, make it durable, read it back from the disk, and delete it.

    Returns:
        Bytes a second written and read.

    Raises:
        ResourceError: less than twice ``size`` is free, or the file cannot be written.
    """
    free = shutil.disk_usage(folder).free
    if free < 2 * size:
        raise ResourceError(
            f"measuring the disk takes a file of {size} bytes and leaves as much alone; {free} are free in {folder}. "
            "Make room, name another folder, or leave the measurement out with --no-probe"
        )
    block = memoryview(bytearray(os.urandom(_BLOCK)))  # a file system that compresses or deduplicates gains nothing
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            number = file.fileno()
            started = time.perf_counter()
            for count, part in enumerate(_parts(size, block)):
                part[:8] = count.to_bytes(8, "little")
                _write_whole(number, part)
            os.fsync(number)
            written = time.perf_counter()
            _forget(number)
            resumed = time.perf_counter()
            offset = 0
            while got := os.preadv(number, [block], offset):
                offset += got
            return size / (written - started), size / (time.perf_counter() - resumed)
    except OSError as error:
        raise ResourceError(
            f"the disk of {folder} could not be measured: {error.strerror}. Name another folder, or leave the "
            "measurement out with --no-probe"
        ) from error


def probe_matmul(device: str, size: int = 1024, seconds: float = _MATMUL_SECONDS) -> float:
    """Multiply (``size``, ``size``) by (``size``, 4 ``size``), the shape of a vision block's MLP, for some time.

    The values are float32 on a CPU and float16 elsewhere, as models are run there.

    Returns:
        Floating-point operations a second, multiply + add = 2.

    Raises:
        UsageError: the device cannot be used.
    """
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.float16
    try:
        left = torch.randn(size, size, device=device, dtype=dtype)
        right = torch.randn(size, 4 * size, device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise UsageError(
            f"the device {device!r} cannot be used: {str(error).splitlines()[0]}. `claspkit doctor` shows what there is"
        ) from error
    with torch.inference_mode():
        for _ in range(2):  # the first product pays for threads, kernels and memory
            torch.mm(left, right)
        _finish(device)
        rounds, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            for _ in range(4):
                torch.mm(left, right)
            _finish(device)
            rounds += 4
    return rounds * 8.0 * size**3 / spent


def _parts(size: int, block: memoryview) -> Iterator[memoryview]:
    """Views of ``block`` that make up ``size`` bytes."""
    for start in range(0, size, len(block)):
        yield block[: min(len(block), size - start)]


def _write_whole(number: int, part: memoryview) -> None:
    while part:
        part = part[os.write(number, part) :]


def _forget(number: int) -> None:
    """Ask the system to drop the file from its memory; some systems cannot be asked."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)


def _finish(device: str) -> None:
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()
