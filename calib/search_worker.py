"""A process that searches classes, one after the other; started by ``search_workers``, never by a person."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import torch
from transformers.utils import logging

from claspkit.profiles.errors import MismatchError

from .budgets import budget_spaces, find_candidate
from .config import RunConfig, config_of, read_lock
from .evaluator import Evaluator
from .finite import FiniteEvaluator
from .folder import RunFolder, read_samples
from .ledger import HOLDOUT, SEARCH
from .own_files import kept_prototypes
from .run_model import load_run_model, open_run_features
from .schedule import run_budgets
from .search import ClassData, Search
from .serving import Tell, serve_job
from .space import Space, make_space
from .worker_ledgers import open_beside

Tasks = queue.SimpleQueue[dict[str, Any]]

_GONE: Final = 1  # exit status of a worker whose parent is gone or has no work for it


def serve(job: bytes) -> NoReturn:
    """Do a job and end the process.

    Args:
        job: a JSON object: ``run``, a folder with a locked configuration, samples and a filled feature cache;
            ``index`` of this worker, ``device`` and ``threads`` to compute with.

    Every further line on standard input is a task: ``split`` (search or holdout), ``class``, the uids of its
    ``samples`` in order, and for the holdout the ids of the ``candidates``. Answers on standard output, one JSON
    object a line: ``{"advance": evaluations}`` after a piece of work, ``{"done": class}`` after a task, ``{"error",
    "text"}`` with the name of a typed error. Scores go to the worker's own ledger. The end of standard input, or a
    line that is no task, ends the process at once: a line of the ledger that this tears is cut off by its next reader.
    """
    serve_job(job, _work)


def _work(job: dict[str, Any], tell: Tell) -> None:
    tasks: Tasks = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    torch.set_num_threads(job["threads"])
    logging.disable_progress_bar()
    folder = RunFolder(Path(job["run"]))
    samples = {sample.uid: sample for sample in read_samples(folder).samples}
    with _searching(folder, job, tell) as (search, config, spaces):
        while True:
            task = tasks.get()
            taken = tuple(samples[uid] for uid in task["samples"])
            if task["split"] == SEARCH:
                search.winners(ClassData(task["class"], taken, ()), config.strategy)
            elif task["split"] == HOLDOUT:
                candidates = [find_candidate(spaces, name) for name in task["candidates"]]
                search.holdout(ClassData(task["class"], (), taken), candidates)
            tell(done=task["class"])


@contextmanager
def _searching(
    folder: RunFolder, job: dict[str, Any], tell: Tell
) -> Iterator[tuple[Search, RunConfig, Sequence[Space]]]:
    """The run's search, on a model of this process and a ledger of its own."""
    facts = read_lock(folder.root)
    config = config_of(facts)
    loaded = load_run_model(config, facts, folder, job["device"])
    depth = loaded.spec.vision_depth
    space = make_space(loaded.spec.default_layer, config.rhos, kept_prototypes(folder), depth)
    if space.sha256 != facts["space"]:
        raise MismatchError("the run changed while it was being searched: another space. Run the same command again.")
    sizes = loaded.spec.visual_tokens, loaded.spec.decoder_depth
    budgets = run_budgets(config.budget, config.schedule, config.stages, *sizes)
    spaces = budget_spaces(space, budgets)
    with (
        open_run_features(loaded, config, facts, folder, ()) as store,
        closing(open_beside(folder.worker_ledger(job["index"]), folder.ledger)) as ledger,
    ):
        evaluator = FiniteEvaluator(Evaluator(loaded, store, budgets[0].stages, config.max_new_tokens))
        yield (
            Search(spaces, evaluator, ledger, config.block_size, lambda count: tell(advance=count), config.seed),
            config,
            spaces,
        )


def _listen(tasks: Tasks) -> None:
    """Take tasks until the parent says otherwise, or dies, which leaves nobody to work for."""
    for line in sys.stdin.buffer:
        try:
            task = json.loads(line)
        except ValueError:
            break
        tasks.put(task)
    os._exit(_GONE)
