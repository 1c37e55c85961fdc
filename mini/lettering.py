"""The sign: two capitals in one of several letter forms, from Pillow's own font or a five-by-seven grid."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Rows from top to bottom, five bits each.
_GRID: Final[dict[str, tuple[int, ...]]] = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "X": (17, 17, 10, 4, 10, 17, 17),
}
_STYLES: Final = ("plain", "bold", "slanted", "grid")


def sign_tile(letters: str, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Return a ``width`` x ``height`` RGBA sign that bears two letters, one in each half."""
    tile = Image.new("RGBA", (width, height), (30, 30, 36, 255))
    paper = int(rng.integers(232, 256))
    ImageDraw.Draw(tile).rectangle((1, 1, width - 2, height - 2), fill=(paper, paper, paper - 8, 255))
    ink = tuple(int(v) for v in rng.integers(0, 50, 3))
    style = str(rng.choice(_STYLES))
    cell_width, cell_height = width // 2 - 3, height - 5
    for half, letter in enumerate(letters):
        glyph = _fitted(_glyph(letter, style), cell_width, cell_height)
        left = 2 + half * (width // 2 - 1) + (cell_width - glyph.width) // 2 + half
        top = 2 + (height - 4 - glyph.height) // 2 + int(rng.integers(0, 2))
        tile.paste(Image.new("RGBA", glyph.size, (*ink, 255)), (left, top), glyph)
    return tile


def letter_boxes(left: int, top: int, width: int, height: int) -> tuple[tuple[int, int, int, int], ...]:
    """Return the two letters' cells on a sign at ``left, top``: left, top, right, bottom in pixels."""
    middle = left + width // 2
    return (left + 2, top + 2, middle, top + height - 2), (middle, top + 2, left + width - 2, top + height - 2)


def _fitted(glyph: Image.Image, width: int, height: int) -> Image.Image:
    """Scale ``glyph`` to the largest size that fits, allowing letters to be a little stretched."""
    scale = min(width / glyph.width, height / glyph.height)
    wide = min(width, max(round(glyph.width * scale), round(height * 0.6)))
    return glyph.resize((wide, max(1, round(glyph.height * scale))), Image.Resampling.BOX)


@cache
def _glyph(letter: str, style: str) -> Image.Image:
    """The letter's ink as a tight L image, some forty pixels high."""
    if style == "grid":
        rows = np.array([[(row >> (4 - bit)) & 1 for bit in range(5)] for row in _GRID[letter]], dtype=np.uint8)
        return Image.fromarray(np.kron(rows * 255, np.ones((6, 6), dtype=np.uint8)))
    image = Image.new("L", (96, 96))
    stroke = 3 if style == "bold" else 1
    font = ImageFont.load_default(48)
    ImageDraw.Draw(image).text((24, 16), letter, fill=255, font=font, stroke_width=stroke)
    if style == "slanted":
        image = image.transform(image.size, Image.Transform.AFFINE, (1, 0.28, -12, 0, 1, 0))
    return image.crop(image.getbbox())
