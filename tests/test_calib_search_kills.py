"""Two hundred kills of the search at random moments: only the group in work is lost, and nothing comes out else."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from fault_counts import tell
from pipeline_runs import calibrate, data_of
from test_calib_workers import assert_gone

from claspkit.calib.cli import main
from claspkit.calib.folder import RunFolder
from claspkit.calib.ledger import Entry, Ledger
from claspkit.calib.worker_ledgers import read_all
from claspkit.profiles.files import read_profile

KILLS = {1: 140, 2: 60}
"""Kills by the number of search workers; with several, run and workers are hit in turn."""

LONGEST = 0.6  # seconds from the start of a search to its kill; a search takes several times as long


class Server:
    """A process that forks the runs, see ``search_server``."""

    def __init__(self, said: IO[bytes]) -> None:
        """Start it; ``said`` takes what is meant for people."""
        script = Path(__file__).with_name("search_server.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )

    def start(self, **asked: object) -> int:
        """Start a run; returns its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self.hear()["pid"])

    def hear(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        assert self._process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all runs."""
    with (tmp_path_factory.mktemp("server") / "said").open("wb") as said:
        found = Server(said)
        yield found
        found.close()


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two classes in small blocks."""
    return {"data": str(data_of(tmp_path_factory.mktemp("data"), ["counting", "object"])), "block_size": 3}


@pytest.fixture(scope="module")
def whole(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody killed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    calibrate(run, **options)
    return run


def groups(entries: list[Entry]) -> set[tuple[str, str, int, str]]:
    """What is scored and written at once: a prototype's candidates on a block."""
    return {(e.split, e.intent, e.block, e.candidate.split("/")[0]) for e in entries}


def recorded(run: Path) -> list[Entry]:
    """All scores, in the run's ledger or a worker's."""
    ledger = read_all(RunFolder(run))
    return ledger.entries() if ledger is not None else []


def wait_for_search(server: Server, run: Path, pid: int, workers: int) -> tuple[list[int], int | None]:
    """Wait until the run has opened its ledger and has its workers; returns these, and its status if it has ended."""
    lock, helpers = run / "ledger.jsonl.lock", list[int]()
    while True:
        if workers == 1:
            try:
                if json.loads(lock.read_text())["pid"] == pid:
                    return helpers, None
            except (FileNotFoundError, ValueError):
                pass
            if not Path(f"/proc/{pid}/task").exists():
                return helpers, int(server.hear()["status"])
            time.sleep(0.001)
            continue
        answer = server.hear()
        if "status" in answer:
            return helpers, int(answer["status"])
        helpers += answer["workers"]
        if len(helpers) == workers:
            return helpers, None


def ended(server: Server) -> int:
    """The status of the run, whatever else was still to be told."""
    while "status" not in (answer := server.hear()):
        pass
    return int(answer["status"])


def inspected(run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What ``claspkit inspect`` says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(run), "--json"])
    assert stop.value.code == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.long
@pytest.mark.parametrize("workers", list(KILLS))
def test_kills_at_random_moments(
    workers: int,
    server: Server,
    whole: Path,
    options: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Killed over and over until it is done: the same profile and scores as the run that was left alone."""
    luck, log = random.Random(workers), tmp_path / "log"
    log.touch()
    kills = runs = lost = 0
    while kills < KILLS[workers]:
        run = Path(shutil.copytree(whole, tmp_path / "run"))
        for name in ("ledger.jsonl", "summary.json", "report.html", "profile/profile.json"):
            (run / name).unlink()
        runs += 1
        while True:
            before, begun = recorded(run), log.stat().st_size
            pid = server.start(run=str(run), workers=workers, log=str(log), options=options)
            helpers, status = wait_for_search(server, run, pid, workers)
            if status is None:
                time.sleep(luck.uniform(0, LONGEST))
                victim = luck.choice([pid, *helpers])
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    victim = 0  # it was done
                status = ended(server)
                assert_gone(helpers)
            after = recorded(run)
            known, held = {entry.key: entry for entry in after}, groups(after)
            assert all(known[entry.key] == entry for entry in before)
            redone = log.stat().st_size - begun - len(held - groups(before))
            if status == 0:
                assert redone == 0
                break
            assert status == (-signal.SIGKILL if victim == pid else 5)
            assert 0 <= redone <= workers  # one group each, of the block in work
            found = inspected(run, capsys)["progress"]["evaluations"]
            assert found == sum(len(entry.scores) for entry in after)
            kills += 1
            lost += redone
        assert read_profile(run / "profile").profile_id == read_profile(whole / "profile").profile_id
        assert Ledger.read(run / "ledger.jsonl").sha256 == Ledger.read(whole / "ledger.jsonl").sha256
        assert RunFolder(run).left_ledgers == []
        shutil.rmtree(run)
    with capsys.disabled():
        tell(f"search with {workers} workers killed", kills, f"{runs} runs, {lost} groups scored twice, same profiles")
    assert runs < kills  # several kills a run
