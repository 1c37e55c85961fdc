"""Differences to the default per class as one picture: a standalone SVG without colour as the only sign."""

from __future__ import annotations

from collections.abc import Mapping

from claspkit.calib.charts import esc, marker, ticks

_SHAPES = ("square", "circle", "diamond", "triangle", "down", "cross")
_LEFT, _RIGHT, _TOP, _ROW = 92, 560, 12, 16

Differences = Mapping[str, Mapping[str, tuple[float, float, float]]]


def draw(apart: Differences, title: str) -> str:
    """An SVG with a whisker per way and group.

    Args:
        apart: name of a way -> group -> difference and its 95 % interval, in 0..1.
        title: what is shown, in words.

    Raises:
        ValueError: more ways than there are shapes to tell them apart.
    """
    if len(apart) > len(_SHAPES):
        raise ValueError(f"{len(apart)} ways in one picture; there are shapes for {len(_SHAPES)}")
    groups = list(next(iter(apart.values())))
    ends = [value for way in apart.values() for found in way.values() for value in found]
    low, high = 1.05 * min(-0.01, *ends), 1.05 * max(0.01, *ends)
    band = _ROW * len(apart) + 10
    bottom = _TOP + band * len(groups)

    def place(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)

    parts = []
    for tick in (round(tick, 6) for tick in ticks(low, high)):
        kind = "axis" if abs(tick) < 1e-12 else "grid"
        parts.append(f'<path class="{kind}" d="M{place(tick):.1f} {_TOP}V{bottom}"/>')
        parts.append(_text(place(tick), bottom + 16, f"{100 * tick:+g}" if tick else "0", "middle"))
    for number, group in enumerate(groups):
        top = _TOP + band * number
        parts.append(_text(_LEFT - 12, top + band / 2 + 4, group, "end"))
        for index, (shape, found) in enumerate(zip(_SHAPES, (way[group] for way in apart.values()), strict=False)):
            centre, start, end = (place(value) for value in found)
            y = top + _ROW * (index + 0.5) + 5
            parts.append(f'<path class="whisker" d="M{start:.1f} {y - 3:.1f}v6m0 -3H{end:.1f}m0 -3v6"/>')
            parts.append(f'<path class="dot" d="{marker(shape, centre, y, 4.5)}"/>')
    for index, (shape, name) in enumerate(zip(_SHAPES, apart, strict=False)):
        y = _TOP + 20 * index + 16
        parts.append(f'<path class="dot" d="{marker(shape, _RIGHT + 24, y, 4.5)}"/>')
        parts.append(_text(_RIGHT + 36, y + 4, name, "start"))
    parts.append(_text((_LEFT + _RIGHT) / 2, bottom + 34, "points against the default, 95 % intervals", "middle"))
    described = "; ".join(
        f"{name}: " + ", ".join(f"{group} {100 * found[0]:+.1f}" for group, found in way.items())
        for name, way in apart.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_RIGHT + 190} {bottom + 42}" role="img" '
        f'aria-labelledby="t d"><title id="t">{esc(title)}</title><desc id="d">{esc(described)}</desc>'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{esc(text)}</text>'


_STYLE = (
    "svg{background:#fff}text{font:11px system-ui,sans-serif;fill:#1b1f24}"
    ".grid{stroke:#d5dae0;fill:none}.axis{stroke:#57606a;fill:none}"
    ".whisker{stroke:#1b1f24;stroke-width:1.4;fill:none}.dot{stroke:#1b1f24;stroke-width:1.4;fill:#9fc5e8}"
)
