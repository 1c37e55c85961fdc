"""A summary as it would be, had another budget of the run been its first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claspkit.profiles.errors import CorruptError


def nominals(summary: dict[str, Any]) -> list[int]:
    """The budgets of a finished run in visual tokens, the first one first."""
    rows: Sequence[dict[str, Any]] = summary.get("budgets", ())
    return [row["nominal"] for row in rows] or [summary["budget"]["nominal"]]


def has_classes(summary: dict[str, Any]) -> bool:
    """Whether the classes of every further budget are in it; earlier versions wrote those of the first one alone."""
    return all("class_rows" in row for row in summary.get("budgets", ())[1:])


def at_budget(summary: dict[str, Any], nominal: int) -> dict[str, Any]:
    """The summary with the classes, measures and default of one budget; of the first budget, as it is.

    What is said about the first budget alone (``pooled``) is None at a further one.

    Args:
        summary: what :func:`claspkit.calib.outcome.finish` wrote, or the same read back from summary.json.
        nominal: visual tokens of one of :func:`nominals`.

    Raises:
        CorruptError: the summary is of an earlier version, which wrote the classes of the first budget alone.
    """
    if nominal == nominals(summary)[0]:
        return summary
    row = next(each for each in summary["budgets"] if each["nominal"] == nominal)
    if "class_rows" not in row:
        raise CorruptError(
            f"summary.json is of an earlier version of claspkit, which wrote the classes of the first budget alone and "
            f"not those at {nominal} tokens; run the calibration again, it is quick now"
        )
    budget = {name: row[name] for name in ("nominal", "schedule", "stages")}
    means = {name: row[name] for name in ("mean_tokens_leaving", "mean_tokens_entering")}
    prefill = {**summary["budget"]["prefill"], "flops_pruned": row["flops"]}
    return {
        **summary,
        "profile_id": row["profile_id"],
        "default_candidate": row["default_candidate"],
        "budget": {**summary["budget"], **budget, **means, "prefill": prefill},
        "classes": row["class_rows"],
        "measures": row["measures"],
        "pooled": None,
    }
