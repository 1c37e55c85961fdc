"""A reader written from ``docs/format-cache.md`` alone, without our code, reads what we write."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from feature_stores import LAYERS, features_of, fill, name_of

from claspkit.cache import DTYPES, FeatureStore
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
        assert [bytes(row).hex() for row in data.attrs["images"]] == shard["images"]
        canonical = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert data.attrs["key"].decode() == hashlib.sha256(canonical).hexdigest()
        values = torch.from_numpy(data[shard["images"].index(image), key["layers"].index(layer)])
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
