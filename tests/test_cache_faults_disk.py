"""The command on disks of many sizes, all too small: exit code 5, the bytes needed, and every sealed shard intact."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fault_counts import tell

from claspkit.cache import FeatureStore, process
from claspkit.cache import extract as extraction
from claspkit.calib import features
from claspkit.calib.cli import main
from claspkit.calib.folder import RunFolder

SCRIPT = Path(__file__).with_name("command_server.py")
OPTIONS = ("cache", "build", "--model", "mini", "--per-class", "12", "--block-size", "2")
SHARD_BYTES = 700_000  # two pictures of mini
SIZES = 32


class Server:
    """Runs our commands in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self._said = folder / "said.txt"
        self._server = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def build(self, run: Path, *, blind: bool) -> tuple[int, str]:
        """Fill a run's cache; (exit code, what was printed)."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        arguments = [*OPTIONS, "--out", str(run)]
        asked = {"arguments": arguments, "said": str(self._said), "blind": blind, "shard_bytes": SHARD_BYTES}
        print(json.dumps(asked), file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline()), self._said.read_text()

    def close(self) -> None:
        """End it."""
        self._server.communicate()


class Here:
    """Runs our commands in this process, which is faster and shows no crash at its end."""

    def build(self, run: Path, *, blind: bool) -> tuple[int, str]:
        """As :meth:`Server.build`."""
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
            if blind:
                for module in (process, extraction):
                    patch.setattr(module, "require_space", lambda *_: None)
            patch.setattr(features, "extract", functools.partial(extraction.extract, shard_bytes=SHARD_BYTES))
            with pytest.raises(SystemExit) as stop:
                main([*OPTIONS, "--out", str(run)])
        return int(stop.value.code or 0), said.getvalue()


@dataclass(frozen=True)
class Prepared:
    """A finished cache to compare with, and what starts commands."""

    commands: Server | Here
    reference: Path

    def pictures(self, run: Path) -> int:
        """Pictures in a run's cache, each found equal to the reference's, bit for bit."""
        with FeatureStore.open(RunFolder(self.reference).features) as right:
            if not RunFolder(run).features.joinpath("manifest.jsonl").exists():
                return 0
            with FeatureStore.open(RunFolder(run).features) as store:
                assert store.verify().ok
                for image in store.digests:
                    layers = store.key.layers
                    assert np.array_equal(store.read(image, layers), right.read(image, layers))
                return len(store.digests)


def prepare(commands: Server | Here, folder: Path) -> Prepared:
    """A run of mini with its cache, built where there is room."""
    code, said = commands.build(folder / "reference", blind=False)
    assert code == 0, said
    return Prepared(commands, folder / "reference")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; :func:`resize` gives it its size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(disk: Path, free: int) -> None:
    """Leave ``free`` bytes of room, to the page."""
    used = shutil.disk_usage(disk).used
    subprocess.run(["mount", "-o", f"remount,size={used + free}", str(disk)], check=True)


def start_over(disk: Path, reference: Path) -> Path:
    """A copy of the run as it was before its cache."""
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    shutil.rmtree(disk / "run", ignore_errors=True)
    shutil.copytree(reference, disk / "run", ignore=shutil.ignore_patterns("cache"))
    return disk / "run"


def try_sizes(prepared: Prepared, disk: Path, sizes: list[int], *, blind: bool) -> tuple[int, int]:
    """Build on each; (pictures that were sealed, runs that sealed any)."""
    sealed = runs = 0
    for size in sizes:
        run = start_over(disk, prepared.reference)
        resize(disk, size)
        code, said = prepared.commands.build(run, blind=blind)
        assert code == 5, said
        assert "Traceback" not in said
        assert re.search(r"\d+ bytes needed|needs \d+ bytes", said), said
        pictures = prepared.pictures(run)
        sealed, runs = sealed + pictures, runs + bool(pictures)
        assert not list(RunFolder(run).features.glob("*.part"))
    return sealed, runs


def cache_bytes(run: Path) -> int:
    """Bytes of a run's shards."""
    with FeatureStore.open(RunFolder(run).features) as store:
        return store.nbytes


def test_a_disk_that_fills_up_ends_the_command_cleanly(disk: Path, tmp_path: Path) -> None:
    """Met in the middle of a shard: the shards before it are there and right."""
    prepared = prepare(Here(), tmp_path)
    sealed, _ = try_sizes(prepared, disk, [cache_bytes(prepared.reference) // 2], blind=True)
    assert 0 < sealed < prepared.pictures(prepared.reference)


@pytest.mark.long
@pytest.mark.parametrize("blind", [False, True])
def test_32_disks_too_small(blind: bool, disk: Path, tmp_path: Path) -> None:
    """Seen before writing, or (blind) met while writing; with room, the same command completes the run."""
    server = Server(tmp_path)
    try:
        prepared = prepare(server, tmp_path)
        size = cache_bytes(prepared.reference)
        sizes = [size * number // SIZES + 8192 * (number % 3) for number in range(SIZES)]
        sealed, runs = try_sizes(prepared, disk, sizes, blind=blind)
        when = "met while writing" if blind else "seen before writing"
        tell(f"disk full, {when}", SIZES, f"{SIZES} exit code 5 naming the bytes, {sealed} sealed pictures all right")
        assert runs >= SIZES // 2 if blind else sealed == 0
        resize(disk, 64 << 20)
        code, said = server.build(disk / "run", blind=False)
        assert (code, prepared.pictures(disk / "run")) == (0, prepared.pictures(prepared.reference)), said
    finally:
        server.close()
