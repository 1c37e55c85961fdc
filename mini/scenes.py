"""The five kinds of place, each a muted textured background."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .layout import PICTURE_SIZE

_Colour = tuple[int, int, int]


def draw_scene(scene: str, rng: np.random.Generator) -> Image.Image:
    """Return a 96 x 96 RGB background of ``scene``. Raises ``KeyError`` for a place that is not one of the five."""
    painters = {"beach": _beach, "forest": _forest, "city": _city, "field": _field, "room": _room}
    painter = painters[scene]
    image = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE))
    painter(ImageDraw.Draw(image), rng)
    pixels = np.asarray(image, dtype=np.int16)
    # Grain and a brightness of the day: without them a patch could be told by one exact pixel value.
    grain = rng.normal(0.0, 4.0, (PICTURE_SIZE, PICTURE_SIZE, 1)) + rng.uniform(-14, 10)
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _tint(colour: _Colour, rng: np.random.Generator, spread: int = 10) -> _Colour:
    red, green, blue = (int(np.clip(c + rng.integers(-spread, spread + 1), 0, 255)) for c in colour)
    return red, green, blue


def _specks(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, top: int, bottom: int, colour: _Colour, count: int
) -> None:
    for x, y in zip(rng.integers(0, PICTURE_SIZE, count), rng.integers(top, bottom, count), strict=True):
        draw.point((int(x), int(y)), fill=_tint(colour, rng))


def _beach(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    sea, sand = int(rng.integers(14, 34)), int(rng.integers(44, 66))
    draw.rectangle((0, 0, 96, sea), fill=_tint((176, 200, 214), rng))
    draw.rectangle((0, sea, 96, sand), fill=_tint((92, 140, 158), rng))
    for y in range(sea + 3, sand, int(rng.integers(4, 7))):
        start = int(rng.integers(0, 12))
        for x in range(start, 96, 12):
            draw.line((x, y, x + 5, y), fill=(142, 180, 192))
    draw.rectangle((0, sand, 96, 96), fill=_tint((206, 188, 148), rng))
    _specks(draw, rng, sand, 96, (172, 152, 112), 150)


def _forest(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, 96, 96), fill=_tint((74, 96, 70), rng))
    x = int(rng.integers(0, 8))
    while x < 96:
        width = int(rng.integers(4, 8))
        draw.rectangle((x, 0, x + width, 96), fill=_tint((84, 66, 50), rng))
        x += width + int(rng.integers(8, 15))
    for x, y in zip(rng.integers(0, 96, 26), rng.integers(0, 34, 26), strict=True):
        radius = int(rng.integers(3, 7))
        draw.ellipse((int(x) - radius, int(y) - radius, int(x) + radius, int(y) + radius),
                     fill=_tint((58, 86, 56), rng))
    _specks(draw, rng, 70, 96, (104, 112, 74), 120)


def _city(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, 96, 96), fill=_tint((186, 192, 200), rng))
    x = 0
    while x < 96:
        width, top = int(rng.integers(17, 27)), int(rng.integers(3, 26))
        draw.rectangle((x, top, x + width - 2, 80), fill=_tint((134, 132, 136), rng, 14))
        for wx in range(x + 3, x + width - 5, 5):
            for wy in range(top + 4, 76, 6):
                draw.rectangle((wx, wy, wx + 1, wy + 2), fill=_tint((92, 98, 110), rng))
        x += width
    draw.rectangle((0, 80, 96, 96), fill=_tint((98, 98, 100), rng))
    for x in range(int(rng.integers(0, 8)), 96, 16):
        draw.line((x, 88, x + 7, 88), fill=(198, 198, 194))


def _field(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = int(rng.integers(18, 40))
    draw.rectangle((0, 0, 96, horizon), fill=_tint((188, 206, 218), rng))
    draw.rectangle((0, horizon, 96, 96), fill=_tint((142, 162, 102), rng))
    for x, y in zip(rng.integers(0, 96, 150), rng.integers(horizon + 2, 96, 150), strict=True):
        height = int(rng.integers(2, 5))
        draw.line((int(x), int(y), int(x) + 1, int(y) - height), fill=_tint((112, 136, 76), rng))
    for x, y in zip(rng.integers(0, 96, 3), rng.integers(2, horizon - 8, 3), strict=True):
        draw.ellipse((int(x) - 8, int(y), int(x) + 8, int(y) + 5), fill=_tint((218, 226, 230), rng))


def _room(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    floor, step = int(rng.integers(58, 76)), int(rng.integers(7, 11))
    wall = _tint((208, 190, 178), rng)
    draw.rectangle((0, 0, 96, floor), fill=wall)
    darker = (wall[0] - 16, wall[1] - 18, wall[2] - 16)
    for x in range(int(rng.integers(0, step)), 96, step):
        draw.line((x, 0, x, floor), fill=darker, width=2)
    draw.rectangle((0, floor, 96, 96), fill=_tint((142, 106, 82), rng))
    for y in range(floor + 5, 96, 6):
        draw.line((0, y, 96, y), fill=(112, 82, 62))
    draw.line((0, floor, 96, floor), fill=(96, 74, 60), width=2)
