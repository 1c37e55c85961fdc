"""Processes that search side by side: the same result as one, whatever ends them, and no orphans."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_runs import SMALL, calibrate, data_of, run_until, start
from test_calib_search import DATA, SPACE, Made
from test_calib_workers import assert_gone

from claspkit.calib import search_workers
from claspkit.calib.cli import main
from claspkit.calib.config import lock
from claspkit.calib.folder import RunFolder
from claspkit.calib.helper import Helper
from claspkit.calib.ledger import HOLDOUT, SEARCH, Ledger
from claspkit.calib.progress import Reporter
from claspkit.calib.search import Search
from claspkit.calib.search_workers import SearchCrew
from claspkit.calib.worker_ledgers import copy_over, open_beside, read_all, take_over
from claspkit.profiles.errors import BadDataError, CorruptError, NotFiniteError, ResourceError
from claspkit.profiles.files import read_profile
from claspkit.profiles.records import hold_lock

INTENTS = ("counting", "object", "scene")
SAY = (
    "import json, os, sys, time; job = json.loads(sys.stdin.buffer.readline()); "
    "tell = lambda **message: print(json.dumps(message), flush=True); me = job['index']; "
)
EACH = SAY + "[{} for task in map(json.loads, sys.stdin.buffer)]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that one process searched, of three classes."""
    data = data_of(tmp_path_factory.mktemp("data"), INTENTS)
    run = tmp_path_factory.mktemp("alone") / "run"
    calibrate(run, data=str(data))
    return run


@pytest.fixture(scope="module")
def in_fours(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in many small blocks."""
    run = tmp_path_factory.mktemp("fours") / "run"
    calibrate(run, block_size=4, **asked(finished))
    return run


def asked(run: Path) -> dict[str, Any]:
    """What makes another run the same one."""
    return {"data": json.loads((run / "summary.json").read_text())["config"]["data"]}


def unsearched(finished: Path, tmp_path: Path) -> Path:
    """The same run before its search."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "ledger.jsonl").unlink()
    (run / "summary.json").unlink()
    return run


def told_progress(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Task -> its total and all steps, of the runs from now on."""
    told: dict[str, list[int]] = {}

    @contextmanager
    def task(self: Reporter, name: str, total: int, *_: object, **__: object) -> Iterator[Callable[[int], None]]:
        told[name] = [total]
        yield told[name].append

    monkeypatch.setattr(Reporter, "task", task)
    return told


def ids(run: Path) -> tuple[str, str]:
    """What two equal runs have in common: the profile's id, and the digest of all scores."""
    return read_profile(run / "profile").profile_id, Ledger.read(run / "ledger.jsonl").sha256


# -- a crew that runs a script instead of a model


class Crew:
    """A crew on a made-up class or two, in a folder of its own."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = RunFolder(root), monkeypatch
        self.told: list[int] = []
        self.classes = [replace(DATA, intent=name) for name in ("counting", "scene", "text")]

    def work(self, script: str, count: int = 2) -> None:
        """Search all classes, then score their holdouts."""
        self._monkeypatch.setattr(search_workers, "_START", script)
        ledger = Ledger.open(self.folder.ledger)
        try:
            config = replace(SMALL, strategy="two-pass")
            with SearchCrew(config, self.folder, [SPACE], ledger, count, self.told.append) as team:
                team.search(self.classes)
                team.holdout([(data, [SPACE.default]) for data in self.classes])
        finally:
            ledger.close()


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    """Nobody at work yet."""
    return Crew(tmp_path, monkeypatch)


def test_every_class_falls_to_one_worker_and_every_worker_has_work(crew: Crew) -> None:
    """Three classes, two workers, both splits: six tasks with the class's own samples, each done once."""
    note = "open(job['run'] + f'/{me}', 'a').write(json.dumps({**task, 'job': job}) + '\\n')"
    crew.work(EACH.format(f"({note}, tell(advance=3), tell(done=task['class']))"))
    lines = {me: [json.loads(row) for row in (crew.folder.root / me).read_text().splitlines()] for me in "01"}
    tasks = [task for mine in lines.values() for task in mine]
    assert sorted((task["split"], task["class"]) for task in tasks) == sorted(
        (split, data.intent) for split in (SEARCH, HOLDOUT) for data in crew.classes
    )
    for task in tasks:
        wanted = DATA.search if task["split"] == SEARCH else DATA.holdout
        assert task["samples"] == [sample.uid for sample in wanted]
        assert task.get("candidates") == (None if task["split"] == SEARCH else [SPACE.default.id])
        assert task["job"]["threads"] == max(1, torch.get_num_threads() // 2)
        assert task["job"]["device"] == SMALL.device
    assert crew.told == [3] * 6


def test_what_the_ledger_holds_needs_no_worker(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes that are done are counted and not handed out; where all are, no process is started."""
    told: list[int] = []
    ledger = Ledger.open(crew.folder.ledger)
    search = Search([SPACE], Made({}, 4), ledger, SMALL.block_size, told.append)
    for data in crew.classes[:2]:
        search.winners(data, "two-pass")
        search.holdout(data, [SPACE.default])
    ledger.close()
    crew.work(EACH.format("tell(done=task['class'])"))
    assert sum(crew.told) == sum(told)
    monkeypatch.setattr(search_workers, "Helper", pytest.fail)
    crew.classes = crew.classes[:2]
    crew.work("")


def test_a_dead_worker_ends_the_others(crew: Crew) -> None:
    """Killed, or gone with a traceback: a typed error with the way on, and nobody goes on."""
    pid = "open(job['run'] + '/pid', 'w').write(str(os.getpid()))"
    wait = f"(os.kill(os.getpid(), 9) if me else {pid}, time.sleep(600))"
    with pytest.raises(ResourceError, match=r"worker 1, a process of the search.*SIGKILL.*run the same command again"):
        crew.work(EACH.format(wait))
    if (crew.folder.root / "pid").exists():
        assert_gone([int((crew.folder.root / "pid").read_text() or 0)])
    with pytest.raises(ResourceError, match=r"exit code 1, saying 'ZeroDivisionError.*--search-workers"):
        crew.work(SAY + "1 / 0")


@pytest.mark.parametrize(
    "kind", [BadDataError, CorruptError, NotFiniteError, ResourceError], ids=lambda kind: str(kind.__name__)
)
def test_what_a_worker_met_is_raised_here(kind: type[Exception], crew: Crew) -> None:
    """An error of ours keeps its kind and names the worker."""
    with pytest.raises(kind, match=r"other weights \(met by worker \d\)") as caught:
        crew.work(EACH.format(f"tell(error='{kind.__name__}', text='other weights')"))
    assert type(caught.value) is kind


# -- ledgers of workers


def parted(finished: Path, run: Path) -> list[bytes]:
    """Spread a finished run's lines over its own ledger and those of three workers; returns the lines."""
    lines = (finished / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    parts = {"ledger.jsonl": 0, "ledger-worker-0.jsonl": 1, "ledger-worker-3.jsonl": 2, "ledger-worker-11.jsonl": 3}
    for name, start_at in parts.items():
        (run / name).write_bytes(b"".join(lines[start_at::4]))
    twice = lines[0] + lines[1][: len(lines[1]) // 2]  # a line that was taken over already, and a torn one
    with (run / "ledger-worker-3.jsonl").open("ab") as file:
        file.write(twice)
    return lines


def test_what_workers_left_is_taken_over(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their number was: every line is counted while they lie there, and nothing is computed again."""
    run = unsearched(finished, tmp_path)
    lines = parted(finished, run)
    with pytest.raises(SystemExit):
        main(["inspect", str(run), "--json"])
    evaluations = json.loads(capsys.readouterr().out)["progress"]["evaluations"]
    assert evaluations == Ledger.read(finished / "ledger.jsonl").evaluations
    monkeypatch.setattr(search_workers, "Helper", pytest.fail)
    monkeypatch.setattr("claspkit.calib.evaluator.Evaluator.evaluate", pytest.fail)
    calibrate(run, **asked(finished))
    assert ids(run) == ids(finished)
    assert len((run / "ledger.jsonl").read_bytes().splitlines()) == len(lines)
    assert not list(run.glob("ledger-worker-*"))


def test_fresh_takes_them_away(finished: Path, tmp_path: Path) -> None:
    """And refuses while somebody writes one."""
    run = unsearched(finished, tmp_path)
    parted(finished, run)
    held = open_beside(RunFolder(run).worker_ledger(3), RunFolder(run).ledger)
    with pytest.raises(ResourceError, match=r"ledger-worker-3\.jsonl is in use"):
        run_until("samples", run, fresh=True, **asked(finished))
    assert len(RunFolder(run).left_ledgers) == 3
    held.close()
    run_until("samples", run, fresh=True, **asked(finished))
    assert RunFolder(run).left_ledgers == []
    assert read_all(RunFolder(run)) is None


def test_a_worker_writes_only_what_is_new(finished: Path, tmp_path: Path) -> None:
    """It knows the run's ledger; its own file holds its own lines, which the run takes over once."""
    folder = RunFolder(tmp_path)
    entries = Ledger.read(finished / "ledger.jsonl").entries()
    run = Ledger.open(folder.ledger)
    run.put(entries[:5])
    mine = open_beside(folder.worker_ledger(0), folder.ledger)
    assert mine.entries() == entries[:5]
    mine.put(entries[5:8])
    for _ in range(2):
        copy_over(run, [folder.worker_ledger(0), folder.worker_ledger(1)])  # the second was never begun
    assert run.entries() == entries[:8]
    assert len(folder.ledger.read_bytes().splitlines()) == 8
    assert len(folder.worker_ledger(0).read_bytes().splitlines()) == 3
    mine.close()
    take_over(run, folder.left_ledgers)
    assert (run.entries(), folder.left_ledgers) == (entries[:8], [])
    run.close()


def test_a_damaged_ledger_of_a_worker_is_refused(finished: Path, tmp_path: Path) -> None:
    """A flipped bit in the middle is no torn tail; the file stays."""
    run = unsearched(finished, tmp_path)
    parted(finished, run)
    path = RunFolder(run).worker_ledger(0)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"ledger-worker-0\.jsonl, line"):
        calibrate(run, **asked(finished))
    assert path.exists()


# -- real processes


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_workers_find_what_one_finds(
    count: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every score, and the profile's id; a second time nobody is started. The progress ends where it said."""
    run = unsearched(finished, tmp_path)
    told = told_progress(monkeypatch)
    run_until("profile", run, search_workers=count, **asked(finished))
    assert sum(told["search"][1:]) == told["search"][0]
    assert ids(run) == ids(finished)
    assert RunFolder(run).left_ledgers == []
    before = (run / "ledger.jsonl").read_bytes()
    told.clear()
    run_until("profile", run, search_workers=count, **asked(finished))
    assert (run / "ledger.jsonl").read_bytes() == before
    assert sum(told["search"][1:]) == told["search"][0]


def test_progress_ends_where_it_said_it_would(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in one process: what a race or a holdout need not ask any more counts as done."""
    told = told_progress(monkeypatch)
    run_until("search", unsearched(finished, tmp_path), **asked(finished))
    assert sum(told["search"][1:]) == told["search"][0]
    assert min(told["search"]) >= 0


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["tpe", "two-pass"])
def test_workers_search_by_every_kind_of_strategy(strategy: str, finished: Path, tmp_path: Path) -> None:
    """Points beside the grid are handed to the holdout by their names."""
    for count in (1, 2):
        run_until("profile", tmp_path / str(count), search_workers=count, strategy=strategy, **asked(finished))
    assert ids(tmp_path / "1") == ids(tmp_path / "2")


def at_work(run: Path, *more: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a run with two workers and wait until both have scored something; returns it and them."""
    process = start(run, "--block-size", "4", "--search-workers", "2", *more)
    paths = [RunFolder(run).worker_ledger(index) for index in (0, 1)]
    deadline = time.monotonic() + 120
    while not all(path.exists() and path.stat().st_size for path in paths):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process, [holder_of(path) for path in paths]


def holder_of(path: Path) -> int:
    """Process that writes a ledger."""
    return int(json.loads(path.with_name(path.name + ".lock").read_text())["pid"])


@pytest.mark.long
@pytest.mark.parametrize("victim", ["worker", "parent", "interrupt"])
def test_whoever_is_killed_the_search_goes_on(victim: str, in_fours: Path, tmp_path: Path) -> None:
    """Nobody is left behind, what was scored is kept, and another number of workers ends in the same profile."""
    run = unsearched(in_fours, tmp_path)
    process, pids = at_work(run, "--data", asked(in_fours)["data"])
    if victim == "worker":
        os.kill(pids[1], signal.SIGKILL)
    else:
        process.send_signal(signal.SIGKILL if victim == "parent" else signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == {"worker": 5, "parent": -9, "interrupt": 130}[victim]
    assert_gone(pids)
    assert (RunFolder(run).left_ledgers == []) == (victim != "parent")
    if victim != "parent":
        assert "run the same command again" in " ".join(messages.split())
        assert "Traceback" not in messages
    kept = read_all(RunFolder(run))
    assert kept is not None
    run_until("profile", run, block_size=4, **asked(in_fours))
    assert {entry.key for entry in kept.entries()} <= {e.key for e in Ledger.read(run / "ledger.jsonl").entries()}
    assert ids(run) == ids(in_fours)


def test_an_orphans_ledger_is_waited_for(finished: Path, tmp_path: Path) -> None:
    """A process that still holds it, for a second: its lines are taken over when it is gone."""
    run = unsearched(finished, tmp_path)
    parted(finished, run)
    script = (
        "import sys, time; from claspkit.profiles.records import RecordLog; log = RecordLog(sys.argv[1]); "
        "print('held', flush=True); time.sleep(1)"
    )
    path = RunFolder(run).worker_ledger(0)
    orphan = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    assert orphan.stdout.readline() == b"held\n"
    with pytest.raises(ResourceError), hold_lock(path):
        pass
    calibrate(run, **asked(finished))
    assert orphan.wait(timeout=60) == 0
    orphan.stdout.close()
    assert ids(run) == ids(finished)


def test_a_worker_whose_run_changed_says_so(finished: Path, tmp_path: Path) -> None:
    """The real process on a lock that holds another space: a typed error, and nothing is scored."""
    run = unsearched(finished, tmp_path)
    facts = json.loads((run / "config.lock.json").read_text())["facts"]
    (run / "config.lock.json").unlink()
    lock(run, {**facts, "space": "0" * 64})
    heard: queue.SimpleQueue[tuple[object, dict[str, str] | None]] = queue.SimpleQueue()
    job = {"run": str(run), "index": 0, "device": "cpu", "threads": 1}
    worker = Helper(0, search_workers._START, job, heard)
    _, message = heard.get(timeout=120)
    worker.close()
    assert message is not None
    assert message["error"] == "MismatchError"
    assert "another space" in message["text"]
    assert RunFolder(run).left_ledgers == []
