"""The plan of a calibration as text: one column per budget, refusals with their reasons below."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from claspkit.profiles.budget import Stage

from .plan_cache_table import LABEL, render_cache

WIDTH = 100
REFUSED = "refused"
_NOTHING = "-"
_MEANING = {
    "absolute": "a picture; budgets are tokens a picture",
    "share": "of the reference picture; budgets are shares of each picture's own",
}

Row = Mapping[str, Any]


def render_plan(plan: Row) -> str:
    """Lay a plan of :func:`calib.plan.make_plan` out for a terminal of 100 columns."""
    model, run = plan["model"], plan["calibration"]
    head = {
        "model": model["id"],
        "family": model["family"],
        "sizes from": model["sizes_from"],
        "visual tokens": f"{model['visual_tokens']} {_MEANING[model['scaling']]}",
        "decoder layers": model["decoder_layers"],
    }
    tail = {
        "samples": f"{run['samples']} ({run['per_class']} a class)",
        "prototypes": run["prototypes"],
        "candidates": run["candidates"],
        "search space": run["space"],
        "evaluations, exhaustive": _evaluations(plan),
    }
    parts = [_facts(head), _budgets(plan), *_refusals(plan["budgets"])]
    note = f"counted with {model['text_tokens']} text tokens, batch 1, keys and values of 2 bytes"
    return "\n\n".join([*parts, note, _facts(tail), render_cache(plan["cache"])])


def _evaluations(plan: Row) -> str:
    """Of one budget; a run with several takes that many times as much."""
    count, budgets = plan["calibration"]["evaluations_exhaustive"], sum("refused" not in row for row in plan["budgets"])
    return f"{count}" if budgets == 1 else f"{count} a budget, {budgets * count} for a run with all {budgets}"


def _facts(facts: Row) -> str:
    return "\n".join(f"{name:<{LABEL}} {value}" for name, value in facts.items())


def _budgets(plan: Row) -> str:
    """The table: labels, the unpruned model, then one column per budget."""
    total = plan["model"]["visual_tokens"]
    unpruned = {
        "asked": "unpruned",
        "nominal": total,
        "schedule": _NOTHING,
        "stages": [],
        "mean_tokens_leaving": total,
        "mean_tokens_entering": total,
        "flops_ratio": 1.0,
        "kv_share": 1.0,
        **plan["unpruned"],
    }
    rows = [unpruned, *plan["budgets"]]
    places = sorted({stage["after_layer"] for row in rows for stage in row.get("stages", ())})
    lines: list[tuple[str, Callable[[Row], object]]] = [
        ("budget", lambda row: row["asked"]),
        ("nominal tokens", lambda row: row["nominal"]),
        ("schedule", lambda row: row["schedule"]),
        *((f"kept {Stage(place, 1).place}", _kept(place)) for place in places),
        ("mean tokens leaving a layer", lambda row: f"{row['mean_tokens_leaving']:.1f}"),
        ("mean tokens entering a layer", lambda row: f"{row['mean_tokens_entering']:.1f}"),
        ("prefill, TFLOP", lambda row: _tera(row["prefill_flops"])),
        ("  as published (leaving)", lambda row: _tera(row["prefill_flops_leaving"])),
        ("speed-up limit by FLOPs", lambda row: f"{row['flops_ratio']:.2f}x"),
        ("KV cache, MiB", lambda row: f"{row['kv_bytes'] / 2**20:.1f}"),
        ("KV cache, share kept", lambda row: f"{100 * row['kv_share']:.1f} %"),
    ]
    columns = [[label.ljust(LABEL) for label, _ in lines]]
    for row in rows:
        told = [REFUSED, *[_NOTHING] * len(lines)] if "refused" in row else [str(value(row)) for _, value in lines[1:]]
        cells = [str(row["asked"]), *told[: len(lines) - 1]]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) for cell in cells])
    return "\n".join("  ".join(line) for line in zip(*columns, strict=True))


def _kept(place: int) -> Callable[[Row], object]:
    return lambda row: next((s["keep"] for s in row["stages"] if s["after_layer"] == place), _NOTHING)


def _refusals(rows: list[Row]) -> list[str]:
    return [textwrap.fill(row["refused"], WIDTH) for row in rows if "refused" in row]


def _tera(flops: int) -> str:
    return f"{flops / 1e12:.2f}" if flops >= 1e11 else f"{flops / 1e12:.4g}"
