"""Measuring the machine: figures that can be, no file left behind, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from claspkit.calib.probe import probe_disk, probe_machine, probe_matmul
from claspkit.profiles.errors import ResourceError, UsageError

SIZE = (1 << 20) + 12345


def test_a_disk_is_measured_and_left_clean(tmp_path: Path) -> None:
    """Speeds are positive, and a size that is no multiple of a block works."""
    write, read = probe_disk(tmp_path, SIZE)
    assert 0 < write < 1e13
    assert 0 < read < 1e13
    assert list(tmp_path.iterdir()) == []


def test_every_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes that the system cuts short are continued."""
    written, whole = 0, os.write

    def short(number: int, data: memoryview) -> int:
        nonlocal written
        count = whole(number, data[: max(1, len(data) // 3)])
        written += count
        return count

    monkeypatch.setattr(os, "write", short)
    probe_disk(tmp_path, SIZE)
    assert written == SIZE


def test_a_disk_that_is_too_full_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with both figures before anything is written; and when it fills up in between, a typed error."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * SIZE - 1))
    with pytest.raises(ResourceError, match=f"{SIZE} bytes.*{2 * SIZE - 1} are free.*--no-probe"):
        probe_disk(tmp_path, SIZE)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * SIZE))

    def full(number: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ResourceError, match=r"No space left.*--no-probe"):
        probe_disk(tmp_path, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_measuring(tmp_path: Path) -> None:
    """The nearest folder that exists is looked at; nothing is made and nothing is run."""
    machine = probe_machine(tmp_path / "runs" / "new", "no such device", speeds=False)
    assert (machine.folder, machine.write, machine.read, machine.flops) == (str(tmp_path), None, None, None)
    assert machine.free > 0
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_measured() -> None:
    """A rate that a CPU can have; a device that is not there is a typed error."""
    assert 1e6 < probe_matmul("cpu", size=64, seconds=0.01) < 1e15
    with pytest.raises(UsageError, match="'cuda:77' cannot be used"):
        probe_matmul("cuda:77", size=64, seconds=0.01)
