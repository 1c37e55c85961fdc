"""One class of a run as it stands: the verdict of a finished one, or how far an unfinished one came."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from .ledger import HOLDOUT, SEARCH, UNPRUNED
from .race_log import race_log
from .search import MIN_SAMPLES, ClassData
from .search_points import search_points
from .space import Space
from .strategies import RACES
from .summary_budgets import at_budget, nominals
from .view import RunView
from .which_budget import budgets_of


def class_facts(view: RunView, data: ClassData, number: int = 0) -> dict[str, Any]:
    """Facts of one class at one budget, as JSON.

    Args:
        view: the run.
        data: the class.
        number: of the budget among the run's, the first being 0.

    Returns:
        ``intent``, ``name``, ``nominal`` (visual tokens of the budget; None where an unfinished run does not say),
        ``n_search``, ``n_holdout``, ``state`` in words, ``unpruned`` and ``default`` (holdout
        scores so far, 0..1), ``tested``, ``score``, ``chosen``, ``difference``, ``ci_low``, ``ci_high``, ``p_holm``,
        ``decision`` and ``reason`` (of a finished run; else None), and ``best_so_far``: what leads the search split.
    """
    row = _verdict(view, data, number)
    space = view.spaces[number] if view.spaces else None
    intent = next(each for each in view.taxonomy.intents if each.id == data.intent)
    return {
        "intent": data.intent,
        "name": intent.name,
        "nominal": budgets_of(view)[number][0],
        "n_search": len(data.search),
        "n_holdout": len(data.holdout),
        "state": "decided" if row else _state(view, data, space),
        "unpruned": row["unpruned"] if row else _mean(view, data, UNPRUNED),
        "default": row["default"] if row else _default(view, data, space),
        **{name: row[name] if row else None for name in _VERDICT},
        "best_so_far": _leader(view, data, space),
    }


_VERDICT = (
    *("tested", "score", "chosen", "difference", "ci_low", "ci_high", "p_value", "p_holm"),
    *("decision", "reason"),
)


def _verdict(view: RunView, data: ClassData, number: int) -> dict[str, Any] | None:
    rows: Sequence[dict[str, Any]] = ()
    if view.summary:
        rows = at_budget(view.summary, nominals(view.summary)[number])["classes"]
    return next((row for row in rows if row["intent"] == data.intent), None)


def _state(view: RunView, data: ClassData, space: Space | None) -> str:
    """How far the search of a class at one budget is, in words."""
    if min(len(data.search), len(data.holdout)) < MIN_SAMPLES:
        return "too few samples for a search"
    ledger = view.ledger
    if ledger is None or not ledger.candidates(SEARCH, data.intent):
        return "waiting"
    if held := ledger.candidates(HOLDOUT, data.intent):
        done = min(len(ledger.scores(HOLDOUT, data.intent, name)) for name in held)
        return "holdout scored, not decided" if done == len(data.holdout) else "scoring the holdout"
    if space is None or view.config.strategy not in RACES:
        return "searching"
    sizes = data.search_blocks(view.config.block_size)
    scores = {c.id: ledger.scores(SEARCH, data.intent, c.id) for c in space.candidates}
    rungs = race_log(space, sizes, scores)
    if not rungs:
        return "searching"
    if rungs[-1].complete:
        return "raced"
    return f"racing: rung {len(rungs)}, {len(rungs[-1].standings)} candidates on {rungs[-1].samples} samples"


def _default(view: RunView, data: ClassData, space: Space | None) -> float | None:
    return _mean(view, data, space.default.id) if space else None


def _mean(view: RunView, data: ClassData, candidate: str) -> float | None:
    scores = view.ledger.scores(HOLDOUT, data.intent, candidate) if view.ledger else []
    return fmean(scores) if scores else None


def _leader(view: RunView, data: ClassData, space: Space | None) -> dict[str, Any] | None:
    """The candidate that saw most search samples and is best on them; the default on a tie. Optimistic."""
    if view.ledger is None or space is None:
        return None
    points = search_points(space, data, view.ledger)
    if not points:
        return None
    best = max(points, key=lambda point: (point.samples, point.score, point.candidate == space.default.id))
    return {
        "candidate": best.candidate,
        "search_samples": best.samples,
        "search_score": best.score,
        "search_difference": best.difference,
        "search_error": best.error,
    }
