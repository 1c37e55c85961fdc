"""Run the small calibration in processes that are cheap to start and to kill: forks of one that has the model loaded.

One JSON line per run on standard input: ``run``, its folder; ``workers`` of the search; ``log``, a file that gets a
byte whenever a group of candidates is about to be scored; ``options``, changes to the small configuration. Answers, a
JSON object a line: ``{"pid"}``, ``{"workers": pids}`` where there are any, and ``{"status"}``, the exit code or minus
the signal.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from pipeline_runs import run_until

from claspkit.calib import helper, pipeline, search_worker
from claspkit.calib.evaluator import BlockResult, Evaluator
from claspkit.calib.samples import Sample
from claspkit.calib.space import Candidate
from claspkit.profiles.errors import ClaspError
from claspkit.runtime.models import load_model

_SHARED = ("pipe:", ".lock", ".jsonl")  # what a fresh interpreter would not have inherited


class Forked:
    """A search worker as ``subprocess.Popen`` would start it, but forked: no interpreter, no imports, no loading."""

    def __init__(self, _: Sequence[str], *, stderr: IO[bytes], **__: object) -> None:
        (read_task, write_task), (read_answer, write_answer) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.setpgid(0, 0)
            for source, target in ((read_task, 0), (write_answer, 1), (stderr.fileno(), 2)):
                os.dup2(source, target)
            for number in map(int, os.listdir("/proc/self/fd")):
                with contextlib.suppress(OSError):
                    if number > 2 and any(part in os.readlink(f"/proc/self/fd/{number}") for part in _SHARED):
                        os.close(number)
            sys.stdin = io.TextIOWrapper(os.fdopen(0, "rb"))
            search_worker.serve(sys.stdin.buffer.readline())
        os.close(read_task)
        os.close(write_answer)
        self.stdin, self.stdout = os.fdopen(write_task, "wb"), os.fdopen(read_answer, "rb")
        self._status: int | None = None
        answer(workers=[self.pid])

    def kill(self) -> None:
        """End it."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


class Forking:
    """In the place of the module ``subprocess``."""

    Popen = Forked
    PIPE = subprocess.PIPE
    TimeoutExpired = subprocess.TimeoutExpired


def answer(**message: object) -> None:
    """Tell the test."""
    os.write(3, json.dumps(message).encode() + b"\n")


def note_work(log: Path) -> None:
    """Write a byte before every group that is scored: what was begun and is not in the ledger was lost."""
    target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    evaluate, unpruned = Evaluator.evaluate, Evaluator.unpruned

    def noted(
        self: Evaluator, block: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        groups = len(dict.fromkeys(candidate.prototype for candidate in candidates))
        found = evaluate(self, block, candidates, guesses)
        for _ in range(groups):
            os.write(target, b".")
            yield next(found)

    def noted_unpruned(self: Evaluator, block: Sequence[Sample]) -> BlockResult:
        os.write(target, b".")
        return unpruned(self, block)

    Evaluator.evaluate, Evaluator.unpruned = noted, noted_unpruned  # type: ignore[method-assign,assignment]  # a test spies


def calibrate(asked: dict[str, Any]) -> int:
    """Do one run; returns the exit code."""
    note_work(Path(asked["log"]))
    try:
        run_until("profile", Path(asked["run"]), search_workers=asked["workers"], **asked["options"])
    except ClaspError as error:
        return error.exit_code
    return 0


def main() -> None:
    """Answer until the input ends."""
    torch.set_num_threads(1)
    os.dup2(1, 3)  # answers; what else is printed goes to standard error
    os.dup2(2, 1)
    remembered = functools.lru_cache(load_model)
    remembered("mini", device="cpu", dtype=None, revision=None)
    pipeline.load_model = search_worker.load_model = remembered  # type: ignore[attr-defined]
    helper.subprocess = Forking  # type: ignore[attr-defined,assignment]  # only these names of it are used there
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                os._exit(calibrate(json.loads(line)))
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        answer(pid=child)
        answer(status=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
