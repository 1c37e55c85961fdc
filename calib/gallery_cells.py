"""The cells of a token view as paths of an SVG, in which the picture keeps its proportions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from claspkit.runtime.token_map import TokenView


@dataclass(frozen=True)
class Canvas:
    """An SVG's coordinates.

    Attributes:
        unit: pixels of the picture that are 1 in them.
        width: of the picture in them.
        height: of the picture in them.
    """

    unit: float
    width: float
    height: float

    @classmethod
    def of(cls, size: tuple[int, int], view: TokenView) -> Canvas:
        """For a picture of ``size`` (width, height) in pixels: in them an area of 1 is a cell of ``view``."""
        unit = _cell(size, view)
        return cls(unit, size[0] / unit, size[1] / unit)

    @property
    def box(self) -> str:
        """The ``viewBox``."""
        return f"0 0 {svg_number(self.width)} {svg_number(self.height)}"


def cell_paths(
    canvas: Canvas, size: tuple[int, int], view: TokenView, kept: Sequence[int], pivots: Sequence[int]
) -> str:
    """Paths that cover dropped cells, and the rim that the view leaves out, and frame kept ones.

    Args:
        canvas: coordinates around the paths.
        size: width and height of the picture in pixels.
        view: whose cells.
        kept: cells kept.
        pivots: those of them that are pivots.
    """
    left, top, right, bottom = view.window
    own = _cell(size, view)
    wide = (right - left) * size[0] / view.columns / own  # times high it is 1
    high = (bottom - top) * size[1] / view.rows / own
    cells = _Cells(view.columns, wide, high)
    gone = sorted(set(range(view.rows * view.columns)) - set(kept))
    paths = (
        f'<path class="gone" d="{cells.runs(gone)}"/>'
        f'<path class="completion" d="{cells.frames(sorted(set(kept) - set(pivots)))}"/>'
        f'<path class="pivot" d="{cells.frames(sorted(pivots))}"/>'
    )
    moves = []
    if left or top:
        moves.append(f"translate({svg_number(left * canvas.width)} {svg_number(top * canvas.height)})")
    if abs(own / canvas.unit - 1) > 1e-9:
        moves.append(f"scale({svg_number(own / canvas.unit, 6)})")
    placed = f'<g transform="{" ".join(moves)}">{paths}</g>' if moves else paths
    return _rim(canvas, view) + placed


def _rim(canvas: Canvas, view: TokenView) -> str:
    """What no cell sees of the picture, faint."""
    left, top, right, bottom = view.window
    sides = [(0.0, 0.0, 1.0, top), (0.0, bottom, 1.0, 1.0), (0.0, 0.0, left, 1.0), (right, 0.0, 1.0, 1.0)]
    parts = [
        f"M{svg_number(x * canvas.width)} {svg_number(y * canvas.height)}h{svg_number((end - x) * canvas.width)}"
        f"v{svg_number((low - y) * canvas.height)}h{svg_number((x - end) * canvas.width)}z"
        for x, y, end, low in sides
        if end - x > 1e-9 and low - y > 1e-9
    ]
    return f'<path class="gone" d="{"".join(parts)}"/>' if parts else ""


def _cell(size: tuple[int, int], view: TokenView) -> float:
    """Side, in pixels, of a square as large as a cell."""
    left, top, right, bottom = view.window
    return math.sqrt((right - left) * size[0] / view.columns * (bottom - top) * size[1] / view.rows)


@dataclass(frozen=True)
class _Cells:
    """Cells of one size, row by row."""

    columns: int
    wide: float
    high: float

    def runs(self, cells: Iterable[int]) -> str:
        """Path of whole cells, neighbours of a row as one rectangle."""
        parts: list[str] = []
        start = last = -2
        for cell in [*cells, -1]:
            if cell != last + 1 or cell % self.columns == 0 or cell == -1:
                if start >= 0:
                    across, down = svg_number((last - start + 1) * self.wide), svg_number(self.high)
                    parts.append(f"{self._start(start, 0)}h{across}v{down}h-{across}z")
                start = cell
            last = cell
        return "".join(parts)

    def frames(self, cells: Iterable[int]) -> str:
        """Path of frames inside the cells; one in the row of the one before says how far it is from there."""
        across, down = svg_number(0.8 * self.wide), svg_number(0.8 * self.high)
        parts: list[str] = []
        last, reached = -1, 0.0
        for cell in cells:
            left = (cell % self.columns + 0.1) * self.wide
            if last >= 0 and cell // self.columns == last // self.columns:
                start = f"m{svg_number(left - reached)} 0"
                reached += float(svg_number(left - reached))  # as it is written: what is cut off must not add up
            else:
                start, reached = self._start(cell, 0.1), float(svg_number(left))
            parts.append(f"{start}h{across}v{down}h-{across}z")
            last = cell
        return "".join(parts)

    def _start(self, cell: int, inset: float) -> str:
        row, column = divmod(cell, self.columns)
        return f"M{svg_number((column + inset) * self.wide)} {svg_number((row + inset) * self.high)}"


def svg_number(value: float, digits: int = 3) -> str:
    """A number as short as SVG reads it."""
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    sign, rest = ("-", text[1:]) if text.startswith("-") else ("", text)
    rest = rest[1:] if rest.startswith("0.") else rest
    return "0" if rest in ("", "0") else sign + rest
