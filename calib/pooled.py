"""One configuration for all classes: the baseline that says what being class-adaptive bought. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from .evidence import over_classes
from .finite import all_finite
from .halving import mean
from .ledger import HOLDOUT, SEARCH, Ledger
from .search import ClassData, Verdict
from .space import Candidate, Space


@dataclass(frozen=True)
class PooledChoice:
    """The configuration that does best over all classes together, on the search split.

    Attributes:
        candidate: the configuration.
        score: its mean over the classes, every class weighing the same, 0..1; optimistic, being a maximum.
        compared: number of candidates it was chosen from.
        samples: class id -> search samples that each of them was scored on.
    """

    candidate: Candidate
    score: float
    compared: int
    samples: Mapping[str, int]


def choose_pooled(space: Space, ledger: Ledger, intents: Sequence[str]) -> PooledChoice | None:
    """Choose among the candidates that every class has scored, on the samples that all of these candidates have.

    In a class, a strategy's candidates are scored on the same samples from the front, but not on equally many. So the
    candidates compared are those with scores in every class, each class's samples are the first that all of them were
    scored on, and later scores of those that went on are left aside. That is every candidate and sample of an
    exhaustive search; every candidate and the first rung of a race; and of two passes the first, with the second where
    all classes went on with the same prototype. A candidate with a score that is not finite is left out.

    Args:
        space: the candidates; the earlier one wins a tie, the default being first.
        ledger: with the finished search of these classes.
        intents: the classes that were searched.

    Returns:
        None without classes, or if no candidate has finite scores.
    """
    scores = {c: [ledger.scores(SEARCH, intent, c.id) for intent in intents] for c in space.candidates}
    comparable = {candidate: found for candidate, found in scores.items() if found and all(map(all_finite, found))}
    if not comparable:
        return None
    counts = [min(map(len, column)) for column in zip(*comparable.values(), strict=True)]
    means = {
        candidate: fmean(mean(values[:count]) for values, count in zip(found, counts, strict=True))
        for candidate, found in comparable.items()
    }
    best = max(means, key=lambda candidate: means[candidate])
    return PooledChoice(best, means[best], len(means), dict(zip(intents, counts, strict=True)))


def judge_pooled(
    choice: PooledChoice | None,
    classes: Sequence[ClassData],
    verdicts: Sequence[Verdict],
    space: Space,
    ledger: Ledger,
    seed: int,
) -> dict[str, Any] | None:
    """Compare profile, pooled configuration and default on the holdout, as JSON for the summary.

    Over the classes whose holdout has finite scores of the default, every class weighing the same, as in the headline
    of a run.

    Args:
        choice: what was chosen on the search split.
        classes: the samples used.
        verdicts: one per class, in the same order.
        space: the candidates.
        ledger: with the holdout scores of the pooled configuration in every class.
        seed: of the resampling.

    Returns:
        the candidate, how it was chosen, the three mean scores in 0..1, and three paired differences with 95 %
        intervals; None without a choice, or if it has no finite scores on the holdout.
    """
    pairs = zip(classes, verdicts, strict=True)
    measured = [(data, verdict) for data, verdict in pairs if verdict.default_score is not None]
    if choice is None or not measured:
        return None

    def scores(candidates: Sequence[Candidate]) -> list[np.ndarray]:
        names = zip(measured, candidates, strict=True)
        return [np.array(ledger.scores(HOLDOUT, data.intent, candidate.id)) for (data, _), candidate in names]

    default = scores([space.default] * len(measured))
    pooled = scores([choice.candidate] * len(measured))
    profile = scores([verdict.chosen for _, verdict in measured])
    if not all(np.isfinite(values).all() for values in pooled):
        return None
    pictures = [[sample.image_sha256 for sample in data.holdout] for data, _ in measured]

    def paired(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> dict[str, float]:
        differences = [mine - its for mine, its in zip(ours, theirs, strict=True)]
        centre, low, high = over_classes(differences, pictures, seed)
        return {"difference": centre, "ci_low": low, "ci_high": high}

    return {
        "candidate": choice.candidate.id,
        "compared": choice.compared,
        "search_samples": dict(choice.samples),
        "search_score": choice.score,
        "classes": len(measured),
        "default": _mean(default),
        "score": _mean(pooled),
        "profile": _mean(profile),
        "profile_to_default": paired(profile, default),
        "pooled_to_default": paired(pooled, default),
        "profile_to_pooled": paired(profile, pooled),
    }


def _mean(classes: Sequence[np.ndarray]) -> float:
    return fmean(float(values.mean()) for values in classes)
