"""The chart of a class's search: every candidate's paired difference to the default over rho, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .charts import (
    COLOURS,
    DASHES,
    MARKERS,
    esc,
    folded_table,
    marker,
    open_svg,
    rho_ticks,
    short_name,
    signed,
    spread,
    ticks,
)
from .search_points import Point
from .table import percent, points

_WIDTH, _HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 276, 26, 206
_MIN_RANGE = 0.04  # four points, so that noise does not look like a mountain
_Place = Callable[[float], float]
_APART = 3.2  # prototypes of one rho stand beside each other, so that their intervals can be told apart


def points_chart(
    intent: str, name: str, found: Sequence[Point], styles: Mapping[str, int], default: str, tested: str | None
) -> str:
    """Paired difference to the default on the search split, one line per prototype; the default is the line at zero.

    Args:
        intent: class id.
        name: its name for people.
        found: its candidates; those beside the grid are in the table only.
        styles: prototype -> number of its style.
        default: candidate id of the default.
        tested: candidate id of what the holdout was asked about, None for none.

    Returns:
        empty text where nothing has a difference.
    """
    drawn = [point for point in found if point.prototype in styles and point.difference is not None]
    if not drawn:
        return ""
    low, high = _range(drawn, tested)
    most = max(point.samples for point in drawn)

    def y(difference: float) -> float:
        place = _BOTTOM - (difference - low) / (high - low) * (_BOTTOM - _TOP)
        return min(max(place, float(_TOP)), float(_BOTTOM))

    lines = {each: [p for p in drawn if p.prototype == each] for each in styles}
    lines = {each: sorted(line, key=lambda p: p.rho) for each, line in lines.items() if line}
    ends = spread({each: y(line[-1].difference or 0.0) for each, line in lines.items()}, _TOP, _BOTTOM)
    parts = [_axes(low, high, y)]
    for number, (prototype, line) in enumerate(lines.items()):
        shift = (number - (len(lines) - 1) / 2) * _APART
        parts.append(_line(prototype, line, styles[prototype], shift, ends[prototype], most, y))
    parts += [_ring(point, lines, y) for point in drawn if point.candidate == tested and tested != default]
    best = max(drawn, key=lambda point: (point.samples, point.difference or 0.0))
    described = (
        f"Paired differences of {len(drawn)} candidates to {default} on the search split, in points. Of those that saw "
        f"most samples ({most}) the highest is {best.candidate} with {points(best.difference)} {_told(best)}."
    )
    svg = open_svg(f"points-{intent}", f"{name}: search difference to the default over rho", described, _WIDTH, _HEIGHT)
    return svg + "".join(parts) + "</svg>" + _numbers(name, found)


def _numbers(name: str, found: Sequence[Point]) -> str:
    order = sorted(found, key=lambda point: (-point.samples, -(point.difference or 0.0)))
    return folded_table(
        f"{name}: candidates on the search split, most samples first",
        ["candidate", "samples", "score, percent", "difference to the default, points", "95 % interval"],
        ([p.candidate, p.samples, percent(p.score), points(p.difference, "–"), _told(p)] for p in order),
    )


def _told(point: Point) -> str:
    if point.interval is None:
        return "–"
    low, high = point.interval
    return f"[{points(low)}, {points(high)}]"


def _range(drawn: Sequence[Point], tested: str | None) -> tuple[float, float]:
    """Around all differences and the interval of what was tested; the intervals of short races may be cut off."""
    values = [point.difference or 0.0 for point in drawn] + [0.0]
    values += [end for point in drawn if point.candidate == tested and point.interval for end in point.interval]
    low, high = min(values), max(values)
    room = max((_MIN_RANGE - (high - low)) / 2, 0.08 * (high - low))
    return low - room, high + room


def _x(rho: float) -> float:
    return _LEFT + 10 + rho * (_RIGHT - _LEFT - 20)


def _axes(low: float, high: float, y: _Place) -> str:
    parts = []
    for tick in (round(tick, 6) for tick in ticks(low, high)):
        kind = "zero" if tick == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{_LEFT} {y(tick):.1f}H{_RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{esc(signed(tick))}</text>'
        )
    parts.append(rho_ticks(_x, _BOTTOM))
    parts.append(f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>')
    parts.append(
        f'<text class="tick" x="{(_LEFT + _RIGHT) / 2:g}" y="{_BOTTOM + 35}" text-anchor="middle">'
        "rho, share of attention pivots; line at 0: default</text>"
        f'<text class="tick" x="{_LEFT - 6}" y="10" text-anchor="end">points</text>'
    )
    return "".join(parts)


def _line(
    name: str, line: Sequence[Point], style: int, shift: float, label_y: float, most: int, y: _Place
) -> str:
    places = [(_x(p.rho) + shift, y(p.difference or 0.0), p) for p in line]
    path = "M" + "L".join(f"{x:.1f} {height:.1f}" for x, height, _ in places)
    shape = MARKERS[style % len(MARKERS)]
    whiskers = "".join(
        f'<path class="error{" whole" if p.samples == most else ""}" '
        f'd="M{x:.1f} {y(p.interval[0]):.1f}V{y(p.interval[1]):.1f}"/>'
        for x, _, p in places
        if p.interval is not None
    )
    marks = "".join(
        f'<path class="mark" d="{marker(shape, x, height, 3.4 if p.samples == most else 2.2)}"/>'
        for x, height, p in places
    )
    last_x, last_y, _ = places[-1]
    return (
        f'<g class="s{style % COLOURS}">{whiskers}'
        f'<path class="line thin" stroke-dasharray="{DASHES[style % len(DASHES)] or "none"}" d="{path}"/>{marks}'
        f'<path class="lead" d="M{last_x + 4:.1f} {last_y:.1f}L{_RIGHT + 9} {label_y:.1f}"/>'
        f'<path class="mark" d="{marker(shape, _RIGHT + 14, label_y)}"/>'
        f'<text class="name" x="{_RIGHT + 21}" y="{label_y + 4:.1f}">{esc(short_name(name))}</text></g>'
    )


def _ring(point: Point, lines: Mapping[str, Sequence[Point]], y: _Place) -> str:
    """Mark the tested candidate by a diamond and its name."""
    shift = (list(lines).index(point.prototype) - (len(lines) - 1) / 2) * _APART
    x, height = _x(point.rho) + shift, y(point.difference or 0.0)
    above = max(height - 12, _TOP - 5)
    anchor = "end" if point.rho > 0.85 else "start" if point.rho < 0.15 else "middle"
    return (
        f'<path class="ring" d="{marker("diamond", x, height, 7.5)}"/>'
        f'<text class="ringname" x="{x:.1f}" y="{above:.1f}" text-anchor="{anchor}">tested</text>'
    )
