"""The parent's end of the processes that search classes side by side: hand out, listen, take over, bury."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import torch

from .config import RunConfig
from .evaluator import BlockResult
from .folder import RunFolder
from .helper import Helper, start_of
from .ledger import HOLDOUT, SEARCH, Ledger
from .progress import Advance
from .samples import Sample
from .search import ClassData, Search
from .space import Candidate, Space
from .worker_ledgers import copy_over, take_over
from .workers import worker_device

_START: Final = start_of("search_worker")
_WHAT: Final = "a process of the search"
_KEPT: Final = (
    "What it scored is kept; run the same command again to continue. If memory was short, with fewer --search-workers "
    "or a smaller --block-size."
)

Task = dict[str, Any]


class SearchCrew:
    """Processes that fill the run's ledger, a class at a time; what they leave there is what one process leaves.

    The caller then goes through the same steps itself and finds every score in the ledger. With one worker there is
    no process, and the caller computes what it does not find.

    Attributes:
        replayed: what the caller's own steps are to tell of their progress: nothing where workers told it before.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        spaces: Sequence[Space],
        ledger: Ledger,
        count: int,
        advance: Advance,
    ) -> None:
        """Start nobody yet.

        Args:
            config: what was asked.
            folder: of the run.
            spaces: the candidates, one space per budget.
            ledger: of the run, open for writing.
            count: workers, at most; on a CPU they share this process's threads.
            advance: hears of candidate evaluations done, found in the ledger, or saved.
        """
        self._config, self._folder, self._spaces, self._ledger = config, folder, spaces, ledger
        self._count, self._advance = count, advance
        self._heard: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._team: list[Helper] = []
        self.replayed: Advance = advance if count == 1 else _nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers at once, also on Ctrl-C, and keep what they finished."""
        for worker in self._team:
            worker.close()
        if self._team:
            take_over(self._ledger, self._folder.left_ledgers)

    def search(self, classes: Sequence[ClassData]) -> None:
        """Score all that the searches of these classes ask for.

        Raises:
            ResourceError: a worker died.
            ClaspError: what a worker met.
        """
        strategy = self._config.strategy
        self._share(
            (_task(SEARCH, data.intent, data.search), partial(Search.winners, data=data, strategy_name=strategy))
            for data in classes
        )

    def holdout(self, compared: Sequence[tuple[ClassData, Sequence[Candidate]]]) -> None:
        """Score candidates and the unpruned model on the holdouts; errors as of :meth:`search`."""
        self._share(
            (
                _task(HOLDOUT, data.intent, data.holdout, candidates=[candidate.id for candidate in candidates]),
                partial(Search.holdout, data=data, candidates=candidates),
            )
            for data, candidates in compared
        )

    def _share(self, work: Iterable[tuple[Task, Callable[[Search], object]]]) -> None:
        """Hand out the tasks whose scores the ledger does not hold yet."""
        if self._count == 1:
            return
        waiting = deque(task for task, replay in work if not self._known(replay))
        idle = deque(self._staff(min(self._count, len(waiting))))
        busy: set[Helper] = set()
        while waiting or busy:
            while waiting and idle:
                worker = idle.popleft()
                worker.tell(waiting.popleft())
                busy.add(worker)
            worker, message = self._heard.get()
            if message is None:
                raise worker.death_of(_WHAT, _KEPT)
            if "error" in message:
                raise worker.met(message)
            if "done" in message:
                busy.remove(worker)
                idle.append(worker)
            else:
                self._advance(int(message["advance"]))
        copy_over(self._ledger, [self._folder.worker_ledger(worker.index) for worker in self._team])

    def _known(self, replay: Callable[[Search], object]) -> bool:
        """Whether the ledger holds everything that a piece of work asks for."""
        told: list[int] = []
        config = self._config
        try:
            replay(Search(self._spaces, _Nobody(), self._ledger, config.block_size, told.append, config.seed))
        except _Absent:
            return False
        self._advance(sum(told))
        return True

    def _staff(self, count: int) -> list[Helper]:
        """The team, grown to ``count`` if it is smaller; a worker is started once."""
        threads = max(1, torch.get_num_threads() // self._count)
        for index in range(len(self._team), count):
            device = worker_device(self._config.device, index)
            job = {"run": str(self._folder.root), "index": index, "device": device, "threads": threads}
            self._team.append(Helper(index, _START, job, self._heard))
        return self._team


class _Absent(Exception):
    """Something is not in the ledger."""


class _Nobody:
    """An evaluator that computes nothing."""

    def evaluate(
        self, samples: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        raise _Absent

    def unpruned(self, samples: Sequence[Sample]) -> BlockResult:
        raise _Absent


def _task(split: str, intent: str, samples: Sequence[Sample], **more: object) -> Task:
    return {"split": split, "class": intent, "samples": [sample.uid for sample in samples], **more}


def _nothing(_: int) -> None:
    pass
