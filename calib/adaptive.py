"""One mean compute target, spent on the classes where it helps most: chosen on the search split, judged on the holdout.

The rule is that of the classes' configurations: what looks better on the search split is only taken where the holdout,
which the choice never saw, shows that it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean

import numpy as np

from .allocation import allocate
from .budgets import BudgetResult
from .evidence import ALPHA, holm, over_classes, over_classes_p, sign_flip_p
from .ledger import HOLDOUT, SEARCH, Ledger
from .search import ClassData


@dataclass(frozen=True)
class Adaptive:
    """What came of letting the classes have different budgets.

    Attributes:
        choice: class id -> number of its budget among the run's, 0 being the target; every class has one.
        samples: class id -> search samples that its budgets were compared on; classes without a search are absent.
        search_gain: rise of the mean search score over the classes that have holdout samples, in 0..1; optimistic,
            being a maximum.
        flops: mean prefill FLOPs over the same classes, every class weighing the same.
        target_flops: those of the target budget.
        uniform: holdout mean with the target budget for all classes, every class weighing the same; None without data.
        score: the same with the chosen budgets.
        difference: score - uniform, paired; None where nothing was tested.
        ci_low: lower end of its 95 % interval, pictures resampled.
        ci_high: upper end.
        p_value: one-sided, "the chosen budgets are not better".
        accepted: whether the profile with the chosen budgets is written.
        reason: why, in words.
    """

    choice: Mapping[str, int]
    samples: Mapping[str, int]
    search_gain: float
    flops: float
    target_flops: int
    uniform: float | None
    score: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    accepted: bool
    reason: str


@dataclass(frozen=True)
class Estimate:
    """What a class would score at each of the run's budgets, by the search split alone.

    Attributes:
        scores: mean score per budget, 0..1; None where it is not finite.
        samples: how many search samples that is from, the same ones at every budget.
    """

    scores: tuple[float | None, ...]
    samples: int


def estimate(
    classes: Sequence[ClassData], results: Sequence[BudgetResult], ledger: Ledger, seed: int
) -> dict[str, Estimate]:
    """Estimate on the search split what the profile of every budget would score in every class.

    Judged as the holdout will judge it: the search's winner counts with its own score only where the paired test with
    Holm's correction over the classes of its budget would take it on these samples; elsewhere the default's score
    counts. All budgets of a class are compared on the samples, from the front, that default and winner of every budget
    were scored on.

    Args:
        classes: the samples used.
        results: one per budget, with the searches' winners.
        ledger: with the finished searches.
        seed: of the tests where they are drawn.

    Returns:
        class id -> estimate, of the classes that were searched.
    """
    searched = [
        (number, data) for number, data in enumerate(classes) if results[0].verdicts[number].winner is not None
    ]
    pairs = [_pairs(number, data, results, ledger) for number, data in searched]
    columns = [
        _column([found[number] for found in pairs], [data for _, data in searched], seed)
        for number in range(len(results))
    ]
    return {
        data.intent: Estimate(tuple(column[place] for column in columns), len(pairs[place][0][0]))
        for place, (_, data) in enumerate(searched)
    }


def _pairs(
    number: int, data: ClassData, results: Sequence[BudgetResult], ledger: Ledger
) -> list[tuple[list[float], list[float]]]:
    """Per budget the scores of default and winner on the search samples that all of these have."""
    found = []
    for result in results:
        default = result.space.default
        winner = result.verdicts[number].winner or default
        found.append(
            (ledger.scores(SEARCH, data.intent, default.id), ledger.scores(SEARCH, data.intent, winner.id))
        )
    count = min(len(scores) for pair in found for scores in pair)
    return [(default[:count], best[:count]) for default, best in found]


def _column(
    pairs: Sequence[tuple[list[float], list[float]]], classes: Sequence[ClassData], seed: int
) -> list[float | None]:
    """Every class's score at one budget, of (default, winner) scores on the same samples."""
    tested: dict[int, float] = {}
    for number, ((default, best), data) in enumerate(zip(pairs, classes, strict=True)):
        differences = np.array(best) - np.array(default)
        if differences.any() and np.isfinite(differences).all():
            pictures = [sample.image_sha256 for sample in data.search[: len(default)]]
            tested[number] = sign_flip_p(differences, pictures, seed)
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = []
    for number, (default, best) in enumerate(pairs):
        scores = best if corrected.get(number, 1.0) < ALPHA else default
        found.append(fmean(scores) if scores and all(map(isfinite, scores)) else None)
    return found


def judge_adaptive(
    classes: Sequence[ClassData], results: Sequence[BudgetResult], ledger: Ledger, costs: Sequence[int], seed: int
) -> Adaptive:
    """Choose budgets on the search split, and let the holdout say whether they are better than the first one for all.

    At its budget a class has the configuration that this budget's own verdict gives it. Classes without a search keep
    the first budget; those without samples count in no mean.

    Args:
        classes: the samples used.
        results: one per budget, the target first; at least two.
        ledger: with all scores.
        costs: prefill FLOPs at every budget.
        seed: of the resampling.
    """
    estimates = estimate(classes, results, ledger, seed)
    open_ = [intent for intent, found in estimates.items() if found.scores[0] is not None]
    chosen = dict(zip(open_, allocate([estimates[intent].scores for intent in open_], costs), strict=True))
    choice = {data.intent: chosen.get(data.intent, 0) for data in classes}
    gains = [
        (estimates[intent].scores[number] or 0.0) - (estimates[intent].scores[0] or 0.0)
        for intent, number in chosen.items()
    ]
    measured = [choice[data.intent] for data in classes if data.holdout]
    found = Adaptive(
        choice=choice,
        samples={intent: each.samples for intent, each in estimates.items()},
        search_gain=sum(gains) / max(1, len(measured)),
        flops=fmean(costs[number] for number in measured) if measured else float(costs[0]),
        target_flops=costs[0],
        uniform=None,
        score=None,
        difference=None,
        ci_low=None,
        ci_high=None,
        p_value=None,
        accepted=False,
        reason="no other distribution of the budgets over the classes scores higher on the search split",
    )
    return _tested(found, classes, results, ledger, seed) if any(choice.values()) else found


def _tested(
    found: Adaptive, classes: Sequence[ClassData], results: Sequence[BudgetResult], ledger: Ledger, seed: int
) -> Adaptive:
    """The same with what the holdout says."""
    measured = [(number, data) for number, data in enumerate(classes) if data.holdout]

    def scores(choice: Mapping[str, int]) -> list[np.ndarray]:
        chosen = (results[choice[data.intent]].verdicts[number].chosen for number, data in measured)
        names = zip(measured, chosen, strict=True)
        return [np.array(ledger.scores(HOLDOUT, data.intent, each.id)) for (_, data), each in names]

    uniform, own = scores(dict.fromkeys(found.choice, 0)), scores(found.choice)
    if not all(np.isfinite(values).all() for values in (*uniform, *own)):
        return replace(found, reason="a score on the holdout is not finite, so nothing could be compared")
    pictures = [[sample.image_sha256 for sample in data.holdout] for _, data in measured]
    differences = [mine - its for mine, its in zip(own, uniform, strict=True)]
    centre, low, high = over_classes(differences, pictures, seed)
    p_value = over_classes_p(differences, pictures, seed)
    accepted = p_value < ALPHA and centre > 0
    told = f"one budget for all on the holdout (p = {p_value:.3g})"
    return replace(
        found,
        uniform=fmean(float(values.mean()) for values in uniform),
        score=fmean(float(values.mean()) for values in own),
        difference=centre,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        accepted=accepted,
        reason=f"the classes' own budgets beat {told}"
        if accepted
        else f"the classes' own budgets looked better on the search split but do not beat {told}",
    )
