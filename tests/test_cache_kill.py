"""Killed at any moment, a store is sound, and the same command completes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from feature_stores import assert_holds, features_of, make_key, name_of, shard_size

from claspkit.cache import FeatureStore
from claspkit.cache.layout import MANIFEST
from claspkit.profiles.errors import ResourceError

PICTURES, PER_SHARD = 60, 3
SCRIPT = Path(__file__).with_name("fill_store.py")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A process of its own group that fills the store, in about a second once it is up."""
    command = [sys.executable, str(SCRIPT), str(folder), str(PICTURES), str(PER_SHARD), "0.012"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def open_for_writing(folder: Path) -> FeatureStore:
    """Open a store whose writer was just killed: the system needs a moment to give the lock back."""
    for _ in range(100):
        try:
            return FeatureStore.open(folder, make_key(), write=True)
        except ResourceError:
            time.sleep(0.02)
    raise AssertionError("the killed writer's lock is still held")


def kill_often(folder: Path, chance: random.Random, kills: int) -> int:
    """Start and kill ``kills`` times; the number of runs that were killed while they were adding pictures."""
    during, before = 0, 0
    for _ in range(kills):
        run = start(folder)
        assert run.stdout is not None
        assert run.stderr is not None
        if chance.random() < 0.8:
            run.stdout.readline()  # most moments while writing, some while it starts
            time.sleep(chance.random() * 0.35)
        else:
            time.sleep(chance.random() * 0.4)
        whole_group = chance.random() < 0.5  # else the child outlives its parent and must clean up by itself
        os.kill(-run.pid if whole_group else run.pid, signal.SIGKILL)
        said, _ = run.stdout.read(), run.stderr.read()
        during += run.wait() == -signal.SIGKILL and bool(said)
        if (folder / MANIFEST).exists():
            with open_for_writing(folder) as store:
                assert store.verify().ok
                assert len(store.digests) >= before, "a committed shard was lost"
                before = len(store.digests)
    return during


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 4), *(pytest.param(seed, 12, marks=pytest.mark.long) for seed in (1, 2, 3))]
)
def test_kill_and_resume(seed: int, kills: int, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    during = kill_often(folder, random.Random(seed), kills)
    assert during >= kills // 4, "the kills came too early or too late to show anything"
    for _ in range(2):  # a store that is complete already stays as it is
        last = start(folder)
        _, said = last.communicate(timeout=120)
        assert last.returncode == 0, said.decode()
    assert_holds(folder, range(PICTURES))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_writing_process_is_killed(sent: signal.Signals, tmp_path: Path) -> None:
    """A crash inside HDF5 is a typed error in the run, and finished shards stay."""

    def add_pictures(store: FeatureStore) -> None:
        with store.writer(shard_bytes=shard_size(2)) as writer:
            for image in range(50):
                if image == 3:
                    writer._process._child.send_signal(sent)
                    writer._process._child.wait()
                writer.add(name_of(image), features_of(image))

    with (
        FeatureStore.open(tmp_path, make_key(), write=True) as store,
        pytest.raises(ResourceError, match=sent.name),
    ):
        add_pictures(store)
    assert_holds(tmp_path, range(2))


def test_a_writer_that_failed_stays_failed(tmp_path: Path) -> None:
    with FeatureStore.open(tmp_path, make_key(), write=True) as store, store.writer() as writer:
        writer.add(name_of(0), features_of(0))
        writer._process._child.kill()
        for _ in range(2):
            with pytest.raises(ResourceError):
                writer.flush()
    assert_holds(tmp_path, [])


def test_ctrl_c_keeps_what_was_added(tmp_path: Path) -> None:
    """The signal goes to the whole group, as a terminal sends it; the writing process must outlive it."""
    run = start(tmp_path)
    assert run.stdout is not None
    for _ in range(10):
        run.stdout.readline()
    os.kill(-run.pid, signal.SIGINT)
    said, error = run.communicate(timeout=60)
    assert b"KeyboardInterrupt" in error
    with FeatureStore.open(tmp_path) as store:
        added = 10 + len(said.splitlines())
        # The picture whose line was not printed yet may be there too.
        assert len(store.digests) - added in {0, 1}
        assert store.verify().ok
    assert list(tmp_path.glob("*.part")) == []
