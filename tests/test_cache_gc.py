"""Looking after a store: what is removed, what is rewritten, what must be computed anew, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from feature_stores import LAYERS, assert_holds, copy_of, features_of, fill, make_key, name_of, varied_features

from claspkit.cache import DTYPES, FeatureStore, GcReport
from claspkit.cache.layout import MANIFEST
from claspkit.profiles.errors import CorruptError, ResourceError, UsageError

PICTURES = range(12)
LEFTOVERS = ("shard-000001-00000000.h5", "shard-000001-11111111.h5.part")


def names(pictures: object) -> set[str]:
    """The digests of some pictures."""
    return {name_of(image) for image in pictures}  # type: ignore[attr-defined]


def size_of(folder: Path) -> int:
    """Bytes of all shards, listed or not."""
    return sum(path.stat().st_size for path in folder.glob("shard-*"))


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    """Twelve pictures in shards of four."""
    fill(tmp_path / "store", PICTURES, per_shard=4)
    return tmp_path / "store"


def test_gc_without_a_wish_list_removes_leftovers_only(store_folder: Path) -> None:
    """Also leftovers that appear while the store is open; the report counts their bytes."""
    (store_folder / LEFTOVERS[0]).write_bytes(b"x" * 100)
    with FeatureStore.open(store_folder, write=True) as store:
        (store_folder / LEFTOVERS[1]).write_bytes(b"x" * 23)
        assert store.gc() == GcReport(leftovers=LEFTOVERS, freed=123)
    assert_holds(store_folder, PICTURES)


def test_gc_drops_whole_shards_and_says_what_a_compaction_would_free(store_folder: Path) -> None:
    """Shards 0 (all wanted), 1 (none), 2 (one of four): the second goes, of the third three quarters could."""
    with FeatureStore.open(store_folder, write=True) as store:
        shards, before = store.shards, size_of(store_folder)
        found = store.gc(names([0, 1, 2, 3, 9, 99]))
        assert found == GcReport((), (shards[1].file,), (), 4, shards[1].bytes, shards[2].bytes * 3 // 4)
        assert size_of(store_folder) == before - found.freed
    assert_holds(store_folder, [0, 1, 2, 3, 8, 9, 10, 11])
    fill(store_folder, PICTURES)
    assert_holds(store_folder, PICTURES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_compaction_keeps_every_wanted_value(dtype: str, tmp_path: Path) -> None:
    """What is read afterwards is bit for bit what was read before, and the files shrink by what was reported."""
    fill(tmp_path, PICTURES, per_shard=4, dtype=dtype)
    wanted = [0, 1, 2, 3, 5, 8, 11]
    with FeatureStore.open(tmp_path, write=True) as store:
        values = {image: store.read(name_of(image), LAYERS).copy() for image in wanted}
        promised, before = store.gc(names(wanted)).compactable, size_of(tmp_path)  # shards with none go already here
        mixed = [entry.file for entry in store.shards if not set(entry.images) <= names(wanted)]
        unwanted = len(store.digests) - len(wanted)
        found = store.gc(names(wanted), compact=True)
        assert (found.images, found.compactable, found.rewritten, found.dropped) == (unwanted, 0, tuple(mixed), ())
        assert unwanted > 1
        assert found.freed == before - size_of(tmp_path)
        assert promised - 8192 * len(mixed) < found.freed <= promised  # HDF5's own structures do not shrink
        assert all(np.array_equal(store.read(name_of(image), LAYERS), values[image]) for image in wanted)
    with FeatureStore.open(tmp_path) as store:
        assert store.verify().ok
        assert set(store.digests) == names(wanted)
        assert all(np.array_equal(store.read(name_of(image), LAYERS), values[image]) for image in wanted)
        assert len(list(tmp_path.glob("shard-*"))) == len(store.shards)
    with FeatureStore.open(tmp_path, write=True) as store:
        assert store.gc(names(wanted), compact=True) == GcReport()


def test_a_compaction_keeps_sizes_and_grids(tmp_path: Path) -> None:
    """Where token counts differ from image to image."""
    sizes = {image: (6, 12)[image // 3 % 2] for image in PICTURES}
    wanted = [0, 2, 3, 7, 11]
    with FeatureStore.open(tmp_path, make_key(tokens=None), write=True) as store:
        with store.writer() as writer:
            for image, tokens in sizes.items():
                writer.add(name_of(image), varied_features(image, tokens), (1, 2, tokens // 2))
        assert store.gc(names(wanted), compact=True).images == 7
    with FeatureStore.open(tmp_path) as store:
        assert store.verify().ok
        assert store.digests == names(wanted)
        for image in wanted:
            assert np.array_equal(store.read(name_of(image), LAYERS), varied_features(image, sizes[image]))
            assert store.grid(name_of(image)) == (1, 2, sizes[image] // 2)


def test_a_compaction_of_a_damaged_shard_changes_nothing(store_folder: Path) -> None:
    """The damage is met while copying, after good pictures: the shard stays, with all its pictures, and no other."""
    with FeatureStore.open(store_folder) as store:
        victim = store_folder / store.shards[1].file
    data = bytearray(victim.read_bytes())
    data[data.index(features_of(7)[1].tobytes())] ^= 1
    victim.write_bytes(data)
    with FeatureStore.open(store_folder, write=True) as store:
        with pytest.raises(CorruptError, match=victim.name):
            store.gc(names([4, 5, 7]), compact=True)
        assert victim.name in {entry.file for entry in store.shards}
        assert np.array_equal(store.read(name_of(6), LAYERS), features_of(6))
    with FeatureStore.open(store_folder, write=True) as store:
        assert names(range(4, 8)) <= set(store.digests)
        assert store.repair().images == tuple(name_of(image) for image in range(4, 8))


def test_a_manifest_cut_between_the_lines_of_a_compaction_never_lies(store_folder: Path) -> None:
    """Cut anywhere in what a compaction appends: each picture is missing or has its own values, and fills again."""
    before = (store_folder / MANIFEST).stat().st_size
    old = {path.name: path.read_bytes() for path in store_folder.glob("shard-*.h5")}
    with FeatureStore.open(store_folder, write=True) as store:
        store.gc(names([0, 1, 4, 5, 6, 7, 8, 9, 10, 11]), compact=True)
    data = (store_folder / MANIFEST).read_bytes()
    assert data[before:].count(b"\n") == 2
    counts = set()
    for end in range(before, len(data) + 1, 29):
        copy = copy_of(store_folder, "cut")
        (copy / MANIFEST).write_bytes(data[:end])
        for name, content in old.items():  # the old shard is deleted after the append only
            (copy / name).write_bytes(content)
        with FeatureStore.open(copy, write=True) as store:
            assert store.verify().ok
            counts.add(len(store.digests))
            for image in PICTURES:
                if name_of(image) in store.digests:
                    assert np.array_equal(store.read(name_of(image), LAYERS), features_of(image))
    assert counts == {12, 8}
    fill(copy, PICTURES)
    assert_holds(copy, PICTURES)


def test_a_compaction_without_room_leaves_the_old_shard(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room for the new shard is asked for first."""
    from claspkit.cache import process

    monkeypatch.setattr(process, "free_bytes", lambda _: 10)
    with FeatureStore.open(store_folder, write=True) as store, pytest.raises(ResourceError, match="bytes needed"):
        store.gc(names([0, 5]), compact=True)
    assert_holds(store_folder, PICTURES)


def test_a_reader_of_a_collected_shard_gets_an_error_and_never_other_values(store_folder: Path) -> None:
    """A reader that opened before sees the file gone, not another image."""
    with FeatureStore.open(store_folder) as reader:
        with FeatureStore.open(store_folder, write=True) as store:
            store.gc(names(range(4)))
        assert np.array_equal(reader.read(name_of(2), LAYERS), features_of(2))
        with pytest.raises(CorruptError, match="missing"):
            reader.read(name_of(5), LAYERS)


def test_repair_drops_the_damaged_and_names_what_to_recompute(store_folder: Path) -> None:
    """A cut and a missing shard, and a leftover: everything else stays, and filling again completes the store."""
    with FeatureStore.open(store_folder) as store:
        first, _, third = (store_folder / entry.file for entry in store.shards)
    os.truncate(first, 1000)
    third.unlink()
    (store_folder / LEFTOVERS[0]).write_bytes(b"x")
    steps: list[tuple[int, int]] = []
    with FeatureStore.open(store_folder, write=True) as store:
        total = store.nbytes
        done = store.repair(lambda *step: steps.append(step))
        assert [shard.file for shard in done.found.bad] == [first.name, third.name]
        assert done.leftovers == (LEFTOVERS[0],)
        assert done.images == tuple(name_of(image) for image in [*range(4), *range(8, 12)])
        assert store.verify().ok
        assert store.repair().images == ()
    assert len(steps) == 3
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)
    assert_holds(store_folder, range(4, 8))
    fill(store_folder, PICTURES)
    assert_holds(store_folder, PICTURES)


def test_a_store_open_for_reading_is_not_tidied(store_folder: Path) -> None:
    """Both need the writer's lock."""
    with FeatureStore.open(store_folder, make_key()) as store:
        for action in (store.gc, store.repair):
            with pytest.raises(UsageError, match="write=True"):
                action()


def test_a_folder_that_cannot_be_made_is_a_matter_of_resources(tmp_path: Path) -> None:
    """A file stands in the way: a typed error with the reason."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match=r"cannot be opened for writing \(.*\): at least \d+ bytes needed"):
        FeatureStore.open(tmp_path / "file" / "store", make_key(), write=True)
