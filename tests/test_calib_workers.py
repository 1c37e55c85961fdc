"""Processes that fill the cache side by side: the same bytes as one, whatever ends them, and no orphans."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_stores import make_key, name_of
from pipeline_runs import SMALL, calibrate, run_until, start

from claspkit.cache import FeatureStore
from claspkit.cache.encoder import feature_key
from claspkit.calib import workers
from claspkit.calib.folder import RunFolder, read_samples
from claspkit.calib.workers import Job, run_workers, worker_device
from claspkit.profiles.errors import BadDataError, MismatchError, ResourceError
from claspkit.runtime.models import load_model

SAY = "import json, os, sys, time; job = json.loads(sys.stdin.buffer.readline()); n = len(job['pictures']); "
TELL = "tell = lambda **message: print(json.dumps(message), flush=True); "
STOPPABLE = "sys.stdin.buffer.read(1) and open(job['root'] + '/stopped', 'w').close()"


class Crew:
    """Three workers that run a script instead of a model, on twenty pictures."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._monkeypatch = root, monkeypatch
        self.pictures = {name_of(number): f"{number}.png" for number in range(20)}
        self.done: list[int] = []
        self.written: list[int] = []
        self.rejects: list[tuple[str, str]] = []

    def work(self, script: str, reject: Callable[[str, str], None] | None = None) -> int:
        """Run them; returns the passes."""
        self._monkeypatch.setattr(workers, "_START", SAY + TELL + script)
        job = Job(SMALL, make_key(), self.root, self.pictures)
        note = reject or (lambda *pair: self.rejects.append(pair))
        return run_workers(job, RunFolder(self.root), 3, self.done.append, self.written.append, note)


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    """Nobody at work yet."""
    return Crew(tmp_path, monkeypatch)


def test_every_picture_falls_to_one_worker(crew: Crew) -> None:
    """Counts, bytes, passes and rejects of all of them add up."""
    script = "tell(pictures=n, bytes=10 * n); tell(reject=[min(job['pictures']), 'torn']); tell(passes=n - 1)"
    assert crew.work(script) == 17
    assert (sum(crew.done), sum(crew.written), len(crew.done)) == (20, 200, 3)
    assert {reason for _, reason in crew.rejects} == {"torn"}
    assert len(dict(crew.rejects)) == 3


def test_a_job_says_all_that_a_worker_needs(crew: Crew) -> None:
    """Model, batches, a store of its own, and the threads that fall to it."""
    crew.work("open(job['store'], 'w').write(json.dumps(job)); tell(passes=0)")
    jobs = [json.loads((crew.root / f"cache-{index}").read_text()) for index in range(3)]
    assert {job["threads"] for job in jobs} == {max(1, torch.get_num_threads() // 3)}
    assert [job["batch_size"] for job in jobs] == [SMALL.block_size] * 3
    assert {image: name for job in jobs for image, name in job["pictures"].items()} == crew.pictures
    for index, job in enumerate(jobs):
        assert all(int(image, 16) % 3 == index for image in job["pictures"])


def test_a_worker_without_pictures_is_not_started(crew: Crew) -> None:
    """One picture, three workers: one process."""
    crew.pictures = {name_of(0): "0.png"}
    assert crew.work("tell(passes=n)") == 1


def test_a_dead_worker_ends_the_others(crew: Crew) -> None:
    """Killed, or gone with a traceback: a typed error with the way on, and the others were asked to stop."""
    wait = f"(os.kill(os.getpid(), 9) if job['store'].endswith('-1') else None); {STOPPABLE}"
    with pytest.raises(ResourceError, match=r"worker 1.*SIGKILL.*run the same command again"):
        crew.work(wait)
    assert (crew.root / "stopped").exists()
    with pytest.raises(ResourceError, match=r"exit code 1, saying 'ZeroDivisionError"):
        crew.work("1 / 0")
    with pytest.raises(ResourceError, match="exit code 0"):
        crew.work("pass")


def test_what_a_worker_met_is_raised_here(crew: Crew) -> None:
    """An error of ours keeps its kind and names the worker."""
    with pytest.raises(MismatchError, match=r"other weights \(met by worker \d\)"):
        crew.work("tell(error='MismatchError', text='other weights')")


def test_too_many_rejects_end_the_workers(crew: Crew) -> None:
    """What the caller raises about a picture passes through, and nobody goes on."""

    def refuse(*_: str) -> None:
        raise BadDataError("enough")

    with pytest.raises(BadDataError, match="enough"):
        crew.work(f"tell(reject=['a', 'b']); {STOPPABLE}", refuse)
    assert (crew.root / "stopped").exists()


def test_cuda_goes_round_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the name without a number; without a GPU it stays as it is, for the error that follows."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [worker_device("cuda", index) for index in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [worker_device(name, 1) for name in ("cpu", "cuda:1")] == ["cpu", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert worker_device("cuda", 1) == "cuda"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose cache one process filled, one picture a batch."""
    run = tmp_path_factory.mktemp("alone") / "run"
    run_until("cache", run, block_size=1)
    return run


@pytest.fixture(scope="module")
def alone_in_fives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in batches of five."""
    run = tmp_path_factory.mktemp("alone") / "run"
    run_until("cache", run, block_size=5)
    return run


@pytest.fixture
def labelled(alone: Path, tmp_path: Path) -> Path:
    """The same run before its cache."""
    run = Path(shutil.copytree(alone, tmp_path / "run"))
    shutil.rmtree(run / "cache")
    return run


def assert_equal_features(run: Path, alone: Path) -> None:
    """The same pictures with the same bytes, and no worker's folder left."""
    with FeatureStore.open(run / "cache") as store, FeatureStore.open(alone / "cache") as other:
        assert store.key == other.key
        assert store.digests == other.digests == {s.image_sha256 for s in read_samples(RunFolder(run)).samples}
        assert store.verify().ok
        for image in store.digests:
            assert np.array_equal(store.read(image, store.key.layers), other.read(image, store.key.layers))
    assert RunFolder(run).left_by_workers == []


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 3])
def test_workers_make_the_bytes_that_one_makes(count: int, alone: Path, alone_in_fives: Path, tmp_path: Path) -> None:
    """Alone in its batch or not: a picture's features do not depend on who computed them, nor beside which others."""
    for block_size, other in ((1, alone), (5, alone_in_fives)):
        run_until("cache", tmp_path / str(block_size), workers=count, block_size=block_size)
        assert_equal_features(tmp_path / str(block_size), other)


@pytest.mark.long
def test_a_calibration_with_workers_is_the_calibration(tmp_path: Path) -> None:
    """The same profile, id included, and a vanished picture left out of both."""
    profiles = []
    for count in (1, 3):
        run = tmp_path / str(count)
        run_until("label", run)
        names = sorted(sample.image for sample in read_samples(RunFolder(run)).samples)
        (run / "images" / names[0]).unlink()
        run_until("cache", run, workers=count)
        profiles.append(calibrate(run).profile)
    assert profiles[0].profile_id == profiles[1].profile_id
    assert profiles[0].calibration.vision_passes == len(set(names)) - 1


def holder(folder: Path) -> int:
    """Process that writes a store, 0 before there is one."""
    try:
        return int(json.loads((folder / "manifest.jsonl.lock").read_text())["pid"])
    except (FileNotFoundError, ValueError):
        return 0


def at_work(run: Path, *more: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a run with two workers and wait until both write; returns it and them."""
    process = start(run, "--block-size", "1", "--cache-workers", "2", *more)
    deadline = time.monotonic() + 120
    while not all(pids := [holder(run / f"cache-{index}") for index in (0, 1)]):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process, pids


def assert_gone(pids: list[int]) -> None:
    """The processes end by themselves."""
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.parametrize("victim", ["worker", "parent", "interrupt"])
def test_whoever_is_killed_the_run_goes_on(victim: str, labelled: Path, alone: Path) -> None:
    """Nobody is left behind, the message says how to go on, and another number of workers makes the same cache."""
    process, pids = at_work(labelled)
    if victim == "worker":
        os.kill(pids[1], signal.SIGKILL)
    else:
        process.send_signal(signal.SIGKILL if victim == "parent" else signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == {"worker": 5, "parent": -9, "interrupt": 130}[victim]
    if victim != "parent":
        assert "run the same command again" in " ".join(messages.split())
        assert "Traceback" not in messages
    assert_gone(pids)
    run_until("cache", labelled, workers=3, block_size=1)
    assert_equal_features(labelled, alone)


def test_a_worker_that_has_not_begun_goes_at_once(tmp_path: Path) -> None:
    """The real process, asked to stop while it loads: nothing to keep, nothing left."""
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    job = Job(SMALL, make_key(), tmp_path, {name_of(0): "0.png"})
    worker = workers.Worker(0, job.message([name_of(0)], tmp_path / "cache-0", "cpu", 1), heard)
    worker.stop()
    _, message = heard.get(timeout=60)
    worker.close()
    assert message is None
    assert not (tmp_path / "cache-0").exists()


@pytest.mark.long
def test_a_worker_that_is_asked_to_stop_keeps_what_it_told_of(labelled: Path) -> None:
    """The real process in the middle of its work: it ends after its batch, and its store has all until then."""
    images = {sample.image_sha256: sample.image for sample in read_samples(RunFolder(labelled)).samples}
    job = Job(replace(SMALL, block_size=1), feature_key(load_model("mini")), labelled / "images", images)
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    worker = workers.Worker(0, job.message(list(images), labelled / "cache-0", "cpu", 1), heard)
    told = [heard.get(timeout=120)[1]]
    worker.stop()
    while told[-1] is not None:
        told.append(heard.get(timeout=60)[1])
    worker.close()
    with FeatureStore.open(labelled / "cache-0") as store:
        batches = [message["pictures"] for message in told[:-1] if "pictures" in message]
        assert len(store.digests) == sum(batches) >= 1
        assert store.verify().ok
