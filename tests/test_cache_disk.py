"""A full disk is a typed error that says how much is needed; nothing finished is lost and nothing crashes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from feature_stores import assert_holds, features_of, fill, make_key, name_of

from claspkit.cache import FeatureStore, process
from claspkit.cache.layout import image_bytes, shard_bytes_needed
from claspkit.profiles.errors import ResourceError

SIZES_KB = (160, 200, 264, 400)
MORE_SIZES_KB = range(110, 460, 11)  # about every place in a shard at which the space can end
PICTURES = 240  # about 560 KB: more than any of the file systems holds


@pytest.fixture(params=[*SIZES_KB, *(pytest.param(size, marks=pytest.mark.long) for size in MORE_SIZES_KB)])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of that many KB, mounted for the test."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    """Make room, as the error told the user to."""
    subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)


def fill_until_full(store_folder: Path) -> tuple[int, str]:
    """Add pictures until the error comes; (pictures in the store, the error's text)."""
    with pytest.raises(ResourceError) as caught:
        fill(store_folder, range(PICTURES), per_shard=8)
    with FeatureStore.open(store_folder) as store:
        count = len(store.digests)
    assert_holds(store_folder, range(count))
    return count, str(caught.value)


@pytest.mark.parametrize("small_disk", [200, 400], indirect=True)
def test_checked_before_a_shard(small_disk: Path) -> None:
    count, text = fill_until_full(small_disk / "store")
    numbers = re.search(r"(\d+) bytes needed, (\d+) free", text)
    assert numbers, text
    assert int(numbers[1]) == shard_bytes_needed(make_key(), 8) > int(numbers[2])
    enlarge(small_disk)
    fill(small_disk / "store", range(PICTURES), per_shard=8)
    assert_holds(small_disk / "store", range(PICTURES))
    assert count % 8 == 0


def test_met_inside_hdf5(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program took the space after the check: the child meets the full disk, this process an error."""
    with monkeypatch.context() as patch:
        patch.setattr(process, "require_space", lambda *_: None)
        _, text = fill_until_full(small_disk / "store")
    assert re.search(r"the disk is full: .* needs \d+ bytes, \d+ are free now|no room for .* \d+ bytes", text), text
    enlarge(small_disk)
    fill(small_disk / "store", range(PICTURES), per_shard=8)
    assert_holds(small_disk / "store", range(PICTURES))


def test_the_last_shard_asks_for_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(process, "require_space", lambda folder, needed, what: asked.append(needed))
    fill(tmp_path, range(10), per_shard=4)
    assert asked == [shard_bytes_needed(make_key(), images) for images in (4, 4, 2)]


@pytest.mark.parametrize("images", [1, 7, 64])
def test_the_estimate_is_enough_and_not_wild(images: int, tmp_path: Path) -> None:
    fill(tmp_path, range(images), per_shard=images)
    with FeatureStore.open(tmp_path) as store:
        assert image_bytes(make_key()) * images < store.nbytes <= shard_bytes_needed(make_key(), images)


@pytest.mark.parametrize(("added", "reason"), [(0, "0 free"), (1, "could not be written in")])
def test_a_folder_that_vanishes_is_an_error_with_its_name(added: int, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"

    def add_pictures(store: FeatureStore) -> None:
        with store.writer() as writer:
            for image in range(added):
                writer.add(name_of(image), features_of(image))
            shutil.rmtree(folder)
            writer.add(name_of(added), features_of(added))

    with FeatureStore.open(folder, make_key(), write=True) as store:
        with pytest.raises(ResourceError, match=reason) as caught:
            add_pictures(store)
        assert str(folder) in str(caught.value)
