"""The cost waterfall: from asking everything of everybody, nothing shared, down to what was computed."""

from __future__ import annotations

from .charts import folded_table, open_svg
from .run_costs import RunCosts
from .table import flops

_WIDTH, _LEFT, _RIGHT, _ROW = 640, 210, 560, 34


def costs_chart(costs: RunCosts) -> str:
    """Decoder FLOPs step by step, and encoder passes, as bars with their numbers.

    Returns:
        empty text where the ledger has no costs.
    """
    if not costs.counted or costs.flops_exhaustive is None:
        return ""
    whole, alone, done = costs.flops_exhaustive, costs.flops_alone, costs.flops
    # (name, from, to, kind): a bar spans from..to FLOPs
    steps = [
        ("everything asked, nothing shared", 0.0, whole, "whole"),
        ("not asked by the search", alone, whole, "saved"),
        ("shared between candidates", done, alone, "saved"),
        ("search, as computed", 0.0, done, "done"),
        ("holdout, as computed", done, done + costs.holdout_flops, "done"),
    ]
    passes = [
        ("one encoder pass per evaluation", costs.evaluations + costs.holdout_evaluations, "whole"),
        ("encoder passes made", costs.pictures, "done"),
    ]
    top = max(max(end for _, _, end, _ in steps), 1.0)
    parts = ['<text class="tick" x="12" y="16">decoder FLOPs</text>']
    y = 24
    for name, start, end, kind in steps:
        low, high = sorted((start, end))
        sign = ("−" if end >= start else "+") if kind == "saved" else ""
        told = sign + flops(high - low) if high > low else "0"
        parts.append(_bar(y, name, low / top, high / top, kind, told))
        y += _ROW
    parts.append(f'<text class="tick" x="12" y="{y + 18}">pictures through the vision encoder</text>')
    y += 26
    most = max(count for _, count, _ in passes) or 1
    for name, count, kind in passes:
        parts.append(_bar(y, name, 0.0, count / most, kind, f"{count:,}"))
        y += _ROW
    described = "; ".join(
        [f"{name}: {flops(abs(end - start))}" for name, start, end, _ in steps]
        + [f"{name}: {count:,}" for name, count, _ in passes]
    )
    title = "Where the compute went, and where it was saved"
    svg = open_svg("costs-chart", title, described, _WIDTH, y + 8, fixed=True)
    rows = [[name, flops(abs(end - start)), f"{100 * abs(end - start) / top:.1f} %"] for name, start, end, _ in steps]
    rows += [[name, f"{count:,} pictures", f"{100 * count / most:.1f} %"] for name, count, _ in passes]
    numbers = folded_table("Cost of the search, step by step", ["step", "cost", "share of the largest"], rows)
    region = '<div class="scroll" role="region" tabindex="0" aria-label="Cost waterfall, chart">'
    return f"{region}{svg}{''.join(parts)}</svg></div>{numbers}"


def _bar(y: int, name: str, low: float, high: float, kind: str, told: str) -> str:
    left = _LEFT + low * (_RIGHT - _LEFT)
    wide = max(2.0, (high - low) * (_RIGHT - _LEFT))
    return (
        f'<text class="name" x="{_LEFT - 10}" y="{y + 17}" text-anchor="end">{name}</text>'
        f'<rect class="bar {kind}" x="{left:.1f}" y="{y}" width="{wide:.1f}" height="{_ROW - 10}" rx="2"/>'
        f'<text class="name" x="{left + wide + 6:.1f}" y="{y + 17}">{told}</text>'
    )
