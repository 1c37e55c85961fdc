"""Ctrl-C while something is written or read, forks while something is read: no work lost, no array torn, no hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_stores import assert_holds, features_of, make_key, name_of, shard_size

import claspkit.cache.chunks as chunks
from claspkit.cache import FeatureStore, FeatureWriter
from claspkit.cache.helping import helping_thread, settle, undisturbed
from claspkit.cache.prefetch import Prefetcher
from claspkit.cache.process import ShardWriter
from claspkit.profiles.errors import ResourceError

LARGE = (8, 256, 1024)
"""4 MiB of float16: what a helping thread takes half of."""
ALL = tuple(range(LARGE[0]))


def press_ctrl_c() -> None:
    """Send this process a SIGINT."""
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def slow_child(writer: FeatureWriter, *then: Callable[[], None]) -> Iterator[None]:
    """Stop the writing process, and while it stands do ``then`` at some distance; afterwards it goes on."""
    child = writer._process._child
    child.send_signal(signal.SIGSTOP)

    def act() -> None:
        for step in then:
            time.sleep(0.1)
            step()
        time.sleep(0.1)
        child.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def add(writer: FeatureWriter, *images: int) -> None:
    """Add pictures."""
    for image in images:
        writer.add(name_of(image), features_of(image))


def test_ctrl_c_while_a_picture_is_handed_over_loses_nothing(tmp_path: Path) -> None:
    """It comes out when the picture is accepted, and the writer can go on."""
    with FeatureStore.open(tmp_path, make_key(), write=True) as store, store.writer() as writer:
        add(writer, 0, 1, 2)
        with slow_child(writer, press_ctrl_c), pytest.raises(KeyboardInterrupt):
            add(writer, *range(3, 9))  # more than there are slots: one of them waits
        accepted = list(writer._pending)
        assert accepted == [name_of(image) for image in range(len(accepted))]
        assert 4 <= len(accepted) < 9
        add(writer, 20)
    assert_holds(tmp_path, [*range(len(accepted)), 20])


def test_ctrl_c_while_a_shard_is_finished_loses_nothing(tmp_path: Path) -> None:
    """Neither at the picture that fills it, nor when it is asked for; the writer can go on."""
    with (
        FeatureStore.open(tmp_path, make_key(), write=True) as store,
        store.writer(shard_bytes=shard_size(3)) as writer,
    ):
        add(writer, 0, 1)
        with slow_child(writer, press_ctrl_c), pytest.raises(KeyboardInterrupt):
            add(writer, 2)
        assert len(store.digests) == 3
        add(writer, 3)
        with slow_child(writer, press_ctrl_c), pytest.raises(KeyboardInterrupt):
            writer.flush()
        assert len(store.digests) == 4
        add(writer, 4)
    assert_holds(tmp_path, range(5))


def test_a_second_ctrl_c_gives_the_open_shard_up(tmp_path: Path) -> None:
    """Finished shards stay; the writer says that it failed."""
    with FeatureStore.open(tmp_path, make_key(), write=True) as store:
        with store.writer(shard_bytes=shard_size(4)) as writer:
            add(writer, *range(6))
            with slow_child(writer, press_ctrl_c, press_ctrl_c), pytest.raises(KeyboardInterrupt):
                writer.flush()
            with pytest.raises(ResourceError, match="failed earlier"):
                add(writer, 7)
        assert len(store.digests) == 4
    assert_holds(tmp_path, range(4))


def test_interrupted_before_the_picture_goes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that was refused before anything was sent is not accepted; those before it are kept."""
    with FeatureStore.open(tmp_path, make_key(), write=True) as store, store.writer() as writer:
        add(writer, 0)

        def stop(*_: Any) -> bool:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("claspkit.cache.writer.all_finite", stop)
            with pytest.raises(KeyboardInterrupt):
                add(writer, 1)
        add(writer, 2)
    assert_holds(tmp_path, [0, 2])


def test_a_child_that_fails_is_an_error_and_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the helping thread are the caller's, and the writer stays failed."""

    def fail(*_: Any) -> None:
        raise ResourceError("no room")

    monkeypatch.setattr(ShardWriter, "add", fail)
    with FeatureStore.open(tmp_path, make_key(), write=True) as store, store.writer() as writer:
        with pytest.raises(ResourceError, match="no room"):
            add(writer, 0)
        with pytest.raises(ResourceError, match="failed earlier"):
            add(writer, 1)


def test_undisturbed_work_ends_before_the_interruption_is_raised() -> None:
    """However often it is interrupted; every further time the work is asked to give up."""
    helper, done, asked = helping_thread("test"), threading.Event(), threading.Event()

    def work() -> None:
        for _ in range(2):
            time.sleep(0.1)
            press_ctrl_c()
        assert asked.wait(20)
        time.sleep(0.1)
        done.set()

    with pytest.raises(KeyboardInterrupt):
        undisturbed(helper, work, asked.set)
    assert done.is_set()
    assert undisturbed(helper, lambda: 5, asked.clear) == 5
    assert asked.is_set()
    helper.shutdown()
    settle(helper)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures large enough that two threads read them: all ones, all twos; not to be changed."""
    folder = tmp_path_factory.mktemp("large") / "store"
    key = make_key(layers=ALL, tokens=LARGE[1], width=LARGE[2])
    with FeatureStore.open(folder, key, write=True) as store, store.writer() as writer:
        for image in (1, 2):
            writer.add(name_of(image), large_features(image))
    return folder


def large_features(image: int) -> Any:
    """The picture's number everywhere."""
    return np.full(LARGE, image, np.float16)


def test_after_ctrl_c_nobody_writes_into_the_array(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helping thread's half comes late, and the signal while it is waited for."""
    whole, late = chunks._read_at, threading.Event()

    def slow(file: int, place: int, octets: memoryview) -> None:
        if threading.current_thread() is not threading.main_thread() and not late.is_set():
            for _ in range(2):
                time.sleep(0.1)
                press_ctrl_c()
            time.sleep(0.1)
            late.set()
        whole(file, place, octets)

    out = np.zeros_like(large_features(0))
    with FeatureStore.open(large) as store:
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        monkeypatch.setattr(chunks, "_read_at", slow)
        with pytest.raises(KeyboardInterrupt):
            store.read(name_of(1), ALL, out=out)
        assert late.is_set()
        assert (out == 1).all()
        out[:] = 0
        time.sleep(0.1)
        assert not out.any()
        assert np.array_equal(store.read(name_of(2), ALL, out=out), large_features(2))


def forked(work: Callable[[], bool]) -> int | None:
    """Exit code of a fork of this process that does ``work`` and ends in the ordinary way; None when it hangs."""
    child = multiprocessing.get_context("fork").Process(target=lambda: None if work() else os._exit(9))
    child.start()
    child.join(20)
    if child.exitcode is None:
        child.kill()
        child.join()
        return None
    return child.exitcode


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_after_large_reads_has_its_own_helping_thread(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's is not in the child; parent and child read on."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    helped: list[bool] = []
    whole = chunks.read_chunks

    def watch(file: int, jobs: Any, helper: ThreadPoolExecutor | None = None) -> None:
        helped.append(helper is not None and sum(job.out.nbytes for job in jobs) >= chunks._SHARED_BYTES)
        whole(file, jobs, helper)

    monkeypatch.setattr("claspkit.cache.shard.read_chunks", watch)
    with FeatureStore.open(large) as store:

        def right() -> bool:
            return all(np.array_equal(store.read(name_of(image), ALL), large_features(image)) for image in (1, 2))

        assert right()
        assert helped == [True, True], "these reads are too small to show anything"
        assert forked(right) == 0
        assert right()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_a_prefetcher_reads_ends(large: Path) -> None:
    """Forked in the midst of a read, with the lock of the two threads held: the copy has ended, nothing waits."""
    requests = [(name_of(1 + turn % 2), ALL) for turn in range(50)]
    with FeatureStore.open(large) as store, Prefetcher(store, requests) as items:
        next(items)
        held, forked_off = threading.Event(), threading.Event()

        def hold() -> None:
            with items._shared._changed:
                held.set()
                forked_off.wait(60)

        def ends() -> bool:
            nothing_comes = list(items) == []
            items.close()
            items._shared.settle()  # what an interpreter's exit runs; that of a multiprocessing child does not
            return nothing_comes

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(20)
        code = forked(ends)
        forked_off.set()
        holder.join()
        assert code == 0
        assert sum(1 for _ in items) == 49
