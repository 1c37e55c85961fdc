"""One class of a run as it stands: the verdict of a finished one, or how far an unfinished one came."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from .ledger import HOLDOUT, SEARCH, UNPRUNED
from .race_log import race_log
from .search import MIN_SAMPLES, ClassData
from .search_points import search_points
from .strategies import RACES
from .view import RunView


def class_facts(view: RunView, data: ClassData) -> dict[str, Any]:
    """Facts of one class, as JSON.

    Returns:
        ``intent``, ``name``, ``n_search``, ``n_holdout``, ``state`` in words, ``unpruned`` and ``default`` (holdout
        scores so far, 0..1), ``tested``, ``score``, ``chosen``, ``difference``, ``ci_low``, ``ci_high``, ``p_holm``,
        ``decision`` and ``reason`` (of a finished run; else None), and ``best_so_far``: what leads the search split.
    """
    row = _verdict(view, data)
    intent = next(each for each in view.taxonomy.intents if each.id == data.intent)
    return {
        "intent": data.intent,
        "name": intent.name,
        "n_search": len(data.search),
        "n_holdout": len(data.holdout),
        "state": "decided" if row else _state(view, data),
        "unpruned": row["unpruned"] if row else _mean(view, data, UNPRUNED),
        "default": row["default"] if row else _default(view, data),
        **{name: row[name] if row else None for name in _VERDICT},
        "best_so_far": _leader(view, data),
    }


_VERDICT = (
    *("tested", "score", "chosen", "difference", "ci_low", "ci_high", "p_value", "p_holm"),
    *("decision", "reason"),
)


def _verdict(view: RunView, data: ClassData) -> dict[str, Any] | None:
    rows: Sequence[dict[str, Any]] = view.summary["classes"] if view.summary else ()
    return next((row for row in rows if row["intent"] == data.intent), None)


def _state(view: RunView, data: ClassData) -> str:
    """How far the first budget's search of a class is, in words."""
    if min(len(data.search), len(data.holdout)) < MIN_SAMPLES:
        return "too few samples for a search"
    ledger = view.ledger
    if ledger is None or not ledger.candidates(SEARCH, data.intent):
        return "waiting"
    if held := ledger.candidates(HOLDOUT, data.intent):
        done = min(len(ledger.scores(HOLDOUT, data.intent, name)) for name in held)
        return "holdout scored, not decided" if done == len(data.holdout) else "scoring the holdout"
    if not view.spaces or view.config.strategy not in RACES:
        return "searching"
    space, sizes = view.spaces[0], data.search_blocks(view.config.block_size)
    scores = {c.id: ledger.scores(SEARCH, data.intent, c.id) for c in space.candidates}
    rungs = race_log(space, sizes, scores)
    if not rungs:
        return "searching"
    if rungs[-1].complete:
        return "raced"
    return f"racing: rung {len(rungs)}, {len(rungs[-1].standings)} candidates on {rungs[-1].samples} samples"


def _default(view: RunView, data: ClassData) -> float | None:
    return _mean(view, data, view.spaces[0].default.id) if view.spaces else None


def _mean(view: RunView, data: ClassData, candidate: str) -> float | None:
    scores = view.ledger.scores(HOLDOUT, data.intent, candidate) if view.ledger else []
    return fmean(scores) if scores else None


def _leader(view: RunView, data: ClassData) -> dict[str, Any] | None:
    """The candidate that saw most search samples and is best on them; the default on a tie. Optimistic."""
    if view.ledger is None or not view.spaces:
        return None
    space = view.spaces[0]
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
