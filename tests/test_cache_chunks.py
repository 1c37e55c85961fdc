"""Chunks past HDF5: the bytes are those of its own filter, and no byte that differs from them is given out."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from feature_stores import features_of, make_key
from numpy.typing import NDArray

import claspkit.cache.chunks as chunks
from claspkit.cache.chunks import ChunkError, ImageWriter, Job, chunk_places, read_chunks
from claspkit.cache.fletcher import fletcher32
from claspkit.cache.layout import SCALES, create_dataset, open_hdf5
from claspkit.cache.quantise import quantise


def written(path: Path, dtype: str, images: int, direct: bool) -> dict[str, list[bytes]]:
    """The bytes of all chunks of a shard, written by us or through HDF5's filter."""
    with open_hdf5(str(path), "w") as file:
        dataset = create_dataset(file, make_key(dtype))
        parts = [dataset, dataset.parent[SCALES]] if dtype == "int8" else [dataset]
        writer = ImageWriter(dataset)
        for image in range(images):
            features = features_of(image, dtype)
            if direct:
                writer.append(features)
                continue
            for part, values in zip(parts, quantise(features) if dtype == "int8" else [features], strict=True):
                part.resize(image + 1, axis=0)
                part[image] = values
        found = {}
        for part in parts:
            corners = np.ndindex(*part.shape[:2])
            zeros = (0,) * (part.ndim - 2)
            found[part.name] = [bytes(part.id.read_direct_chunk((*corner, *zeros))[1]) for corner in corners]
        return found


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
def test_we_write_what_hdf5_would(dtype: str, tmp_path: Path) -> None:
    """Byte by byte, and HDF5 reads it with its checksums compared."""
    assert written(tmp_path / "ours", dtype, 3, True) == written(tmp_path / "hdf5", dtype, 3, False)
    with h5py.File(tmp_path / "ours") as file:
        for image in range(3):
            expected = quantise(features_of(image, dtype))[0] if dtype == "int8" else features_of(image, dtype)
            assert np.array_equal(file["features"][image], expected)


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, NDArray[np.int64]]:
    """A shard of two pictures, and where its chunks lie."""
    path = tmp_path / "shard"
    written(path, "float16", 2, True)
    with open_hdf5(str(path), "r") as file:
        return path, chunk_places(file["features"].id, path.stat().st_size)


def read(path: Path, places: NDArray[np.int64], row: int, helper: ThreadPoolExecutor | None = None) -> Any:
    """All layers of a picture."""
    out = np.zeros_like(features_of(row))
    wanted = [fletcher32(part) for part in features_of(row)]
    jobs = [Job(int(place), part, sums) for place, part, sums in zip(places[row], out, wanted, strict=True)]
    number = os.open(path, os.O_RDONLY)
    try:
        read_chunks(number, jobs, helper)
    finally:
        os.close(number)
    return out


@pytest.mark.parametrize("helped", [False, True])
def test_reading_past_hdf5(
    helped: bool, shard: tuple[Path, NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right values, alone and with a helping thread; a flipped bit anywhere and a file cut short are seen."""
    monkeypatch.setattr(chunks, "_SHARED_BYTES", 0)
    path, places = shard
    whole = path.read_bytes()
    size = features_of(0)[0].nbytes
    with ThreadPoolExecutor(1) as pool:
        helper = pool if helped else None
        for row in range(2):
            assert np.array_equal(read(path, places, row, helper), features_of(row))
        for place in places[1].tolist():
            for byte in (0, size // 2, size - 1):
                damaged = bytearray(whole)
                damaged[place + byte] ^= 8
                path.write_bytes(damaged)
                assert np.array_equal(read(path, places, 0, helper), features_of(0))
                with pytest.raises(ChunkError, match=f"at byte {place} "):
                    read(path, places, 1, helper)
        path.write_bytes(whole[: int(places[1].max()) + 5])
        with pytest.raises(ChunkError, match="ends at byte"):
            read(path, places, 1, helper)


def test_reads_that_the_system_cuts_short_are_continued(
    shard: tuple[Path, NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte, then a few more each time."""
    path, places = shard
    whole = os.preadv
    turns = iter(range(1, 100_000))

    def short(file: int, parts: list[memoryview], place: int) -> int:
        most = next(turns) % 397 + 1
        got = 0
        for part in parts:
            got += whole(file, [part[: most - got]], place + got) if most > got else 0
        return got

    monkeypatch.setattr(os, "preadv", short)
    assert np.array_equal(read(path, places, 1), features_of(1))


def chunk(image: int, layer: int, **changes: int) -> SimpleNamespace:
    """What HDF5 says of a chunk of 100 bytes."""
    said = {"byte_offset": 1000 + 104 * (2 * image + layer), "size": 104, "filter_mask": 0, **changes}
    return SimpleNamespace(chunk_offset=(image, layer, 0), **said)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (chunk(1, 1, size=105), "expected 104"),
        (chunk(1, 1, filter_mask=1), "expected 104"),
        (chunk(1, 1, byte_offset=1000), "overlap"),
        (chunk(1, 1, byte_offset=1311), "overlap"),
        (chunk(1, 1, byte_offset=1313), "inside the file"),
        (chunk(1, 1, byte_offset=-5), "inside the file"),
        (chunk(1, 0), "overlap"),
    ],
)
def test_an_index_that_lies_is_refused(last: SimpleNamespace, reason: str) -> None:
    """Chunks of another size, without checksum, over one another, outside the file, or missing."""
    said = [chunk(0, 0), chunk(0, 1), chunk(1, 0), last]

    def iterate(note: Any) -> None:
        for one in said:
            note(one)

    dataset = SimpleNamespace(shape=(2, 2, 50), dtype=np.dtype("<f2"), chunk_iter=iterate)
    with pytest.raises(ChunkError, match=reason):
        chunk_places(dataset, 1416)
    said[3] = chunk(1, 1)
    assert chunk_places(dataset, 1416).tolist() == [[1000, 1104], [1208, 1312]]
