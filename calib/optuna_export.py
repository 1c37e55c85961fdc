"""A run's search as studies in an Optuna storage, for optuna-dashboard. The ledger stays the record; this is a view."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isfinite
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from claspkit.profiles.canonical import write_atomic
from claspkit.profiles.errors import UsageError

from .command import command_of
from .config import read_lock
from .folder import RunFolder
from .halving import mean, rungs
from .ledger import HOLDOUT, SEARCH, Ledger
from .optuna_quiet import quiet
from .space import split_id
from .worker_ledgers import read_all

SQLITE, JOURNAL = (".db", ".sqlite3"), (".log", ".journal")
"""Endings of a file and what they make of it: an SQLite database, or a journal of Optuna's."""

FACTS = ("model", "strategy", "seed", "budget", "per_class")
"""Options of the run that every study carries."""


def check_target(to: Path) -> None:
    """Refuse a file that cannot be written, before a search is run for it.

    Raises:
        UsageError: another ending, no such folder, or the file is there.
    """
    if to.suffix not in (*SQLITE, *JOURNAL):
        raise UsageError(
            f"{to} ends in none of {', '.join(SQLITE)} (an SQLite database) and {', '.join(JOURNAL)} (a journal)"
        )
    if not to.parent.is_dir():
        raise UsageError(f"{to} cannot be written: there is no folder {to.parent}")
    if to.exists():
        raise UsageError(f"{to} is there already; name another file, or delete it")


def export_optuna(run: Path, to: Path) -> dict[str, int]:
    """Write what a run's search has scored so far, one study per class, and per further budget of a run that has some.

    A trial is a candidate: its parameters are the prototype, rho, and for a point beside the grid the prototype's
    scores; its value is the mean over the samples it was seen on, with the means at the rungs of a race before. Who
    was seen on fewer samples than others of its class counts as pruned, so that the best trial is a candidate that
    went all the way; one with a score that is not finite failed.

    Args:
        run: run folder, finished or not.
        to: file to write; it must not exist.

    Returns:
        Study -> number of trials. A study has the name of its class, with ``@NOMINAL`` for a further budget.

    Raises:
        UsageError: ``to`` cannot be written, or the run has no scores.
        CorruptError: no run, or a damaged file.
    """
    check_target(to)
    facts, folder = read_lock(run), RunFolder(run)
    ledger = read_all(folder)
    classes = dict.fromkeys(entry.intent for entry in ledger.entries() if entry.split == SEARCH) if ledger else {}
    if ledger is None or not classes:
        raise UsageError(f"{run} has no scores yet. This makes them: {command_of(facts, run, 'claspkit search')}")
    found: dict[str, int] = {}
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / ("study" + to.suffix)
        storage = _open(file)
        for intent in classes:
            for study, names in _studies(ledger, intent).items():
                trials = _trials(ledger, intent, names)
                _write(storage, study, trials, {name: facts[name] for name in FACTS})
                found[study] = len(trials)
        if isinstance(storage, RDBStorage):
            storage.engine.dispose()
        try:
            write_atomic(to, file.read_bytes())
        except OSError as error:
            raise UsageError(f"{to} cannot be written ({error.strerror}); name another file") from None
    return found


def _open(file: Path) -> BaseStorage:
    if file.suffix in SQLITE:
        return RDBStorage(f"sqlite:///{file}")
    return JournalStorage(JournalFileBackend(str(file)))


def _write(storage: BaseStorage, name: str, trials: Sequence[FrozenTrial], facts: dict[str, object]) -> None:
    with quiet():
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    for fact, value in facts.items():
        study.set_user_attr(fact, value)
    study.add_trials(trials)


def _studies(ledger: Ledger, intent: str) -> dict[str, list[str]]:
    """Study -> candidates of a class at one budget, in the order in which they were first scored."""
    found: dict[str, list[str]] = {}
    for name in ledger.candidates(SEARCH, intent):
        nominal = split_id(name)[3]
        found.setdefault(intent if nominal is None else f"{intent}@{nominal}", []).append(name)
    return found


def _trials(ledger: Ledger, intent: str, names: Sequence[str]) -> list[FrozenTrial]:
    """Candidates of a class, in the order given."""
    scores = {name: ledger.scores(SEARCH, intent, name) for name in names}
    most = max(len(values) for values in scores.values())
    prototypes = tuple(dict.fromkeys(split_id(name)[0] for name in scores))
    steps = _steps(ledger, intent)
    return [
        _trial(name, values, prototypes, steps, len(values) == most, ledger.scores(HOLDOUT, intent, name))
        for name, values in scores.items()
    ]


def _steps(ledger: Ledger, intent: str) -> list[int]:
    """Samples seen at the end of every rung that a race over the class's blocks has."""
    blocks = {e.block: len(e.scores) for e in ledger.entries() if (e.split, e.intent) == (SEARCH, intent)}
    sizes = [blocks[number] for number in sorted(blocks)]
    reached = list(accumulate(sizes))
    return [reached[count - 1] for count in rungs(sizes)]


def _trial(
    name: str,
    scores: Sequence[float],
    prototypes: tuple[str, ...],
    steps: Sequence[int],
    whole: bool,
    holdout: Sequence[float],
) -> FrozenTrial:
    prototype, own, rho, _ = split_id(name)
    ranges: dict[str, BaseDistribution] = {
        "prototype": CategoricalDistribution(prototypes),
        "rho": FloatDistribution(0.0, 1.0),
    }
    params: dict[str, object] = {"prototype": prototype, "rho": rho}
    for place, score in enumerate(own or (), 1):
        ranges[f"score_{place}"], params[f"score_{place}"] = FloatDistribution(0.0, 1.0), score
    seen = sorted({*(step for step in steps if step < len(scores)), len(scores)})
    means = {step: fmean(scores[:step]) for step in seen}
    value = mean(scores)
    state = TrialState.FAIL if not isfinite(value) else TrialState.COMPLETE if whole else TrialState.PRUNED
    return create_trial(
        state=state,
        value=value if isfinite(value) else None,
        params=params,
        distributions=ranges,
        intermediate_values={step: found for step, found in means.items() if isfinite(found)},
        user_attrs={
            "candidate": name,
            "samples": len(scores),
            **({"holdout_score": fmean(holdout), "holdout_samples": len(holdout)} if _finite(holdout) else {}),
        },
    )


def _finite(scores: Sequence[float]) -> bool:
    return bool(scores) and all(map(isfinite, scores))
