"""The things themselves: coloured shapes, tools and the person, each drawn large and reduced to a small tile."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .words import COLOURS

_SCALE: Final = 4  # drawn at four times the size and averaged down, which smooths the edges
_DARK: Final = (22, 20, 26)
_Points = list[tuple[float, float]]


def shape_tile(kind: str, colour: str, size: int, angle: float) -> Image.Image:
    """Return a ``size`` x ``size`` RGBA tile of a dark-edged shape. Raises ``KeyError`` for unknown words."""
    side = size * _SCALE
    mask = Image.new("L", (side, side))
    _draw_shape(ImageDraw.Draw(mask), kind, side)
    mask = mask.rotate(angle, Image.Resampling.BILINEAR)
    return _edged(mask, COLOURS[colour])


def tool_tile(kind: str, size: int, angle: float, rng: np.random.Generator) -> Image.Image:
    """Return a ``size`` x ``size`` RGBA tile of a tool in wood and steel. Raises ``KeyError`` for unknown tools."""
    side = size * _SCALE
    wood, steel = Image.new("L", (side, side)), Image.new("L", (side, side))
    _draw_tool(ImageDraw.Draw(wood), ImageDraw.Draw(steel), kind, side)
    shade = int(rng.integers(-16, 17))
    tile = _edged(wood.rotate(angle, Image.Resampling.BILINEAR), (150 + shade, 104 + shade, 66 + shade))
    over = _edged(steel.rotate(angle, Image.Resampling.BILINEAR), (214 + shade, 218 + shade, 226 + shade))
    tile.alpha_composite(over)
    return tile


def person_tile(action: str, size: int, rng: np.random.Generator) -> Image.Image:
    """Return a ``size`` x ``size`` RGBA tile of a figure in ``action``. Raises ``KeyError`` for unknown actions."""
    side = size * _SCALE
    head, limbs = _POSES[action]
    body_mask, head_mask = Image.new("L", (side, side)), Image.new("L", (side, side))
    body, face = ImageDraw.Draw(body_mask), ImageDraw.Draw(head_mask)
    wobble = rng.uniform(-0.025, 0.025, 2)
    width = int(side * 0.13)
    for limb in limbs:
        points = [((x + wobble[0]) * side, (y + wobble[1]) * side) for x, y in limb]
        body.line(points, fill=255, width=width, joint="curve")
        for x, y in points:
            body.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    x, y, radius = (head[0] + wobble[0]) * side, (head[1] + wobble[1]) * side, side * 0.13
    face.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    if rng.random() < 0.5:
        body_mask, head_mask = (m.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for m in (body_mask, head_mask))
    grey = int(rng.integers(30, 90))
    tile = _edged(body_mask, (grey, grey, grey + 14))
    tile.alpha_composite(_edged(head_mask, (236, 200, 172)))
    return tile


def _edged(mask: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
    """Fill ``mask`` with a colour inside a dark edge and reduce it to tile size."""
    inside = mask.filter(ImageFilter.MinFilter(2 * _SCALE - 1))
    tile = Image.new("RGBA", mask.size, (*_DARK, 0))
    tile.paste(Image.new("RGBA", mask.size, (*_DARK, 255)), mask=mask)
    tile.paste(Image.new("RGBA", mask.size, (*fill, 255)), mask=inside)
    return tile.reduce(_SCALE)


def _circle(count: int, radius: float, phase: float = 0.0) -> _Points:
    angles = [phase + 2 * math.pi * step / count for step in range(count)]
    return [(0.5 + radius * math.cos(a), 0.5 + radius * math.sin(a)) for a in angles]


def _draw_shape(draw: ImageDraw.ImageDraw, kind: str, side: int) -> None:
    if kind == "star":
        outer, inner = _circle(5, 0.5, -math.pi / 2), _circle(5, 0.21, -math.pi / 2 + math.pi / 5)
        _polygon(draw, [p for pair in zip(outer, inner, strict=True) for p in pair], side)
    elif kind == "heart":
        angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        x = 16 * np.sin(angles) ** 3
        y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
        _polygon(draw, [(0.5 + float(a) / 34, 0.46 - float(b) / 34) for a, b in zip(x, y, strict=True)], side)
    elif kind == "moon":
        draw.ellipse(_box(0.04, 0.04, 0.96, 0.96, side), fill=255)
        draw.ellipse(_box(0.36, -0.06, 1.16, 0.74, side), fill=0)
    elif kind == "box":
        draw.rectangle(_box(0.1, 0.1, 0.9, 0.9, side), fill=255)
    elif kind == "ball":
        draw.ellipse(_box(0.03, 0.03, 0.97, 0.97, side), fill=255)
    elif kind == "cross":
        draw.rectangle(_box(0.34, 0.02, 0.66, 0.98, side), fill=255)
        draw.rectangle(_box(0.02, 0.34, 0.98, 0.66, side), fill=255)
    elif kind == "ring":
        draw.ellipse(_box(0.02, 0.02, 0.98, 0.98, side), fill=255)
        draw.ellipse(_box(0.3, 0.3, 0.7, 0.7, side), fill=0)
    elif kind == "kite":
        _polygon(draw, [(0.5, 0.0), (0.9, 0.36), (0.5, 1.0), (0.1, 0.36)], side)
    else:
        raise KeyError(kind)


def _draw_tool(wood: ImageDraw.ImageDraw, steel: ImageDraw.ImageDraw, kind: str, side: int) -> None:
    if kind == "hammer":
        wood.rectangle(_box(0.43, 0.25, 0.58, 1.0, side), fill=255)
        steel.rectangle(_box(0.14, 0.06, 0.86, 0.34, side), fill=255)
    elif kind == "key":
        steel.ellipse(_box(0.28, 0.0, 0.72, 0.44, side), fill=255)
        steel.ellipse(_box(0.42, 0.14, 0.58, 0.3, side), fill=0)
        steel.rectangle(_box(0.43, 0.42, 0.57, 1.0, side), fill=255)
        steel.rectangle(_box(0.5, 0.64, 0.78, 0.76, side), fill=255)
        steel.rectangle(_box(0.5, 0.87, 0.78, 1.0, side), fill=255)
    elif kind == "scissors":
        for flip in (0.0, 1.0):
            _polygon(steel, [(abs(flip - x), y) for x, y in
                             ((0.1, 0.02), (0.26, 0.0), (0.72, 0.66), (0.58, 0.72))], side)
        for left in (0.06, 0.56):
            wood.ellipse(_box(left, 0.6, left + 0.38, 0.98, side), fill=255)
            wood.ellipse(_box(left + 0.13, 0.73, left + 0.25, 0.85, side), fill=0)
    elif kind == "spoon":
        steel.ellipse(_box(0.27, 0.0, 0.73, 0.5, side), fill=255)
        steel.rectangle(_box(0.44, 0.45, 0.56, 1.0, side), fill=255)
    elif kind == "brush":
        wood.rectangle(_box(0.43, 0.4, 0.57, 1.0, side), fill=255)
        steel.rectangle(_box(0.3, 0.32, 0.7, 0.46, side), fill=255)
        _polygon(wood, [(0.3, 0.34), (0.7, 0.34), (0.66, 0.1), (0.5, 0.0), (0.34, 0.1)], side)
    else:
        raise KeyError(kind)


def _polygon(draw: ImageDraw.ImageDraw, points: _Points, side: int) -> None:
    draw.polygon([(x * side, y * side) for x, y in points], fill=255)


def _box(left: float, top: float, right: float, bottom: float, side: int) -> tuple[float, float, float, float]:
    return left * side, top * side, right * side, bottom * side


# The head's centre and the limbs as joints, in fractions of the tile, y downwards.
_POSES: Final[dict[str, tuple[tuple[float, float], tuple[_Points, ...]]]] = {
    "running": (
        (0.62, 0.16),
        (
            [(0.58, 0.32), (0.48, 0.6)],
            [(0.56, 0.36), (0.78, 0.44), (0.9, 0.3)],
            [(0.56, 0.36), (0.32, 0.36), (0.22, 0.52)],
            [(0.48, 0.6), (0.74, 0.68), (0.74, 0.92)],
            [(0.48, 0.6), (0.32, 0.78), (0.08, 0.78)],
        ),
    ),
    "jumping": (
        (0.5, 0.24),
        (
            [(0.5, 0.4), (0.5, 0.62)],
            [(0.5, 0.42), (0.24, 0.3), (0.14, 0.08)],
            [(0.5, 0.42), (0.76, 0.3), (0.86, 0.08)],
            [(0.5, 0.62), (0.24, 0.7), (0.1, 0.92)],
            [(0.5, 0.62), (0.76, 0.7), (0.9, 0.92)],
        ),
    ),
    "sitting": (
        (0.3, 0.18),
        (
            [(0.3, 0.34), (0.3, 0.66)],
            [(0.3, 0.4), (0.58, 0.5)],
            [(0.3, 0.66), (0.72, 0.66), (0.72, 0.92)],
            [(0.12, 0.8), (0.5, 0.8)],
            [(0.12, 0.8), (0.12, 0.92)],
            [(0.48, 0.8), (0.48, 0.92)],
        ),
    ),
    "waving": (
        (0.46, 0.18),
        (
            [(0.46, 0.34), (0.46, 0.62)],
            [(0.46, 0.38), (0.72, 0.34), (0.78, 0.08)],
            [(0.46, 0.38), (0.3, 0.5), (0.28, 0.64)],
            [(0.46, 0.62), (0.36, 0.92)],
            [(0.46, 0.62), (0.56, 0.92)],
        ),
    ),
    "sleeping": (
        (0.14, 0.66),
        (
            [(0.3, 0.7), (0.62, 0.72)],
            [(0.62, 0.72), (0.92, 0.74)],
            [(0.36, 0.7), (0.5, 0.6)],
            [(0.08, 0.88), (0.92, 0.88)],
        ),
    ),
}
