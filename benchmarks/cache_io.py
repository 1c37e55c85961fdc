"""How fast the feature cache is against plain files: writing, random reading, a few layers of many, reading ahead.

    python benchmarks/cache_io.py [--folder FOLDER ...] [--pictures 45] [--repeats 5] [--layers 24] [--json]

Records are LLaVA-1.5's: 24 layers x 576 tokens x 1024 channels in float16, 28.3 MB. The other side of every ratio is
the same bytes in the same folder in the same turn: written with write() and one fsync() a shard, read with preadv()
into memory that is there already. Cold means that the system was asked to drop the files from its memory first. First
is the first read of a process: shards are opened and examined, checksums compared; again is every later one, for which
that is known. What checksums cost stands in rows of its own. Figures are medians of the turns, ratios of each turn.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from _common import Row, show
from PIL import Image
from torch import Tensor

from claspkit.cache import FeatureKey, FeatureStore, process
from claspkit.cache.encoder import LoadedEncoder, feature_key
from claspkit.cache.extract import extract
from claspkit.cache.fletcher import fletcher32
from claspkit.cache.layout import SHARD_BYTES, image_bytes, images_per_shard
from claspkit.cache.pool import Verify
from claspkit.cache.prefetch import Prefetcher
from claspkit.mini.corpus import draw_pictures
from claspkit.runtime.models import load_model

TOKENS, WIDTH = 576, 1024
FEW = 5
BARS = {"write": 0.9, "read": 0.9, "few, cold": 0.9, "few, warm": 0.5}
MAX_SHARDS_IN_MEMORY = 4


def make_key(layers: int) -> FeatureKey:
    """The key of LLaVA-1.5's records."""
    return FeatureKey("benchmark", None, "0" * 64, "0" * 64, "none", "float16", tuple(range(layers)), TOKENS, WIDTH)


def name_of(picture: int) -> str:
    """The digest of picture number ``picture``."""
    return hashlib.sha256(f"{picture}".encode()).hexdigest()


class Bench:
    """Store and plain files with the same contents, in one folder."""

    def __init__(self, folder: Path, pictures: int, layers: int) -> None:
        self.folder = folder
        self.key = make_key(layers)
        self.per_shard = images_per_shard(self.key, SHARD_BYTES)
        self.pictures = pictures
        self.peak = 0
        generator = np.random.default_rng(0)
        values = generator.standard_normal((layers, TOKENS, WIDTH), dtype=np.float32).astype(np.float16)
        # Every record differs from the next; drawing each anew would take longer than writing it.
        self.records = [np.roll(values, step, axis=0) for step in range(4)]
        self.out = np.empty_like(values)
        self.out[:] = 0  # its pages are there before anything is timed

    @property
    def bytes(self) -> int:
        """Bytes of all pictures' values."""
        return self.pictures * self.out.nbytes

    def files(self) -> list[Path]:
        """All files, of the store and plain."""
        return [path for part in ("store", "raw") for path in sorted((self.folder / part).glob("*")) if path.is_file()]

    def write_raw(self) -> float:
        """Seconds to write the records into plain files, as many a file as a shard has, each made durable."""
        shutil.rmtree(self.folder / "raw", ignore_errors=True)
        (self.folder / "raw").mkdir()
        started = time.perf_counter()
        for first in range(0, self.pictures, self.per_shard):
            number = os.open(self.folder / "raw" / f"{first}", os.O_CREAT | os.O_WRONLY)
            for picture in range(first, min(first + self.per_shard, self.pictures)):
                part = self.records[picture % 4].data.cast("B")
                while part:
                    part = part[os.write(number, part) :]
            os.fsync(number)
            os.close(number)
        return time.perf_counter() - started

    def write_store(self) -> float:
        """Seconds to add the records to a new store; the writing process has started by then."""
        shutil.rmtree(self.folder / "store", ignore_errors=True)
        with (
            FeatureStore.open(self.folder / "store", self.key, write=True) as store,
            store.writer(expected=self.pictures) as writer,
        ):
            writer.add(name_of(-1), self.records[0])
            writer.flush()
            started = time.perf_counter()
            for picture in range(self.pictures):
                writer.add(name_of(picture), self.records[picture % 4])
            writer.flush()
            spent = time.perf_counter() - started
            self.peak = max(self.peak, *map(peak_memory, children()))
        return spent

    def read_raw(self, picks: Sequence[tuple[int, Sequence[int]]]) -> float:
        """Seconds to read layers of pictures from the plain files into one array."""
        numbers = {
            first: os.open(self.folder / "raw" / f"{first}", os.O_RDONLY)
            for first in range(0, self.pictures, self.per_shard)
        }
        size = self.out[0].nbytes
        started = time.perf_counter()
        for picture, layers in picks:
            row = picture % self.per_shard
            base = row * self.out.nbytes
            for first, count, place in runs(layers):
                part = self.out[place : place + count].data.cast("B")
                got = 0
                while got < len(part):
                    got += os.preadv(numbers[picture - row], [part[got:]], base + first * size + got)
        spent = time.perf_counter() - started
        for number in numbers.values():
            os.close(number)
        return spent

    def read_first(self, picks: Sequence[tuple[int, Sequence[int]]], verify: Verify = "chunks") -> float:
        """Seconds to open the store and read the same from it."""
        started = time.perf_counter()
        with FeatureStore.open(self.folder / "store", self.key, verify=verify) as store:
            self.read_store(store, picks)
            return time.perf_counter() - started

    def read_store(self, store: FeatureStore, picks: Sequence[tuple[int, Sequence[int]]]) -> float:
        """Seconds to read the same from an open store."""
        started = time.perf_counter()
        for picture, layers in picks:
            store.read(name_of(picture), layers, out=self.out[: len(layers)])
        return time.perf_counter() - started

    def read_ahead(self, picks: Sequence[tuple[int, Sequence[int]]]) -> float:
        """Seconds to go through the same in a background thread's buffers, those allocated included."""
        started = time.perf_counter()
        with FeatureStore.open(self.folder / "store", self.key) as store:
            with Prefetcher(store, [(name_of(picture), layers) for picture, layers in picks]) as items:
                for _ in items:
                    pass
            return time.perf_counter() - started

    def forget(self) -> None:
        """Ask the system to drop all files from its memory."""
        for path in self.files():
            number = os.open(path, os.O_RDONLY)
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(number)


def runs(layers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Neighbouring layers as (first, count, place among ``layers``): what one call reads from a plain file."""
    place = 0
    while place < len(layers):
        count = 1
        while place + count < len(layers) and layers[place + count] == layers[place] + count:
            count += 1
        yield layers[place], count, place
        place += count


@contextmanager
def unchecked() -> Iterator[None]:
    """Let writing processes compute no checksum and no digest: for the price only, nothing else can do this."""
    without = (
        "from claspkit.cache import child, chunks; chunks.fletcher32 = lambda values: 0; "
        "child.hashlib.file_digest = lambda file, name: (file.seek(0, 2), child.hashlib.sha256())[1]; "
    )
    with patch.object(process, "_START", process._START.replace("from ", without + "from ", 1)):
        yield


def turns(
    repeats: int,
    ours: Callable[[], float],
    plain: Callable[[], float],
    before: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Medians of our seconds and of plain / ours, the two taken in turn, ``before`` done before each."""
    times = []
    for _ in range(repeats):
        before()
        mine = ours()
        before()
        times.append((mine, plain()))
    return median(mine for mine, _ in times), median(other / mine for mine, other in times)


def io_rows(bench: Bench, repeats: int, label: str) -> list[Row]:
    """Rows of one folder."""
    rows = []

    def add(what: str, size: float, measured: tuple[float, float], bar: str | None) -> None:
        seconds, ratio = measured
        rows.append(Row(f"{label}: {what}", size / seconds / 1e9, "GB/s"))
        limit = BARS[bar] if bar else None
        holds = None if limit is None else ratio >= limit
        rows.append(Row(f"{label}: {what}, of plain files", ratio, "x", f">= {limit}" if limit else "", holds))

    bench.write_raw()
    with unchecked():
        add("write, no checksums", bench.bytes, turns(repeats, bench.write_store, bench.write_raw), None)
    add("write", bench.bytes, turns(repeats, bench.write_store, bench.write_raw), "write")
    random = np.random.default_rng(1)
    layers = list(bench.key.layers)
    order = random.permutation(bench.pictures).tolist()
    few = sorted(random.choice(len(layers), FEW, replace=False).tolist())
    whole, some = [(picture, layers) for picture in order], [(picture, few) for picture in order]
    with FeatureStore.open(bench.folder / "store", bench.key) as store:
        bench.read_store(store, whole)  # all of it is in memory from here on, and known to fit its checksums
        for what, picks, warm, cold in (
            ("all layers", whole, "read", "read"),
            (f"{FEW} of {len(layers)} layers", some, "few, warm", "few, cold"),
        ):
            size = len(picks) * len(picks[0][1]) * bench.out[0].nbytes
            first, again = partial(bench.read_first, picks), partial(bench.read_store, store, picks)
            plain, ahead = partial(bench.read_raw, picks), partial(bench.read_ahead, picks)
            add(f"{what}, warm, again", size, turns(repeats, again, plain), warm)
            add(f"{what}, warm, first", size, turns(repeats, first, plain), warm)
            if label != "tmpfs":
                add(f"{what}, cold, first", size, turns(repeats, first, plain, bench.forget), cold)
                add(f"{what}, cold, first, read ahead", size, turns(repeats, ahead, plain, bench.forget), None)
                add(f"{what}, cold, again", size, turns(repeats, again, plain, bench.forget), cold)
        size, strict = len(whole) * bench.out.nbytes, partial(bench.read_first, whole, "shards")
        add("all layers, warm, first, SHA-256 too", size, turns(repeats, strict, partial(bench.read_raw, whole)), None)
    return rows


def children() -> list[int]:
    """Process ids of this process's children."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def peak_memory(pid: int) -> int:
    """Bytes of memory that a process has had at most, shared memory included."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def memory_row(key: FeatureKey, peak: int) -> Row:
    """The writing process at the end of a run of several shards."""
    shard = images_per_shard(key, SHARD_BYTES) * image_bytes(key)
    bar = f"<= {MAX_SHARDS_IN_MEMORY}"
    return Row("memory of the writing process", peak / shard, "shards", bar, peak <= MAX_SHARDS_IN_MEMORY * shard)


def checksum_rows() -> list[Row]:
    """What the checksums of a chunk and of a shard cost by themselves."""
    chunk = np.random.default_rng(2).integers(0, 256, TOKENS * WIDTH * 2, dtype=np.uint8)
    rows = []
    for name, work in (("fletcher32", fletcher32), ("SHA-256", lambda data: hashlib.sha256(data).digest())):
        best = min(_seconds(work, chunk) for _ in range(50))
        rows.append(Row(f"{name}, one thread", chunk.nbytes / best / 1e9, "GB/s"))
    return rows


def _seconds(work: Callable[[Any], object], data: Any) -> float:
    started = time.perf_counter()
    work(data)
    return time.perf_counter() - started


class Counting:
    """An encoder that counts the pictures that it is given."""

    def __init__(self, encoder: LoadedEncoder) -> None:
        self.seen = 0
        self._encoder = encoder

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """As the encoder's own."""
        self.seen += len(images)
        return self._encoder.encode(images)


def passes_row(folder: Path) -> Row:
    """Vision passes per unique picture: mini, 40 samples that share 16 pictures, asked for in two runs."""
    loaded = load_model("mini")
    encoder = Counting(LoadedEncoder(loaded))
    pictures = [Image.fromarray(picture) for picture in draw_pictures(seed=5, count=16)]
    shared = [*pictures, *pictures, *pictures[:8]]
    samples = {hashlib.sha256(picture.tobytes()).hexdigest(): partial(Image.Image.copy, picture) for picture in shared}
    with FeatureStore.open(folder / "mini", feature_key(loaded), write=True) as store:
        for part in (dict(list(samples.items())[:8]), samples):
            extract(encoder, part, store, batch_size=1)
        ratio = encoder.seen / len(store.digests)
    return Row("vision passes per unique picture", ratio, "passes", "1.00", ratio == 1.0 and len(samples) == 16)


def file_system(folder: Path) -> str:
    """Say "tmpfs" for a folder that lies in memory, else "disk"."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(len(place), kind) for place, kind in mounts if folder.resolve().is_relative_to(place)]
    return "tmpfs" if max(holding)[1] == "tmpfs" else "disk"


def main() -> None:
    """Print the rows of every folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", action="append", type=Path, help="where to write, several times")
    parser.add_argument("--pictures", type=int, default=45)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    rows, peak = checksum_rows(), 0
    for folder in options.folder or [Path(tempfile.gettempdir())]:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            bench = Bench(Path(place), options.pictures, options.layers)
            rows += io_rows(bench, options.repeats, file_system(folder))
            peak = max(peak, bench.peak)
    rows.append(memory_row(make_key(options.layers), peak))
    with tempfile.TemporaryDirectory() as place:
        rows.append(passes_row(Path(place)))
    show("The feature cache against plain files", rows, options.json)


if __name__ == "__main__":
    main()
