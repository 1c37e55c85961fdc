"""Pictures on their way to the writing process: memory that both see, of any size, reused without a mix-up."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from feature_stores import features_of, make_key, name_of, shard_size

from claspkit.cache import FeatureStore
from claspkit.cache.exchange import Slots, shared_file
from claspkit.profiles.errors import ResourceError


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_pictures_of_many_sizes_in_a_row(dtype: str, tmp_path: Path) -> None:
    """Small after large and large after small: each keeps its own values, however far behind the writing is."""
    counts = [3, 3, 3, 900, 900, 5, 3, 901, 2]
    with FeatureStore.open(tmp_path, make_key(dtype, tokens=None), write=True) as store:
        with store.writer(shard_bytes=shard_size(2)) as writer:
            for image, tokens in enumerate(counts):
                writer.add(name_of(image), np.full((3, tokens, 16), image, np.float16), grid=(tokens, image + 1))
        for image, tokens in enumerate(counts):
            assert store.grid(name_of(image)) == (tokens, image + 1)
            features = store.read(name_of(image), store.key.layers)
            assert features.shape == (3, tokens, 16)
            assert np.allclose(features, image, rtol=1e-3)
        assert store.verify().ok


def test_no_memory_for_a_picture_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed error that names the bytes; nothing is left behind."""

    def full(self: Slots, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Slots, "grow", full)
    with (
        FeatureStore.open(tmp_path, make_key(), write=True) as store,
        store.writer() as writer,
        pytest.raises(ResourceError, match=f"no memory for 2 images of {features_of(0).nbytes} bytes"),
    ):
        writer.add(name_of(0), features_of(0))
    assert list(tmp_path.glob("shard-*")) == []


def test_slots_are_shared_and_grow() -> None:
    """What one side writes the other sees, also after the file has grown; all of it is there when grown."""
    here = shared_file()
    writing, reading = Slots(here), Slots(os.dup(here))
    for size in (10, 3_000_000):
        writing.grow(2 * size)
        for start in (0, size):
            writing.view(start, size)[:] = start // size + 1
        assert reading.view(0, 2 * size).tolist() == [1] * size + [2] * size
    writing.grow(5)
    assert os.fstat(here).st_size == 6_000_000
    writing.close()
    writing.close()
    reading.close()


def test_a_system_without_memory_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary file without a name does as well."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    slots = Slots(shared_file())
    slots.grow(5000)
    slots.view(4000, 1000)[:] = 7
    assert slots.view(3999, 2).tolist() == [0, 7]
    slots.close()
