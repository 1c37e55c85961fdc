"""Where visual tokens lie on a picture: grids of cells over it, and tokens that stand for no place of it.

Numbers only; no model is asked here. A family says how its tokens lie with :meth:`.families.base.Family.token_map`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
"""The picture itself."""

NEWLINES, CLS = "newline tokens", "[CLS] tokens"
"""Names of tokens that stand for no place."""


@dataclass(frozen=True)
class TokenView:
    """Visual tokens that look at a picture, or at a frame of a clip, once: a grid of cells of one size.

    Attributes:
        name: for people, such as "whole picture", "tiles" or "frame 2".
        rows: cells from top to bottom, 1 at least.
        columns: cells from left to right, 1 at least.
        tokens: number of the visual token of every cell, raster order, (rows * columns,).
        window: where the grid lies, in shares of the picture's width and height. It may reach over the picture's
            edges, where cells show padding, and may leave a rim of the picture out.
    """

    name: str
    rows: int
    columns: int
    tokens: tuple[int, ...]
    window: Box = WHOLE

    def __post_init__(self) -> None:
        left, top, right, bottom = self.window
        if min(self.rows, self.columns) < 1 or len(self.tokens) != self.rows * self.columns:
            raise ValueError(f"{len(self.tokens)} tokens are no grid of {self.rows} x {self.columns} cells")
        if not (left < right and top < bottom):
            raise ValueError(f"the window {self.window} is empty")

    def box(self, cell: int, width: float = 1.0, height: float = 1.0) -> Box:
        """Where a cell lies on a picture of this width and height, what is beyond its edges cut off.

        Args:
            cell: number of the cell, raster order.
            width: of the picture; 1 for shares of it.
            height: of the picture.
        """
        left, top, right, bottom = self.window
        row, column = divmod(cell, self.columns)
        across, down = (right - left) * width, (bottom - top) * height
        return (
            min(max(left * width + column * across / self.columns, 0.0), width),
            min(max(top * height + row * down / self.rows, 0.0), height),
            min(max(left * width + (column + 1) * across / self.columns, 0.0), width),
            min(max(top * height + (row + 1) * down / self.rows, 0.0), height),
        )

    def boxes(self) -> dict[int, Box]:
        """Token -> where it lies, in shares of the picture."""
        return {token: self.box(cell) for cell, token in enumerate(self.tokens)}

    def cells(self, tokens: Sequence[int]) -> list[int]:
        """Cells of those of ``tokens`` that belong to this view, ascending."""
        wanted = set(tokens)
        return [cell for cell, token in enumerate(self.tokens) if token in wanted]


@dataclass(frozen=True)
class TokenMap:
    """Where the visual tokens of one picture or clip lie, numbered from 0 in the order of the prompt.

    Attributes:
        views: each looks at the picture or at a frame once; a place may be seen by several of them.
        placeless: tokens that stand for no place, by what they are.
        cropped: whether places are those of the square that the image processor cut out of the middle of the picture,
            not of the picture as it was given.
    """

    views: tuple[TokenView, ...]
    placeless: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cropped: bool = False

    def __post_init__(self) -> None:
        placed = chain.from_iterable(view.tokens for view in self.views)
        numbers = sorted(chain(placed, *self.placeless.values()))
        if numbers != list(range(len(numbers))):
            raise ValueError("a token map must hold every visual token from 0 on once")

    @property
    def count(self) -> int:
        """Visual tokens, those without a place included."""
        return sum(len(view.tokens) for view in self.views) + sum(map(len, self.placeless.values()))

    @property
    def plain(self) -> bool:
        """Whether one view has all tokens."""
        return len(self.views) == 1 and not self.placeless


def grid_view(name: str, rows: int, columns: int, first: int = 0, gap: int = 0, window: Box = WHOLE) -> TokenView:
    """A view whose tokens come in raster order.

    Args:
        name: as of :class:`TokenView`.
        rows: cells from top to bottom.
        columns: cells from left to right.
        first: its first token.
        gap: tokens behind every row that are not of this view.
        window: where the grid lies.
    """
    tokens = (first + row * (columns + gap) + column for row in range(rows) for column in range(columns))
    return TokenView(name, rows, columns, tuple(tokens), window)


def tiled_view(name: str, tiles: tuple[int, int], side: int, first: int = 0) -> TokenView:
    """A view made of tiles side by side, whose tokens come tile by tile and in raster order inside each.

    Args:
        name: as of :class:`TokenView`.
        tiles: rows and columns of tiles, in raster order.
        side: cells along either side of a tile.
        first: its first token.
    """
    rows, columns = tiles[0] * side, tiles[1] * side
    tokens = (
        first + ((row // side) * tiles[1] + column // side) * side**2 + row % side * side + column % side
        for row in range(rows)
        for column in range(columns)
    )
    return TokenView(name, rows, columns, tuple(tokens))


def unpadded(cells: int, left_out: int, cell: float, offset: int, pixels: int) -> tuple[int, float, float]:
    """One axis of a picture that was scaled, put in the middle of a padded canvas, and rid of padding in whole cells.

    Args:
        cells: of the canvas along this axis.
        left_out: cells that were cut away at either end.
        cell: pixels of a cell.
        offset: pixels in front of the picture on the canvas.
        pixels: of the picture on the canvas.

    Returns:
        The cells left, and where they begin and end in shares of the picture.
    """
    return cells - 2 * left_out, (left_out * cell - offset) / pixels, ((cells - left_out) * cell - offset) / pixels
