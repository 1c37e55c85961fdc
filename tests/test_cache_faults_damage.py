"""Bits flipped anywhere, files cut at every length: all detected, none used as features."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fault_counts import tell
from feature_stores import LAYERS, assert_holds, copy_of, features_of, fill, name_of

from claspkit.cache import FeatureStore, MissingImageError
from claspkit.cache.layout import MANIFEST
from claspkit.profiles.errors import CorruptError

PICTURES = range(6)
NOT_DETECTED = ""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures in three shards; not to be changed."""
    folder = tmp_path_factory.mktemp("stores") / "original"
    fill(folder, PICTURES, per_shard=2)
    return folder


def shards_of(folder: Path) -> list[Path]:
    """The files of its shards, in the order of the pictures."""
    with FeatureStore.open(folder) as store:
        return [folder / entry.file for entry in store.shards]


def detected(folder: Path) -> str:
    """How opening and verifying a store shows that it is damaged, if they do."""
    try:
        with FeatureStore.open(folder) as store:
            found = store.verify()
    except CorruptError:
        return "manifests refused"
    if found.bad:
        return "shards reported bad"
    return "shards reported unlisted" if found.strangers else NOT_DETECTED


def wrong_reads(folder: Path) -> int:
    """Pictures that come with values of something else; a typed error is the right answer of a damaged store."""
    wrong = 0
    for image in PICTURES:
        try:
            with FeatureStore.open(folder) as store:
                wrong += not np.array_equal(store.read(name_of(image), LAYERS), features_of(image))
        except (CorruptError, MissingImageError):
            continue
    return wrong


def flip(path: Path, offset: int, bit: int) -> None:
    """Turn one bit over in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize(("flips", "seed"), [(50, 0), pytest.param(500, 1, marks=pytest.mark.long)])
def test_every_flipped_bit_is_detected_and_none_is_used(flips: int, seed: int, original: Path, tmp_path: Path) -> None:
    """Four in five flips in shards, the others in the manifest, spread over every byte of them."""
    chance, folder = random.Random(seed), copy_of(original, f"flips-{seed}")
    files, outcomes, wrong = shards_of(folder), Counter[str](), 0
    for number in range(flips):
        path = folder / MANIFEST if number % 5 == 4 else files[number % 5 % len(files)]
        offset, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        flip(path, offset, bit)
        outcomes[detected(folder)] += 1
        wrong += wrong_reads(folder)
        flip(path, offset, bit)
    tell("single bit flipped in a shard or the manifest", flips, {**outcomes, "wrong values read": wrong})
    assert wrong == 0
    assert outcomes[NOT_DETECTED] == 0
    assert outcomes["shards reported bad"] == flips * 4 // 5
    assert outcomes["manifests refused"] > 0
    assert_holds(folder, PICTURES)


@pytest.mark.parametrize("step", [499, pytest.param(41, marks=pytest.mark.long)])
def test_a_shard_cut_at_any_length_is_detected(step: int, original: Path) -> None:
    """From an empty file to all but the last byte."""
    folder = copy_of(original, f"cuts-{step}")
    victim = shards_of(folder)[1]
    data, wrong, cases = victim.read_bytes(), 0, 0
    for length in [*range(0, len(data), step), len(data) - 1]:
        victim.write_bytes(data[:length])
        assert detected(folder) == "shards reported bad"
        wrong += wrong_reads(folder)
        cases += 1
    tell("shard truncated", cases, f"{cases} reported bad, {wrong} wrong values read")
    assert wrong == 0


def test_a_foreign_shard_beside_the_others_is_never_read(original: Path) -> None:
    """Named like a shard, full of other values for a picture of the store, but in no manifest."""
    folder = copy_of(original, "guest")
    other = folder.with_name("host")
    fill(other, [77])
    shutil.copy(next(other.glob("shard-*.h5")), folder / "shard-000000-00000000.h5")
    assert detected(folder) == "shards reported unlisted"
    assert wrong_reads(folder) == 0
    with FeatureStore.open(folder) as store:
        assert store.missing([name_of(77)]) == [name_of(77)]
