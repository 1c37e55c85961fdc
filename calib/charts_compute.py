"""The chart of accuracy against budget: what is left of the unpruned score, and the paper's points where they apply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .charts import folded_table, marker, open_svg, spread, ticks
from .paper import find_table
from .table import holdout_means

_TOKENS = 576
_MODEL = {"family": "llava", "visual_tokens": _TOKENS, "decoder_depth": 32}
"""What a model must be for the paper's points to stand beside its own."""

PAPER = {
    int(share * _TOKENS): round(row.average / 100, 3)
    for share, row in find_table(1).ours.items()
    if row.average is not None
}
"""Nominal visual tokens -> average of seven benchmarks over that of the unpruned LLaVA-1.5-7B (the paper's Table 1)."""

_WIDTH, _HEIGHT = 520, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 400, 16, 216
_SHOWN = {
    # series -> (colour of the style sheet, marker, words)
    "default": ("s0", "circle", "default"),
    "profile": ("s1", "square", "this profile"),
    "paper": ("s2", "triangle", "the paper"),
}


def compute_points(summary: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    """(series, nominal visual tokens, share of the unpruned score) of every budget, and of the paper where it applies.

    Args:
        summary: of a finished run.

    Returns:
        empty where the unpruned model has no holdout score.
    """
    model = summary["model"]
    means = {"nominal": summary["budget"]["nominal"], **holdout_means(summary["classes"])}
    rows: list[Mapping[str, Any]] = summary.get("budgets") or [means]
    found = [
        (series, int(row["nominal"]), row[series] / row["unpruned"])
        for series in ("default", "profile")
        for row in rows
        if row["unpruned"] and row[series] is not None
    ]
    if found and all(model.get(name) == value for name, value in _MODEL.items()):
        found += [("paper", nominal, share) for nominal, share in PAPER.items()]
    return found


def compute_chart(summary: Mapping[str, Any]) -> str:
    """Share of the unpruned score over the share of visual tokens kept; empty text where there is nothing to draw."""
    found = compute_points(summary)
    if not found:
        return ""
    whole = summary["model"]["visual_tokens"]
    low = min(0.9, *(share for _, _, share in found)) - 0.03
    high = max(1.0, *(share for _, _, share in found)) + 0.02

    def x(tokens: float) -> float:
        return float(_LEFT + tokens / whole * (_RIGHT - _LEFT))

    def y(share: float) -> float:
        return float(_BOTTOM - (share - low) / (high - low) * (_BOTTOM - _TOP))

    parts = [
        f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f}</text>'
        for tick in ticks(low, high)
    ]
    parts += [
        f'<path class="axis" d="M{x(whole * step / 5):.1f} {_BOTTOM}v4"/><text class="tick" '
        f'x="{x(whole * step / 5):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{20 * step}</text>'
        for step in range(6)
    ]
    parts.append(
        f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>'
        f'<text class="tick" x="{(_LEFT + _RIGHT) / 2:g}" y="{_BOTTOM + 36}" text-anchor="middle">'
        "nominal visual tokens, percent of all</text>"
        f'<text class="tick" x="{_LEFT - 6}" y="10" text-anchor="end">%</text>'
        f'<path class="dot" d="{marker("diamond", x(whole), y(1.0), 4.6)}"/>'
    )
    series = [name for name in _SHOWN if any(name == mine for mine, _, _ in found)]
    last = {name: max((tokens, share) for mine, tokens, share in found if mine == name) for name in series}
    names = spread({name: y(last[name][1]) for name in series} | {"unpruned": y(1.0)}, _TOP, _BOTTOM, 18)
    for name in series:
        colour, shape, words = _SHOWN[name]
        places = sorted((tokens, share) for mine, tokens, share in found if mine == name)
        path = "M" + "L".join(f"{x(tokens):.1f} {y(share):.1f}" for tokens, share in places)
        line = f'<path class="line" d="{path}"/>' if len(places) > 1 else ""
        marks = "".join(f'<path class="mark" d="{marker(shape, x(t), y(s), 4.4)}"/>' for t, s in places)
        parts.append(
            f'<g class="{colour}">{line}{marks}<path class="mark" d="{marker(shape, _RIGHT + 20, names[name], 4.4)}"/>'
            f'<text class="name" x="{_RIGHT + 30}" y="{names[name] + 4:.1f}">{words}</text></g>'
        )
    parts.append(
        f'<path class="dot" d="{marker("diamond", _RIGHT + 20, names["unpruned"], 4.4)}"/>'
        f'<text class="name" x="{_RIGHT + 30}" y="{names["unpruned"] + 4:.1f}">unpruned</text>'
    )
    told = [(_SHOWN[name][2], tokens, f"{100 * share:.1f}") for name, tokens, share in found]
    described = "; ".join(f"{name} at {tokens} of {whole} tokens: {share} percent" for name, tokens, share in told)
    svg = open_svg("compute-chart", "Share of the unpruned score over the budget", described, _WIDTH, _HEIGHT)
    header = ["configuration", "nominal tokens", "share of the unpruned score, percent"]
    return f"{svg}{''.join(parts)}</svg>{folded_table('Share of the unpruned score over the budget', header, told)}"


def compute_figure(summary: Mapping[str, Any]) -> str:
    """The chart with its caption."""
    chart = compute_chart(summary)
    if not chart:
        return ""
    words = "Holdout means over the classes, as a share of the unpruned model's."
    if any(name == "paper" for name, _, _ in compute_points(summary)):
        words += (
            " The paper's points are averages of seven public benchmarks over the unpruned LLaVA-1.5-7B: other "
            "questions than these, to be compared in shape and not point by point."
        )
    return f'<figure class="wide"><figcaption>{words}</figcaption>{chart}</figure>'
