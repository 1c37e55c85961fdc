"""Damage is noticed, named and repaired; it is never read as features."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from feature_stores import LAYERS, assert_holds, copy_of, features_of, fill, make_key, name_of

from claspkit.cache import FeatureStore
from claspkit.cache.layout import MANIFEST
from claspkit.cache.pool import Verify
from claspkit.profiles.errors import ClaspError, CorruptError
from claspkit.profiles.records import RecordLog, read_records

PICTURES = range(6)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures in shards of two; not to be changed."""
    folder = tmp_path_factory.mktemp("stores") / "original"
    fill(folder, PICTURES, per_shard=2)
    return folder


@pytest.fixture
def sound(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(original, tmp_path / "sound"))


def flip(path: Path, offset: int, bit: int) -> None:
    """Turn one bit of a file over."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def second_shard(folder: Path) -> Path:
    """The file of the shard with pictures 2 and 3."""
    with FeatureStore.open(folder) as store:
        return folder / store.shards[1].file


def assert_noticed_and_repaired(folder: Path, reason: str, repair: bool = True) -> None:
    """Pictures 2 and 3 cannot be read, the others can; dropping and filling again restores the store.

    ``reason`` is what a reader says that compares whole shards; one that compares chunks may find something else first.
    """
    ways: tuple[tuple[Verify, str | None], ...] = (("shards", reason), ("chunks", None))
    for verify, why in ways:
        with FeatureStore.open(folder, verify=verify, repair="claspkit repair-it") as store:
            victim = store.shards[1].file
            for image in PICTURES:
                if image not in {2, 3}:
                    assert np.array_equal(store.read(name_of(image), LAYERS), features_of(image))
                    continue
                with pytest.raises(CorruptError, match=why) as caught:
                    store.read(name_of(image), LAYERS)
                for part in (victim, name_of(image), "claspkit repair-it"):
                    assert part in str(caught.value)
    if repair:
        with FeatureStore.open(folder, write=True) as store:
            assert [item.file for item in store.verify().bad] == [victim]
            store.drop(victim)
        fill(folder, PICTURES, per_shard=2)
        assert_holds(folder, PICTURES)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def _rename(path: Path) -> None:
    path.rename(path.with_name("shard-000009-00000000.h5"))


def _swap_for_another_shard(path: Path) -> None:
    first = min(path.parent.glob("shard-*"))
    shutil.copy(first, path)


def _link_to_itself_elsewhere(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere.h5"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _hard_link_to_another(path: Path) -> None:
    path.unlink()
    path.hardlink_to(min(path.parent.glob("shard-*")))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _foreign(**changes: object) -> Callable[[Path], None]:
    """The shard of another store, of the same pictures with other values, in a shard's place."""

    def damage(path: Path) -> None:
        other, key = path.parent.with_name("other"), make_key(**changes)  # type: ignore[arg-type]
        with FeatureStore.open(other, key, write=True) as store, store.writer() as writer:
            for image in (2, 3):
                writer.add(name_of(image), features_of(image + 50, key.dtype))
        shutil.copy(next(other.glob("shard-*.h5")), path)

    return damage


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _unlink(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "bytes, the manifest promises"),
        (_empty, "has 0 bytes"),
        (_grow, "bytes, the manifest promises"),
        (_rename, "missing"),
        (_unlink, "missing"),
        (_swap_for_another_shard, "sha256"),
        (_link_to_itself_elsewhere, "is a link"),
        (_hard_link_to_another, "sha256"),
        (_pipe, "special file"),
        (_foreign(), "sha256"),
        (_foreign(dtype="bfloat16"), "bytes, the manifest promises"),
        (_foreign(processor_sha256="9" * 64), "sha256"),
    ],
    ids=[
        *("truncated", "empty", "grown", "renamed", "missing", "another copied", "linked elsewhere"),
        *("linked to another", "pipe", "same key", "another dtype", "another processor"),
    ],
)
def test_a_shard_that_is_not_the_one(damage: Callable[[Path], None], reason: str, sound: Path) -> None:
    damage(second_shard(sound))
    assert_noticed_and_repaired(sound, reason)


def test_a_folder_instead_of_a_shard(sound: Path) -> None:
    _folder(second_shard(sound))
    assert_noticed_and_repaired(sound, "special file", repair=False)
    with FeatureStore.open(sound, write=True) as store:
        victim = store.shards[1].file
        store.drop(victim)
    with FeatureStore.open(sound, write=True) as store:
        assert (store.cleaned, store.verify().ok, store.verify().strangers) == ((), True, (victim,))


def test_a_shard_of_a_store_with_another_key(sound: Path, tmp_path: Path) -> None:
    """Also without the SHA-256, the shard's own attributes give it away."""
    key, other = make_key(), tmp_path / "other"
    with FeatureStore.open(other, make_key(fingerprint="9" * 64), write=True) as store, store.writer() as writer:
        writer.add(name_of(2), features_of(2))
        writer.add(name_of(3), features_of(3))
    foreign, victim = next(other.glob("shard-*")), second_shard(sound)
    assert foreign.stat().st_size == victim.stat().st_size
    shutil.copy(foreign, victim)
    with (
        FeatureStore.open(sound, key) as store,
        pytest.raises(CorruptError, match="another store"),
    ):
        store.read(name_of(2), LAYERS)
    assert_noticed_and_repaired(sound, "sha256")


def test_a_manifest_of_an_earlier_release(sound: Path) -> None:
    """It lists no checksums of chunks: whole shards are compared instead, and a flipped bit is found as before."""
    lines = read_records(sound / MANIFEST)
    (sound / MANIFEST).unlink()
    with RecordLog(sound / MANIFEST) as log:
        log.append([{name: value for name, value in line.items() if name != "checksums"} for line in lines])
    assert_holds(sound, PICTURES)
    victim = second_shard(sound)
    flip(victim, victim.read_bytes().index(features_of(3)[1].tobytes()) + 7, 2)
    with FeatureStore.open(sound) as store, pytest.raises(CorruptError, match="sha256"):
        store.read(name_of(2), (0,))


def test_a_shard_damaged_after_its_first_read(sound: Path) -> None:
    """Whoever writes into a shard moves its time, and all is compared anew: the chunks, and if asked the file."""
    victim = second_shard(sound)
    needle = features_of(3)[1].tobytes()
    place = victim.read_bytes().index(needle) + 7
    with FeatureStore.open(sound) as store, FeatureStore.open(sound, verify="shards") as strict:
        for reader in (store, strict):
            reader.read(name_of(3), LAYERS)
        flip(victim, place, 2)
        assert np.array_equal(store.read(name_of(3), (0, 5)), features_of(3)[[0, 2]])
        for _ in range(2):
            with pytest.raises(CorruptError, match="do not fit their checksum"):
                store.read(name_of(3), (2,))
            with pytest.raises(CorruptError, match="sha256"):
                strict.read(name_of(2), (0,))
        flip(victim, place, 2)
        for reader in (store, strict):
            assert np.array_equal(reader.read(name_of(3), LAYERS), features_of(3))


def test_flipped_bits_in_values_are_noticed_without_the_sha256(sound: Path) -> None:
    chance, victim = random.Random(6), second_shard(sound)
    start = victim.read_bytes().index(features_of(2)[0].tobytes())
    for _ in range(20):
        copy = copy_of(sound, "flipped")
        flip(copy / victim.name, start + chance.randrange(features_of(2)[0].nbytes), chance.randrange(8))
        with FeatureStore.open(copy) as store, pytest.raises(CorruptError, match=victim.name):
            store.read(name_of(2), (0,))


def assert_last_shard_is_missing(folder: Path, repair: bool) -> None:
    """Pictures 4 and 5 are missing, the others have their values; filling again brings them back."""
    with FeatureStore.open(folder) as store:
        assert store.missing(map(name_of, PICTURES)) == [name_of(4), name_of(5)]
        for image in range(4):
            assert np.array_equal(store.read(name_of(image), LAYERS), features_of(image))
    if repair:
        fill(folder, PICTURES, per_shard=2)
        assert_holds(folder, PICTURES)


def test_no_flipped_bit_in_the_manifest_changes_a_value(sound: Path) -> None:
    """Either the manifest is refused, or it is the last line: then its pictures are missing, and only those."""
    chance = random.Random(7)
    size = (sound / MANIFEST).stat().st_size
    lines = (sound / MANIFEST).read_bytes().splitlines(keepends=True)
    last = size - len(lines[-1])
    refused = lost = 0
    for part in range(40):
        copy = copy_of(sound, "flipped")
        offset = int((part + chance.random()) * size / 40)
        flip(copy / MANIFEST, offset, chance.randrange(8))
        if offset < last:
            with pytest.raises(CorruptError, match=MANIFEST):
                fill(copy, PICTURES, per_shard=2)
            refused += 1
        else:
            assert_last_shard_is_missing(copy, repair=lost == 0)
            lost += 1
    assert refused > 20
    assert lost > 3


def test_a_manifest_cut_anywhere_in_its_last_line_loses_only_that_shard(sound: Path) -> None:
    data = (sound / MANIFEST).read_bytes()
    last = data.rindex(b"\n", 0, len(data) - 1) + 1
    for end in range(last, len(data), 41):
        copy = copy_of(sound, "cut")
        (copy / MANIFEST).write_bytes(data[:end])
        assert_last_shard_is_missing(copy, repair=end == last)


@pytest.mark.parametrize("text", [b"\0" * 100, b"rubbish\nrubbish\n", b'00000000 {"kind": "store"}\n\n'])
def test_rubbish_for_a_manifest(text: bytes, sound: Path) -> None:
    (sound / MANIFEST).write_bytes(text)
    for write in (False, True):
        with pytest.raises(ClaspError, match=MANIFEST):
            FeatureStore.open(sound, make_key(), write=write)
    assert len(list(sound.glob("shard-*"))) == 3
