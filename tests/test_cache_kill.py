"""Killed at any moment, a store is sound, and the same command completes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fault_counts import tell
from feature_stores import LAYERS, assert_holds, copy_of, features_of, fill, make_key, name_of, shard_size

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


def kill_often(folder: Path, chance: random.Random, kills: int) -> tuple[int, int]:
    """Start and kill ``kills`` times; (runs killed while they added pictures, accepted pictures lost with a shard)."""
    during = lost = before = 0
    for _ in range(kills):
        run = start(folder)
        assert run.stdout is not None
        assert run.stderr is not None
        said = b""
        if chance.random() < 0.9:
            said = run.stdout.readline()  # most moments while writing, some while it starts
            time.sleep(chance.random() * 0.35)
        else:
            time.sleep(chance.random() * 0.4)
        whole_group = chance.random() < 0.5  # else the child outlives its parent and must clean up by itself
        os.kill(-run.pid if whole_group else run.pid, signal.SIGKILL)
        said, _ = said + run.stdout.read(), run.stderr.read()
        added = said.count(b"\n")
        during += run.wait() == -signal.SIGKILL and bool(added)
        if (folder / MANIFEST).exists():
            with open_for_writing(folder) as store:
                assert store.verify().ok
                # Whatever was accepted is there, but for the shard in work; the line of the last may not be out yet.
                found = len(store.digests)
                assert found >= before + added // PER_SHARD * PER_SHARD, "a committed shard was lost"
                lost += max(0, before + added - found)
                before = found
    return during, lost


def resume(folder: Path) -> None:
    """Run to the end, twice: a store that is complete already stays as it is."""
    for _ in range(2):
        last = start(folder)
        _, said = last.communicate(timeout=120)
        assert last.returncode == 0, said.decode()
    assert_holds(folder, range(PICTURES))


def test_kill_and_resume(tmp_path: Path) -> None:
    """A few kills, then the run that completes the store."""
    folder = tmp_path / "store"
    during, _ = kill_often(folder, random.Random(0), 3)
    assert during >= 1, "the kills came too early or too late to show anything"
    resume(folder)


@pytest.mark.long
def test_200_kills_lose_nothing_but_the_open_shard(tmp_path: Path) -> None:
    """At least 200 kills of writing runs, in stores that are resumed and compared with an uninterrupted one."""
    whole, during, lost, stores = tmp_path / "whole", 0, 0, 0
    resume(whole)
    while during < 200:
        folder = tmp_path / f"store-{stores}"
        killed, gone = kill_often(folder, random.Random(stores), 8)
        during, lost, stores = during + killed, lost + gone, stores + 1
        resume(folder)
        with FeatureStore.open(whole) as right, FeatureStore.open(folder) as store:
            assert store.digests == right.digests
            for image in right.digests:
                assert store.read(image, LAYERS).tobytes() == right.read(image, LAYERS).tobytes()
    tell("kill -9 of a writing run", during, f"0 sealed pictures lost, {lost} of open shards, {stores} stores resumed")
    assert lost < during * PER_SHARD


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
def test_kills_of_a_compaction_never_lose_a_wanted_picture(kills: int, tmp_path: Path) -> None:
    """Killed at any moment while shards are rewritten, every wanted picture has its values, and the rest can go on."""
    code = (
        "import sys\nfrom feature_stores import name_of\nfrom claspkit.cache import FeatureStore\n"
        "with FeatureStore.open(sys.argv[1], write=True) as store:\n    print(flush=True)\n"
        "    store.gc({name_of(image) for image in range(0, 24, 2)}, compact=True)\n"
    )
    source, chance, midway = tmp_path / "source", random.Random(3), 0
    fill(source, range(24), per_shard=6)
    for _ in range(kills):
        folder = copy_of(source, "killed")
        command = [sys.executable, "-c", code, str(folder)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, cwd=SCRIPT.parent)
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(chance.random() * 1.2)
        os.kill(-run.pid, signal.SIGKILL)
        run.communicate()
        with open_for_writing(folder) as store:
            assert store.verify().ok
            midway += 12 < len(store.digests) < 24
            for image in range(0, 24, 2):
                assert np.array_equal(store.read(name_of(image), LAYERS), features_of(image))
            store.gc({name_of(image) for image in range(0, 24, 2)}, compact=True)
        assert_holds(folder, range(0, 24, 2))
    tell("kill -9 of a compaction", kills, f"{midway} with some shards rewritten, 0 wanted pictures lost")


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
