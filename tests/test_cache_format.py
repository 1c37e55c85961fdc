"""A reader written from ``docs/format-cache.md`` alone, without our code, reads what we write."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from feature_stores import LAYERS, assert_holds, features_of, fill, make_key, name_of, varied_features
from house import ROOT

from claspkit.cache import DTYPES, FeatureKey, FeatureStore
from claspkit.cache.layout import image_bytes
from claspkit.cache.tensors import to_tensor


def records_of(path: Path) -> list[dict[str, Any]]:
    """Section "Manifest"."""
    found = []
    for line in path.read_bytes().splitlines():
        checksum, body = line.split(b" ", 1)
        assert zlib.crc32(body) == int(checksum, 16)
        found.append(json.loads(body))
    return found


def read(folder: Path, image: str, layer: int) -> torch.Tensor:
    """Section "Reading one image", trusting the file."""
    first, *rest = records_of(folder / "manifest.jsonl")
    dropped = {record["file"] for record in rest if record["kind"] == "drop"}
    shards = [record for record in rest if record["kind"] == "shard" and record["file"] not in dropped]
    shard = next(record for record in shards if image in record["images"])
    path, key = folder / shard["file"], first["key"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
    with h5py.File(path) as file:
        data = file["features"]
        assert list(data.shape) == shard["shape"]
        assert data.attrs["version"] == first["version"]
        assert first["version"] == (2 if key["tokens"] is None or key["dtype"] == "int8" else 1)
        assert [bytes(row).hex() for row in data.attrs["images"]] == shard["images"]
        canonical = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert data.attrs["key"].decode() == hashlib.sha256(canonical).hexdigest()
        place = shard["images"].index(image), key["layers"].index(layer)
        values = torch.from_numpy(data[place])
        if key["dtype"] == "int8":
            values = (values * torch.from_numpy(file["scales"][place])).half()
    return values.view(torch.bfloat16) if key["dtype"] == "bfloat16" else values


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_page_is_enough_to_write_a_reader(dtype: str, tmp_path: Path) -> None:
    fill(tmp_path, range(3), per_shard=2, dtype=dtype)
    with FeatureStore.open(tmp_path, write=True) as store:
        store.drop(store.shards[0].file)
    fill(tmp_path, range(3), per_shard=2, dtype=dtype)
    for image in range(3):
        expected = to_tensor(np.ascontiguousarray(features_of(image, dtype)), dtype)
        for position, layer in enumerate(LAYERS):
            assert torch.equal(read(tmp_path, name_of(image), layer), expected[position])


COUNTS = (24, 7, 24, 40, 7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_page_is_enough_for_differing_token_counts(dtype: str, tmp_path: Path) -> None:
    """Shards of one count each, whatever the order of adding, and a grid per image."""
    with FeatureStore.open(tmp_path, make_key(dtype, tokens=None), write=True) as store:
        with store.writer() as writer:
            for image, count in enumerate(COUNTS):
                writer.add(name_of(image), varied_features(image, count, dtype), (1, count) if image else ())
        assert [entry.shape[2] for entry in store.shards] == list(COUNTS)
        assert [store.grid(name_of(image)) for image in range(3)] == [(), (1, 7), (1, 24)]
        for image, count in enumerate(COUNTS):
            assert store.shape(name_of(image)) == (len(LAYERS), count, 16)
            expected = varied_features(image, count, dtype)
            assert np.array_equal(store.read(name_of(image), LAYERS), expected)
            out = np.empty((1, count, 16), expected.dtype)
            assert np.array_equal(store.read(name_of(image), LAYERS[2:], out), expected[2:])
        with pytest.raises(ValueError, match="C-contiguous"):
            store.read(name_of(0), LAYERS[2:], np.empty((1, 25, 16), expected.dtype))
    for image, count in enumerate(COUNTS):
        expected = varied_features(image, count, dtype)
        assert torch.equal(read(tmp_path, name_of(image), LAYERS[1]), to_tensor(expected[1], dtype))
    grids = [record["grids"] for record in records_of(tmp_path / "manifest.jsonl")[1:]]
    assert grids == [[[]], [[1, 7]], [[1, 24]], [[1, 40]], [[1, 7]]]


def test_alike_images_share_a_shard(tmp_path: Path) -> None:
    """A shard is full by the bytes of its own images, and ends where the token count changes."""
    key = make_key(tokens=None)
    with FeatureStore.open(tmp_path, key, write=True) as store:
        with store.writer(shard_bytes=image_bytes(key, 40) * 2, expected=9) as writer:
            for image, count in enumerate((20, 20, 20, 20, 20, 40, 40, 40, 20)):
                writer.add(name_of(image), varied_features(image, count))
        assert [entry.shape[::2] for entry in store.shards] == [(3, 20), (2, 20), (2, 40), (1, 40), (1, 20)]
        assert store.verify().ok


@pytest.mark.parametrize(
    ("key", "shape", "grid"),
    [
        (make_key(tokens=None), (3, 0, 16), ()),
        (make_key(tokens=None), (3, 24), ()),
        (make_key(tokens=None), (3, 24, 17), ()),
        (make_key(tokens=None), (3, 24, 16), (0,)),
        (make_key(tokens=None), (3, 24, 16), (1,) * 9),
        (make_key(), (3, 24, 16), (1,)),
        (make_key(), (3, 25, 16), ()),
    ],
)
def test_what_does_not_fit_is_refused(
    key: FeatureKey, shape: tuple[int, ...], grid: tuple[int, ...], tmp_path: Path
) -> None:
    """A caller's mistake, said before anything is written; the writer goes on."""
    with FeatureStore.open(tmp_path, key, write=True) as store:
        with store.writer() as writer:
            with pytest.raises(ValueError, match=r"features must be|grid"):
                writer.add(name_of(0), np.zeros(shape, np.float16), grid)
            writer.add(name_of(0), features_of(0))
        assert store.missing([name_of(0)]) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_store_of_the_first_release_is_read_and_continued(dtype: str, tmp_path: Path) -> None:
    """Written by the code before version 2 existed, with one shard dropped; its lines stay what they are."""
    folder = tmp_path / "golden"
    shutil.copytree(ROOT / "tests" / "golden" / f"features-1-{dtype}", folder)
    before = (folder / "manifest.jsonl").read_bytes()
    with FeatureStore.open(folder, make_key(dtype)) as store:
        assert store.verify().ok
        assert store.shape(name_of(0)) == (3, 24, 16)
        assert store.grid(name_of(0)) == ()
        for image in range(3):
            assert np.array_equal(store.read(name_of(image), LAYERS), features_of(image, dtype))
    fill(folder, range(5), dtype=dtype)
    assert_holds(folder, range(5), dtype)
    assert (folder / "manifest.jsonl").read_bytes().startswith(before)
