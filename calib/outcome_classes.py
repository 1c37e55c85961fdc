"""What the summary says about the classes at one budget: the verdict, the evidence, and the search's scores."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from claspkit.profiles.taxonomy import Intent, Taxonomy

from .budgets import BudgetResult
from .finite import all_finite
from .ledger import SEARCH, UNPRUNED, Ledger
from .not_finite import not_finite, unpruned_reason
from .search import ClassData, Verdict
from .space import Space


def class_rows(
    taxonomy: Taxonomy, classes: Sequence[ClassData], result: BudgetResult, ledger: Ledger
) -> list[dict[str, Any]]:
    """One JSON object per class, in the classes' order. Scores are 0..1; None where there is none.

    Args:
        taxonomy: the classes' names.
        classes: the samples used.
        result: what was found at the budget.
        ledger: with all scores.
    """
    return [
        _row(result.space, ledger, *each) for each in zip(taxonomy.intents, classes, result.verdicts, strict=True)
    ]


def _row(space: Space, ledger: Ledger, intent: Intent, data: ClassData, verdict: Verdict) -> dict[str, Any]:
    paired, chosen = verdict.paired, verdict.chosen
    return {
        "intent": intent.id,
        "name": intent.name,
        "n_search": len(data.search),
        "n_holdout": len(data.holdout),
        "unpruned": verdict.unpruned_score,
        "default": verdict.default_score,
        "tested": verdict.winner.id if verdict.winner else None,
        "chosen": chosen.id,
        "layers": list(chosen.prototype.layers),
        "weights": list(chosen.prototype.weights),
        "rho": chosen.rho,
        "decision": "searched" if verdict.searched else "kept_default",
        "score": paired.score if paired else None,
        "difference": paired.difference if paired else None,
        "ci_low": paired.ci_low if paired else None,
        "ci_high": paired.ci_high if paired else None,
        "p_value": paired.p_value if paired else None,
        "p_holm": verdict.p_holm,
        "reason": verdict.reason,
        "not_finite": _marks(space, ledger, intent.id),
        "unpruned_reason": unpruned_reason(ledger, intent.id),
        "published_rho": intent.published_rho,
        "curves": _curves(space, ledger, intent.id),
    }


def _marks(space: Space, ledger: Ledger, intent: str) -> list[dict[str, Any]]:
    """Scores that are not finite: of the first budget's summary those of all budgets, of a further one its own."""
    marks = not_finite(ledger, intent)
    if space.further is None:
        return marks
    own = f"@{space.further.nominal}"
    return [mark for mark in marks if mark["candidate"] == UNPRUNED or mark["candidate"].endswith(own)]


def _curves(space: Space, ledger: Ledger, intent: str) -> dict[str, list[list[float]]]:
    """Mean search-split score over rho, per prototype: name -> [[rho, score], ...]. Optimistic at its maximum.

    A candidate with a score that is not finite has no point.
    """
    curves: dict[str, list[list[float]]] = {}
    for candidate in space.candidates:
        scores = ledger.scores(SEARCH, intent, candidate.id)
        if all_finite(scores):
            curves.setdefault(candidate.prototype.name, []).append([candidate.rho, fmean(scores)])
    return {name: sorted(points) for name, points in curves.items()}
