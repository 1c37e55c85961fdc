"""Stores that workers filled become one, whatever interrupts it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_stores import LAYERS, assert_holds, features_of, fill, make_key, name_of, shard_size, varied_features

from claspkit.cache import BadShard, FeatureStore
from claspkit.cache.layout import MANIFEST
from claspkit.cache.merge import merge
from claspkit.profiles.errors import CorruptError, MismatchError


def merged(target: Path, *sources: Path) -> list[int]:
    """Merge into ``target``; images that each source added."""
    with FeatureStore.open(target, make_key(), write=True) as store:
        return [merge(store, source) for source in sources]


def test_everything_moves_and_the_others_are_empty(tmp_path: Path) -> None:
    """Files move as they are: same bytes, new names."""
    fill(tmp_path / "a", range(5))
    fill(tmp_path / "b", range(5, 8))
    before = sorted(path.read_bytes() for path in tmp_path.glob("[ab]/shard-*"))
    assert merged(tmp_path / "s", tmp_path / "a", tmp_path / "b") == [5, 3]
    assert_holds(tmp_path / "s", range(8))
    assert_holds(tmp_path / "a", [])
    assert sorted(path.read_bytes() for path in tmp_path.glob("s/shard-*")) == before


def test_what_is_there_already_is_not_taken_twice(tmp_path: Path) -> None:
    """A shard of which some images are known gives only the others."""
    fill(tmp_path / "s", [1, 2])
    fill(tmp_path / "a", range(6), per_shard=4)
    assert merged(tmp_path / "s", tmp_path / "a") == [4]
    assert_holds(tmp_path / "s", range(6))
    assert merged(tmp_path / "s", tmp_path / "a") == [0]


def test_a_copy_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two file systems: the same end."""

    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    fill(tmp_path / "a", range(5))
    assert merged(tmp_path / "s", tmp_path / "a") == [5]
    assert_holds(tmp_path / "s", range(5))


@pytest.mark.parametrize("step", ["before the line", "before the drop"])
def test_an_interruption_loses_nothing(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between link and line, or between line and drop: the same call finishes."""
    fill(tmp_path / "a", range(6), per_shard=2)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    where = "_record" if step == "before the line" else "drop"
    with monkeypatch.context() as patched:
        patched.setattr(FeatureStore, where, stop)
        with pytest.raises(KeyboardInterrupt):
            merged(tmp_path / "s", tmp_path / "a")
    merged(tmp_path / "s", tmp_path / "a")
    assert_holds(tmp_path / "s", range(6))
    assert_holds(tmp_path / "a", [])


def test_grids_move_with_their_images(tmp_path: Path) -> None:
    """Whole shards and single images of differing token counts."""
    key = make_key(tokens=None)
    for name, images in (("s", (0,)), ("a", (0, 1, 2, 3))):
        with FeatureStore.open(tmp_path / name, key, write=True) as store, store.writer() as writer:
            for image in images:
                writer.add(name_of(image), varied_features(image, 10 + image // 2), (1, 10 + image))
    with FeatureStore.open(tmp_path / "s", key, write=True) as store:
        assert merge(store, tmp_path / "a") == 3
        for image in range(4):
            assert store.grid(name_of(image)) == (1, 10 + image)
            assert np.array_equal(store.read(name_of(image), LAYERS), varied_features(image, 10 + image // 2))


def test_another_key_or_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    """Nothing moves from a store of another model; a truncated shard is named."""
    with FeatureStore.open(tmp_path / "b", make_key(fingerprint="9" * 64), write=True) as other:
        other.close()
    with pytest.raises(MismatchError, match="fingerprint"):
        merged(tmp_path / "s", tmp_path / "b")
    fill(tmp_path / "a", range(2))
    (shard,) = (tmp_path / "a").glob("shard-*.h5")
    os.truncate(shard, 100)
    with pytest.raises(CorruptError, match=shard.name):
        merged(tmp_path / "s", tmp_path / "a")
    assert (tmp_path / "a" / MANIFEST).is_file()
    assert_holds(tmp_path / "s", [])


@pytest.mark.parametrize("known", [(), (0, 4)])
def test_damaged_shards_are_dropped_where_the_caller_wants_to_hear_of_them(
    known: tuple[int, ...], tmp_path: Path
) -> None:
    """Cut short, or, where single images are read, damaged in the midst: what is whole moves, the rest is named."""
    fill(tmp_path / "s", known)
    fill(tmp_path / "a", range(8), per_shard=4)
    first, second = sorted((tmp_path / "a").glob("shard-*.h5"))
    os.truncate(first, 100)
    if known:
        data = bytearray(second.read_bytes())
        at = data.index(features_of(6)[1].tobytes())
        data[at + 3] ^= 1
        second.write_bytes(data)
    else:
        second.write_bytes(bytes(second.stat().st_size))
    lost: list[BadShard] = []
    with FeatureStore.open(tmp_path / "s", make_key(), write=True) as store:
        assert merge(store, tmp_path / "a", lost.append) == (1 if known else 0)
    assert [shard.file for shard in lost] == [first.name, second.name]
    expected = [[1, 2, 3], [6, 7]] if known else [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [list(shard.images) for shard in lost] == [[name_of(image) for image in images] for images in expected]
    assert "100 bytes" in lost[0].reason
    assert_holds(tmp_path / "s", [0, 4, 5] if known else [])
    assert_holds(tmp_path / "a", [])


def test_a_shard_with_a_known_image_is_not_adopted(tmp_path: Path) -> None:
    """The writer itself refuses what would list an image twice."""
    fill(tmp_path / "a", range(2))
    with (
        FeatureStore.open(tmp_path / "a", make_key()) as other,
        FeatureStore.open(tmp_path / "s", make_key(), write=True) as store,
        store.writer(shard_bytes=shard_size(4)) as writer,
    ):
        writer.add(name_of(1), features_of(1))
        with pytest.raises(ValueError, match="already"):
            writer.adopt(other.folder / other.shards[0].file, other.shards[0])
    assert_holds(tmp_path / "s", [1])
