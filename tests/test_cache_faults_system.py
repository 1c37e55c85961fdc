"""What the system refuses is no damage: no descriptors, no permission, no disk; and nothing is used up for ever."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_stores import LAYERS, assert_holds, copy_of, features_of, fill, make_key, name_of

import claspkit.cache.pool as pool
import claspkit.cache.shard as shards
from claspkit.cache import FeatureStore
from claspkit.cache.process import cause_of_death
from claspkit.profiles.errors import CorruptError, ResourceError


@contextmanager
def descriptors(spare: int) -> Iterator[None]:
    """Leave this process so many descriptors, or one or two more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(spare + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1], hard))
    for number in held:
        os.close(number)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened() -> int:
    """Descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("spare", [0, 1])
def test_a_store_without_descriptors_loses_nothing(spare: int, tmp_path: Path) -> None:
    """Reading says so; repair drops nothing; all is well once there are descriptors again."""
    fill(tmp_path, range(6), per_shard=2)
    with FeatureStore.open(tmp_path, write=True) as store:
        with descriptors(spare):
            if spare == 0:
                with pytest.raises(ResourceError, match=r"Too many open files.*it stays"):
                    store.read(name_of(0), LAYERS)
                with pytest.raises(ResourceError, match=r"could not be listed: Too many open files"):
                    store.repair()
                with pytest.raises(ResourceError, match=r"Too many open files.*it stays"):
                    store.verify()
            else:
                assert store.repair().found.ok
        assert len(store.digests) == 6
        assert np.array_equal(store.read(name_of(0), LAYERS), features_of(0))
    assert_holds(tmp_path, range(6))


STEPS = {
    "examine": (Path, "lstat", ("repair", "read")),
    "hash": (hashlib, "file_digest", ("repair",)),
    "open in hdf5": (shards, "open_hdf5", ("repair", "read")),
    "parse in hdf5": (shards, "_checked_datasets", ("repair", "read")),
    "load a module": (shards, "_checked_datasets", ("repair", "read")),
    "open": (os, "open", ("read",)),
    "read": (os, "preadv", ("read",)),
}
"""What a step calls, and which of the two commands take it."""


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
@pytest.mark.parametrize("step", STEPS)
def test_whatever_step_is_refused_nothing_is_dropped(
    step: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the shard and the system's reason, also where that is in a text or a cause only."""
    reason = os.strerror(number)

    def refuse(*_: Any, **__: Any) -> Any:
        if step == "parse in hdf5":
            raise RuntimeError(f"Unable to read (errno = {number}, error message = '{reason}')")
        try:
            raise OSError(number, reason)
        except OSError as error:
            if step == "load a module":
                raise LookupError("unknown encoding: ascii") from error
            raise

    fill(tmp_path, range(2))
    owner, name, commands = STEPS[step]
    with FeatureStore.open(tmp_path, write=True) as store:
        said = f"{store.shards[0].file} could not be read: {reason}"
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, refuse)
            if "repair" in commands:
                with pytest.raises(ResourceError, match=said):
                    store.repair()
            if "read" in commands:
                with pytest.raises(ResourceError, match=said):
                    store.read(name_of(0), LAYERS)
        assert len(store.digests) == 2
        assert store.repair().found.ok
    assert_holds(tmp_path, range(2))


def test_a_missing_shard_is_damage_and_a_missing_folder_is_not(tmp_path: Path) -> None:
    """The disk that went away says nothing about the shards on it; a shard that went away alone is lost."""
    fill(tmp_path / "s", range(4), per_shard=2)
    with FeatureStore.open(tmp_path / "s") as store:
        (tmp_path / "s").rename(tmp_path / "away")
        for act in (store.verify, lambda: store.read(name_of(0), LAYERS)):
            with pytest.raises(ResourceError, match="No such file"):
                act()
        (tmp_path / "away").rename(tmp_path / "s")
        (tmp_path / "s" / store.shards[0].file).unlink()
        assert [shard.reason for shard in store.verify().bad] == ["the file is missing"]
        with pytest.raises(CorruptError, match="missing"):
            store.read(name_of(0), LAYERS)


def test_a_manifest_that_cannot_be_read_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for readers nor for writers."""
    fill(tmp_path, range(2))
    opens = os.open

    def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if str(path).endswith("manifest.jsonl") and not flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opens(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ResourceError, match=r"manifest\.jsonl cannot be read: Permission denied"):
        FeatureStore.open(tmp_path)
    with pytest.raises(ResourceError, match="Permission denied"):
        FeatureStore.open(tmp_path, write=True)


@pytest.mark.parametrize("spare", range(8))
def test_a_writing_process_that_cannot_start(spare: int, tmp_path: Path) -> None:
    """At whatever descriptor it ends: a typed error, and none of the others stays open."""
    with FeatureStore.open(tmp_path, make_key(), write=True) as store:
        tempfile.gettempdir()  # found once, by writing there
        gc.collect()  # what an earlier test left open goes now, not in between
        before = opened()
        with descriptors(spare), pytest.raises(ResourceError, match="could not be started: Too many open files"):
            store.writer()
        gc.collect()
        assert opened() == before


def test_a_store_that_is_dropped_without_closing_holds_no_files(tmp_path: Path) -> None:
    """Also one whose shards were opened."""
    fill(tmp_path, range(4), per_shard=1)
    before = opened()
    store = FeatureStore.open(tmp_path)
    for image in range(4):
        store.read(name_of(image), LAYERS)
    assert opened() == before + 4
    del store
    gc.collect()
    assert opened() == before


def test_the_idlest_shards_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than the limit are open, those read last stay, and closing the store closes them."""
    monkeypatch.setattr(pool, "_MAX_OPEN", 3)
    fill(tmp_path, range(8), per_shard=1)
    before = opened()
    with FeatureStore.open(tmp_path) as store:
        for image in [0, 1, 2, 3, 0, 4, 5, 0, 6, 7, 0]:
            assert np.array_equal(store.read(name_of(image), LAYERS), features_of(image))
            assert opened() <= before + 3
        files = [entry.file for entry in store.shards]
        assert list(store._pool._open) == [files[6], files[7], files[0]]
        store.close()
        assert opened() == before


def test_how_a_process_died_in_words() -> None:
    """Signals with and without a name, and the last line of what it said."""
    with tempfile.TemporaryFile() as said:
        assert cause_of_death(-signal.SIGSEGV, said) == "was killed by signal SIGSEGV"
        assert cause_of_death(-(signal.SIGRTMIN + 3), said) == f"was killed by signal {signal.SIGRTMIN + 3}"
        assert "memory" in cause_of_death(-signal.SIGKILL, said)
        said.write(b"first\nlast word\n")
        assert cause_of_death(3, said) == "ended with exit code 3, saying 'last word'"
    assert cause_of_death(3, said) == "ended with exit code 3"


def test_a_link_in_place_of_a_shard_is_damage(tmp_path: Path) -> None:
    """What the system refuses because of the file itself is damage, as before."""
    fill(tmp_path / "s", range(2))
    folder = copy_of(tmp_path / "s", "linked")
    with FeatureStore.open(folder) as store:
        path = folder / store.shards[0].file
        shutil.move(path, folder / "aside")
        path.symlink_to(folder / "aside")
        with pytest.raises(CorruptError, match="link"):
            store.read(name_of(0), LAYERS)
