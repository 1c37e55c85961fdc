"""What stands where in picture ``index`` of ``seed``: decided from random numbers alone, before any drawing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np

from .words import ACTIONS, COLOURS, KINDS, LETTERS, MAX_COUNT, SCENES, TOOLS

PICTURE_SIZE: Final = 96  # pixels, both sides

Role = Literal["shape", "person", "tool", "sign"]


@dataclass(frozen=True)
class Item:
    """One thing in a picture; ``x, y`` are its centre and ``width, height`` its box, in pixels, y downwards.

    ``kind`` is the outline of a shape and else the role's own name or the tool's; ``detail`` is a shape's colour,
    the person's action, the sign's two letters, and empty for a tool. ``angle`` is in degrees.
    """

    role: Role
    kind: str
    detail: str
    x: int
    y: int
    width: int
    height: int
    angle: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right (exclusive), bottom (exclusive), in pixels."""
        left, top = self.x - self.width // 2, self.y - self.height // 2
        return left, top, left + self.width, top + self.height


@dataclass(frozen=True)
class Layout:
    """A whole picture before it is drawn. ``items`` do not overlap; shapes of one kind share their colour."""

    seed: int
    index: int
    scene: str
    items: tuple[Item, ...]

    @cached_property
    def shapes(self) -> tuple[Item, ...]:
        """The coloured shapes."""
        return tuple(item for item in self.items if item.role == "shape")

    @cached_property
    def counts(self) -> dict[str, int]:
        """How often each kind of shape stands in the picture."""
        kinds = [shape.kind for shape in self.shapes]
        return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}

    @cached_property
    def unique_kinds(self) -> tuple[Item, ...]:
        """Shapes that are the only one of their kind."""
        return tuple(shape for shape in self.shapes if self.counts[shape.kind] == 1)

    @cached_property
    def unique_colours(self) -> tuple[Item, ...]:
        """Shapes that are the only one of their colour."""
        colours = [shape.detail for shape in self.shapes]
        return tuple(shape for shape in self.shapes if colours.count(shape.detail) == 1)

    def only(self, role: Role) -> Item:
        """The one item of ``role``. Raises ``ValueError`` where there is none or more than one."""
        (item,) = (item for item in self.items if item.role == role)
        return item


def plan_layout(seed: int, index: int) -> Layout:
    """Return the layout of picture ``index`` of ``seed``; the same two numbers always give the same layout.

    Each picture has one person, one tool, one sign, two to four single shapes of different kinds and colours, and
    one kind of shape that stands there one to four times. Raises ``ValueError`` for negative numbers.
    """
    rng = np.random.default_rng([seed, index, 0])
    scene = SCENES[int(rng.integers(len(SCENES)))]
    while True:
        items = _place(_wanted(rng), rng)
        if items is not None:
            return Layout(seed, index, scene, items)


def _wanted(rng: np.random.Generator) -> list[Item]:
    """Everything the picture shall hold, unplaced, the largest first."""
    kinds = [str(kind) for kind in rng.permutation(KINDS)]
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))]
    counted = int(rng.integers(1, MAX_COUNT + 1))
    singles = int(rng.integers(2, 5)) if counted < 3 else int(rng.integers(2, 4))
    pairs = [(kinds[0], colours[0])] * counted
    pairs += list(zip(kinds[1 : 1 + singles], colours[1 : 1 + singles], strict=True))
    letters = "".join(str(letter) for letter in rng.choice(list(LETTERS), 2))
    person_size = int(rng.integers(22, 28))
    tool_size = int(rng.integers(20, 26))
    items = [
        Item("sign", "sign", letters, 0, 0, int(rng.integers(25, 31)), int(rng.integers(15, 19)), 0.0),
        Item("person", "person", str(rng.choice(ACTIONS)), 0, 0, person_size, person_size, 0.0),
        Item("tool", str(rng.choice(TOOLS)), "", 0, 0, tool_size, tool_size, float(rng.uniform(-35, 35))),
    ]
    for kind, colour in pairs:
        size = int(rng.integers(13, 19))
        items.append(Item("shape", kind, colour, 0, 0, size, size, float(rng.uniform(-14, 14))))
    return items


def _place(wanted: list[Item], rng: np.random.Generator) -> tuple[Item, ...] | None:
    """Give each item a place free of the others, or return None after too many failures."""
    taken = np.zeros((PICTURE_SIZE, PICTURE_SIZE), dtype=bool)
    placed: list[Item] = []
    for item in wanted:
        for _ in range(40):
            left = int(rng.integers(0, PICTURE_SIZE - item.width + 1))
            top = int(rng.integers(0, PICTURE_SIZE - item.height + 1))
            if not taken[top : top + item.height, left : left + item.width].any():
                break
        else:
            return None
        taken[top : top + item.height, left : left + item.width] = True
        x, y = left + item.width // 2, top + item.height // 2
        placed.append(
            Item(item.role, item.kind, item.detail, x, y, item.width, item.height, item.angle)
        )
    return tuple(placed)
