"""The chart of a run's budgets: score against compute, as inline SVG with its text alternative and its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .charts import folded_table, marker, open_svg, score_range, ticks
from .table import interval, percent

_WIDTH, _HEIGHT = 520, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 420, 26, 226
_Place = Callable[[float], float]
_APART = 3.5  # default and profile of a budget stand beside each other, so that both whiskers can be seen
_SERIES = {
    # name -> (colour of the style sheet, dash, marker, offset)
    "default": ("s0", "7 3", "circle", -_APART),
    "profile": ("s1", "none", "square", _APART),
}


def budgets_chart(rows: Sequence[dict[str, Any]]) -> str:
    """Holdout score over prefill FLOPs: default and profile of every budget with 95 % intervals, and the stock model.

    Args:
        rows: the summary's budgets.

    Returns:
        empty text where some score is not known.
    """
    names = (*_SERIES, "unpruned")
    keys = [key for name in names for key in (name, f"{name}_ci_low", f"{name}_ci_high")]
    if not rows or any(row[key] is None for row in rows for key in keys):
        return ""
    order = sorted(rows, key=lambda row: row["flops_share"])
    low, high = score_range([row[key] for row in rows for key in keys])
    low = max(0.0, low - 0.12 * (high - low))  # the budgets' names stand there
    left = min(0.9, order[0]["flops_share"]) - 0.06

    def x(share: float) -> float:
        return float(_LEFT + (share - left) / (1.0 - left) * (_RIGHT - _LEFT))

    def y(score: float) -> float:
        return float(_BOTTOM - (score - low) / (high - low) * (_BOTTOM - _TOP))

    parts = [_axes(low, high, left, x, y)]
    for name, (colour, dash, shape, apart) in _SERIES.items():
        places = [(x(row["flops_share"]) + apart, y(row[name])) for row in order]
        path = "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
        parts.append(f'<g class="{colour}"><path class="line" stroke-dasharray="{dash}" d="{path}"/>')
        for row, (across, down) in zip(order, places, strict=True):
            parts.append(_whisker("lead", across, y(row[f"{name}_ci_low"]), y(row[f"{name}_ci_high"])))
            parts.append(f'<path class="mark" d="{marker(shape, across, down, 4.2)}"/>')
        parts.append("</g>")
    stock = order[0]
    parts.append(_whisker("whisker", x(1.0), y(stock["unpruned_ci_low"]), y(stock["unpruned_ci_high"])))
    parts.append(f'<path class="dot" d="{marker("diamond", x(1.0), y(stock["unpruned"]), 4.6)}"/>')
    parts += [_nominal(row, x(row["flops_share"])) for row in order]
    parts.append(_legend())
    described = "; ".join(
        f"{row['nominal']} tokens, {percent(row['flops_share'])} percent of the FLOPs: "
        f"default {_told(row, 'default')}, profile {_told(row, 'profile')}"
        for row in order
    )
    described += f"; unpruned {_told(stock, 'unpruned')}"
    svg = open_svg("budgets-chart", "Holdout score against prefill FLOPs", described, _WIDTH, _HEIGHT)
    numbers = folded_table(
        "Holdout score against prefill FLOPs, percent",
        ["budget", "prefill FLOPs", "default [95 %]", "profile [95 %]", "profile - default [95 %]"],
        [
            *([row["nominal"], *_numbers(row)] for row in order),
            ["unpruned", percent(1.0), _told(stock, "unpruned"), None, None],
        ],
    )
    return f"{svg}{''.join(parts)}</svg>{numbers}"


def _numbers(row: dict[str, Any]) -> list[str]:
    return [percent(row["flops_share"]), _told(row, "default"), _told(row, "profile"), interval(row)]


def _told(row: dict[str, Any], name: str) -> str:
    return f"{percent(row[name])} [{percent(row[f'{name}_ci_low'])}, {percent(row[f'{name}_ci_high'])}]"


def _whisker(kind: str, across: float, low: float, high: float) -> str:
    return f'<path class="{kind}" d="M{across - 3:.1f} {low:.1f}h6m-3 0V{high:.1f}m-3 0h6"/>'


def _nominal(row: dict[str, Any], across: float) -> str:
    return f'<text class="tick" x="{across:.1f}" y="{_BOTTOM - 6}" text-anchor="middle">{row["nominal"]}</text>'


def _legend() -> str:
    parts = []
    for place, (name, (colour, _, shape, _)) in enumerate(_SERIES.items()):
        y = _TOP + 14 + 18 * place
        parts.append(
            f'<g class="{colour}"><path class="mark" d="{marker(shape, _RIGHT + 24, y, 4.2)}"/>'
            f'<text class="name" x="{_RIGHT + 34}" y="{y + 4}">{name}</text></g>'
        )
    y = _TOP + 14 + 18 * len(_SERIES)
    parts.append(
        f'<path class="dot" d="{marker("diamond", _RIGHT + 24, y, 4.6)}"/>'
        f'<text class="name" x="{_RIGHT + 34}" y="{y + 4}">unpruned</text>'
    )
    return "".join(parts)


def _axes(low: float, high: float, left: float, x: _Place, y: _Place) -> str:
    marks = ticks(low, high)
    digits = 0 if all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in marks) else 1
    parts = [
        f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.{digits}f}</text>'
        for tick in marks
    ]
    parts += [
        f'<path class="axis" d="M{x(tick):.1f} {_BOTTOM}v4"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{100 * tick:.0f}</text>'
        for tick in ticks(left, 1.0)
    ]
    parts.append(f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>')
    parts.append(
        f'<text class="tick" x="{(_LEFT + _RIGHT) / 2:g}" y="{_BOTTOM + 36}" text-anchor="middle">'
        "prefill FLOPs, percent of the unpruned model's</text>"
    )
    parts.append(f'<text class="tick" x="{_LEFT - 6}" y="10" text-anchor="end">%</text>')
    return "".join(parts)
