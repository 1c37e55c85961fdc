"""The report's charts: inline SVG with a title, a description and the numbers as a table under each.

Colours come from the page's style sheet by class name (``s0`` ...), so that one chart serves light and dark. No
meaning hangs on colour alone: every line has its own dash, marker and written name.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .table import CHANGED, clean, interval, outcome, percent

Curves = Mapping[str, Sequence[Sequence[float]]]

COLOURS = 5
"""Line colours the style sheet defines, ``s0`` to ``s4``; then they start over with another dash."""

DASHES = ("", "7 3", "2 3", "9 3 2 3", "14 4", "5 2 1 2 1 2")
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "down")
_LONGEST_NAME = 11
_MIN_RANGE = 0.04  # of the score axis: four points, so that noise does not look like a mountain


def esc(value: object) -> str:
    """Any value as text that is safe between tags and inside double quotes."""
    return html.escape(clean(value), quote=True)


def data_table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A plain HTML table; the first cell of a row names it. All cells are escaped, None is a dash."""
    head = "".join(f'<th scope="col">{esc(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{esc(row[0])}</th>'
        + "".join(f"<td>{'–' if cell is None else esc(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{esc(caption)}"><table>'
        f"<caption><span>{esc(caption)}</span></caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded_table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table that opens on demand: a chart's numbers."""
    table = data_table(caption, header, rows)
    return f'<details><summary>Numbers<span class="hidden">: {esc(caption)}</span></summary>{table}</details>'


def line_styles(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Prototype -> number of its style, the same in all charts of a report."""
    return {name: number for number, name in enumerate(dict.fromkeys(n for row in rows for n in row["curves"]))}


# ---------------------------------------------------------------------------------------------- score over rho

_WIDTH, _HEIGHT = 360, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 276, 26, 194


def curve_chart(row: dict[str, Any], styles: Mapping[str, int], default: str) -> str:
    """One class's search-split score over rho, one line per prototype.

    Args:
        row: the class in the summary; ``curves`` must have a point.
        styles: of :func:`line_styles`.
        default: candidate id of the default configuration, ``prototype/rho``.
    """
    curves: Curves = {name: line for name, line in row["curves"].items() if line}
    scores = [score for line in curves.values() for _, score in line]
    low, high = score_range(scores)
    ends = spread({name: _y(line[-1][1], low, high) for name, line in curves.items()}, _TOP, _BOTTOM)
    lines = "".join(_line(name, line, styles[name], low, high, ends[name]) for name, line in curves.items())
    marks = _ring(curves, default, "default", low, high)
    if row["tested"] is not None and row["tested"] != default:
        marks += _ring(curves, row["tested"], "tested", low, high)
    best = max(((score, f"{name}/{rho:g}") for name, line in curves.items() for rho, score in line))
    described = (
        f"Mean score on the {row['n_search']} search samples for {len(curves)} prototypes. "
        f"Highest: {best[1]} with {percent(best[0])} percent. Default: {default}. Tested: {row['tested'] or 'none'}."
    )
    return (
        open_svg(f"curve-{row['intent']}", f"{row['name']}: search score over rho", described, _WIDTH, _HEIGHT)
        + _axes(low, high)
        + lines
        + marks
        + "</svg>"
        + _curve_numbers(row["name"], curves)
    )


def _curve_numbers(name: str, curves: Curves) -> str:
    rhos = sorted({point[0] for line in curves.values() for point in line})
    cells = {prototype: {point[0]: point[1] for point in line} for prototype, line in curves.items()}
    return folded_table(
        f"{name}: search score by rho and prototype, percent",
        ["rho", *curves],
        ([f"{rho:g}", *(percent(cells[prototype].get(rho), "–") for prototype in curves)] for rho in rhos),
    )


def score_range(scores: Sequence[float]) -> tuple[float, float]:
    """A range around the scores, inside 0..1 and never narrower than :data:`_MIN_RANGE`."""
    low, high = min(scores), max(scores)
    room = max((_MIN_RANGE - (high - low)) / 2, 0.08 * (high - low), 0.004)
    low, high = low - room, high + room
    if low < 0:
        low, high = 0.0, max(high, _MIN_RANGE)
    if high > 1:
        low, high = min(low, 1 - _MIN_RANGE), 1.0
    return max(low, 0.0), high


def rho_ticks(x: Callable[[float], float], bottom: float) -> str:
    """Ticks and numbers of an axis of split ratios, 0 to 1 in steps of 0.2, below ``bottom``; ``x`` places a ratio."""
    parts = []
    for rho in (step / 10 for step in range(0, 11, 2)):
        parts.append(f'<path class="axis" d="M{x(rho):.1f} {bottom}v4"/>')
        parts.append(f'<text class="tick" x="{x(rho):.1f}" y="{bottom + 17}" text-anchor="middle">{rho:g}</text>')
    return "".join(parts)


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers inside the range."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _x(rho: float) -> float:
    return _LEFT + rho * (_RIGHT - _LEFT)


def _y(score: float, low: float, high: float) -> float:
    return _BOTTOM - (score - low) / (high - low) * (_BOTTOM - _TOP)


def _axes(low: float, high: float) -> str:
    parts = []
    marks = ticks(low, high)
    digits = 0 if all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in marks) else 1
    for tick in marks:
        y = _y(tick, low, high)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * tick:.{digits}f}</text>'
        )
    parts.append(rho_ticks(_x, _BOTTOM))
    middle = (_LEFT + _RIGHT) / 2
    parts.append(f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>')
    parts.append(
        f'<text class="tick" x="{middle:g}" y="{_BOTTOM + 35}" text-anchor="middle">'
        "rho, share of attention pivots</text>"
    )
    parts.append(f'<text class="tick" x="{_LEFT - 6}" y="10" text-anchor="end">%</text>')
    return "".join(parts)


def _line(name: str, line: Sequence[Sequence[float]], style: int, low: float, high: float, label_y: float) -> str:
    places = [(_x(rho), _y(score, low, high)) for rho, score in line]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    colour, dash = f"s{style % COLOURS}", DASHES[style % len(DASHES)]
    shape = MARKERS[style % len(MARKERS)]
    last = places[-1]
    return (
        f'<g class="{colour}"><path class="line" stroke-dasharray="{dash or "none"}" d="{path}"/>'
        + "".join(f'<path class="mark" d="{marker(shape, x, y)}"/>' for x, y in places)
        + f'<path class="lead" d="M{last[0] + 5:.1f} {last[1]:.1f}L{_RIGHT + 9} {label_y:.1f}"/>'
        + f'<path class="mark" d="{marker(shape, _RIGHT + 14, label_y)}"/>'
        + f'<text class="name" x="{_RIGHT + 21}" y="{label_y + 4:.1f}">{esc(short_name(name))}</text></g>'
    )


def short_name(name: str) -> str:
    """A prototype's name as it fits beside a chart."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def marker(shape: str, x: float, y: float, r: float = 3.2) -> str:
    """Path data of a marker centred on (x, y)."""
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "triangle": ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
        "diamond": ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
        "down": ((0, 1.3), (1.2, -0.9), (-1.2, -0.9)),
        "cross": (
            *((-0.4, -1.3), (0.4, -1.3), (0.4, -0.4), (1.3, -0.4), (1.3, 0.4), (0.4, 0.4)),
            *((0.4, 1.3), (-0.4, 1.3), (-0.4, 0.4), (-1.3, 0.4), (-1.3, -0.4), (-0.4, -0.4)),
        ),
    }
    if shape == "circle":
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    return "M" + "L".join(f"{x + dx * r:.1f} {y + dy * r:.1f}" for dx, dy in corners[shape]) + "Z"


def _ring(curves: Curves, candidate: str, kind: str, low: float, high: float) -> str:
    """Mark one candidate: the default by a ring and its name below, the tested one by a diamond and its name above."""
    place = _find(curves, candidate)
    if place is None:
        return ""
    x, y = _x(place[0]), _y(place[1], low, high)
    above = kind == "tested" or y + 20 > _BOTTOM - 4
    words = max(y - 13, _TOP - 5) if above else y + 20
    anchor = "end" if place[0] > 0.85 else "start" if place[0] < 0.15 else "middle"
    return (
        f'<path class="ring" d="{marker("circle" if kind == "default" else "diamond", x, y, 7.5)}"/>'
        f'<text class="ringname" x="{x:.1f}" y="{words:.1f}" text-anchor="{anchor}">{kind}</text>'
    )


def _find(curves: Curves, candidate: str) -> tuple[float, float] | None:
    name = candidate.rpartition("/")[0]
    return next(((rho, score) for rho, score in curves.get(name, ()) if f"{name}/{rho:g}" == candidate), None)


def spread(wanted: Mapping[str, float], top: float, bottom: float, gap: float = 14.0) -> dict[str, float]:
    """Heights for names: near the ``wanted`` ones, at least ``gap`` apart, from ``top`` to ``bottom`` if they fit."""
    order = sorted(wanted, key=lambda name: wanted[name])
    gap = min(gap, (bottom - top) / len(order))
    places = [wanted[name] for name in order]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    if places and places[-1] > bottom:
        places[-1] = bottom
        for index in range(len(places) - 2, -1, -1):
            places[index] = min(places[index], places[index + 1] - gap)
    return dict(zip(order, places, strict=True))


# ------------------------------------------------------------------------------------------ holdout differences


def difference_chart(rows: Sequence[dict[str, Any]]) -> str:
    """Every tested class's holdout difference with its 95 % interval; empty text if no class was tested."""
    tested = [row for row in rows if row["difference"] is not None]
    if not tested:
        return ""
    ends = [value for row in tested for value in (row["difference"], row["ci_low"], row["ci_high"])]
    low, high = 1.05 * min(-0.01, *ends), 1.05 * max(0.01, *ends)
    left, right, step = 92, 408, 24
    bottom = 8 + step * len(tested)

    def place(value: float) -> float:
        return float(left + (value - low) / (high - low) * (right - left))

    parts = [
        f'<path class="{"axis" if abs(tick) < 1e-12 else "grid"}" d="M{place(tick):.1f} 8V{bottom}"/>'
        f'<text class="tick" x="{place(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{signed(tick)}</text>'
        for tick in (round(tick, 6) for tick in ticks(low, high))
    ]
    for number, row in enumerate(tested):
        y, taken = 8 + step * (number + 0.5), outcome(row) == CHANGED
        parts.append(
            f'<text class="name" x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{esc(row["intent"])}</text>'
            f'<path class="whisker {"taken" if taken else "kept"}" '
            f'd="M{place(row["ci_low"]):.1f} {y - 4:.1f}v8m0 -4H{place(row["ci_high"]):.1f}m0 -4v8"/>'
            f'<path class="dot {"taken" if taken else "kept"}" '
            f'd="{marker("square" if taken else "circle", place(row["difference"]), y, 5)}"/>'
        )
    parts.append(
        f'<text class="tick" x="{(left + right) / 2:g}" y="{bottom + 34}" text-anchor="middle">'
        "points against the default, holdout</text></svg>"
    )
    described = "; ".join(f"{row['intent']} {interval(row)}, {outcome(row)}" for row in tested)
    svg = open_svg("differences", "Holdout difference of the tested candidates", described, 420, bottom + 42)
    numbers = folded_table(
        "Holdout difference of the tested candidates, points",
        ["class", "tested", "difference [95 % interval]", "outcome"],
        ([row["name"], row["tested"], interval(row), outcome(row)] for row in tested),
    )
    return svg + "".join(parts) + numbers


def signed(tick: float) -> str:
    """A difference on an axis, in points: ``+2``, ``-0.5``, ``0``."""
    return f"{100 * tick:+g}" if tick else "0"


# ------------------------------------------------------------------------------------------------ fusion weights


def heat_map(rows: Sequence[dict[str, Any]], layers: int, own: int) -> str:
    """Fusion weights of the chosen configurations, class by vision layer.

    Args:
        rows: the summary's classes.
        layers: vision layers there are; columns 0 (the embeddings) to ``layers``.
        own: the layer that the stock model reads, marked above its column.
    """
    left, top, cell, high = 86, 40, 30, 26
    width, height = left + cell * (layers + 1) + 8, top + high * len(rows) + 8
    parts = [
        f'<text class="tick" x="{left + cell * (layer + 0.5):g}" y="{top - 6}" text-anchor="middle">{layer}</text>'
        for layer in range(layers + 1)
    ]
    parts.append(
        f'<text class="name" x="{left + cell * (own + 0.5) + 4:g}" y="{top - 22}" text-anchor="end">stock ▾</text>'
    )
    for number, row in enumerate(rows):
        y = top + high * number
        parts.append(f'<text class="name" x="{left - 8}" y="{y + 17}" text-anchor="end">{esc(row["intent"])}</text>')
        weights = dict(zip(row["layers"], row["weights"], strict=True))
        parts += [_cell(left + cell * layer, y, cell, high, weights.get(layer)) for layer in range(layers + 1)]
    described = "; ".join(f"{row['intent']}: {_weights(row)}" for row in rows)
    numbers = folded_table(
        "Chosen configuration of every class",
        ["class", "configuration", "rho", "rho in the paper", "vision layer: weight"],
        ([row["name"], row["chosen"], f"{row['rho']:g}", _published(row), _weights(row)] for row in rows),
    )
    svg = open_svg("weights", "Fusion weights by class and vision layer", described, width, height, fixed=True)
    region = '<div class="scroll" role="region" tabindex="0" aria-label="Fusion weights, chart">'
    return f"{region}{svg}{''.join(parts)}</svg></div>{numbers}"


def _cell(x: int, y: int, width: int, height: int, weight: float | None) -> str:
    box = f'x="{x + 1}" y="{y + 1}" width="{width - 2}" height="{height - 2}" rx="3"'
    if weight is None:
        return f'<rect class="empty" {box}/>'
    step = "strong" if weight >= 0.66 else "weak"
    written = f"{weight:.2f}".removeprefix("0") if weight < 0.995 else "1"
    return (
        f'<rect class="heat" {box} fill-opacity="{0.12 + 0.88 * weight:.2f}"/>'
        f'<text class="{step}" x="{x + width / 2:g}" y="{y + 17}" text-anchor="middle">{written}</text>'
    )


def _published(row: Mapping[str, Any]) -> str:
    """The paper's rho; it has none for the classes of a user's own taxonomy."""
    return "none" if row["published_rho"] is None else f"{row['published_rho']:g}"


def _weights(row: dict[str, Any]) -> str:
    return ", ".join(f"{layer}: {weight:.3f}" for layer, weight in zip(row["layers"], row["weights"], strict=True))


def open_svg(name: str, title: str, described: str, width: int, height: int, *, fixed: bool = False) -> str:
    """Open an SVG with its text alternatives; ``fixed`` keeps its size where the page is narrower."""
    size = f' width="{width}" height="{height}"' if fixed else ""
    return (
        f'<svg role="img" viewBox="0 0 {width} {height}"{size} aria-labelledby="{esc(name)}-t {esc(name)}-d">'
        f'<title id="{esc(name)}-t">{esc(title)}</title><desc id="{esc(name)}-d">{esc(described)}</desc>'
    )
