"""Draw a planned layout, and tell what covers each patch of the result."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .figures import person_tile, shape_tile, tool_tile
from .layout import PICTURE_SIZE, Item, Layout
from .lettering import letter_boxes, sign_tile
from .scenes import draw_scene
from .words import ACTIONS, COLOURS, KINDS, LETTERS, SCENES, TOOLS

PATCH_SIZE: Final = 8
GRID: Final = PICTURE_SIZE // PATCH_SIZE
PATCHES: Final = GRID * GRID

# One dense label per patch and name; class 0 of every name but the scene means "nothing of this sort here".
LABEL_CLASSES: Final[dict[str, int]] = {
    "thing": 1 + len(KINDS) + 3,
    "colour": 1 + len(COLOURS),
    "letter": 1 + len(LETTERS),
    "action": 1 + len(ACTIONS),
    "tool": 1 + len(TOOLS),
    "centre": 2,
    "scene": len(SCENES),
}
_THINGS: Final = (*KINDS, "person", "tool", "sign")


def render(layout: Layout) -> Image.Image:
    """Return the layout as a 96 x 96 RGB picture, always the same pixels for the same layout."""
    rng = np.random.default_rng([layout.seed, layout.index, 1])
    image = draw_scene(layout.scene, rng)
    for item in layout.items:
        tile = _tile(item, rng)
        image.paste(tile, item.box[:2], tile)
    return image


def patch_labels(layout: Layout) -> np.ndarray:
    """Return uint8 labels of shape (144, 7): patches in reading order, columns in the order of LABEL_CLASSES.

    A patch belongs to the item whose box covers most of it, where that is at least a sixth of the patch.
    """
    labels = np.zeros((PATCHES, len(LABEL_CLASSES)), dtype=np.uint8)
    column = {name: position for position, name in enumerate(LABEL_CLASSES)}
    labels[:, column["scene"]] = SCENES.index(layout.scene)
    best = np.full(PATCHES, PATCH_SIZE * PATCH_SIZE / 6)
    for item in layout.items:
        cover = _cover(item.box)
        here = cover > best
        best[here] = cover[here]
        labels[here, : column["scene"]] = 0
        labels[here, column["thing"]] = 1 + _THINGS.index(item.kind if item.role == "shape" else item.role)
        if item.role == "shape":
            labels[here, column["colour"]] = 1 + list(COLOURS).index(item.detail)
        elif item.role == "person":
            labels[here, column["action"]] = 1 + ACTIONS.index(item.detail)
        elif item.role == "tool":
            labels[here, column["tool"]] = 1 + TOOLS.index(item.kind)
        else:
            left, top, _, _ = item.box
            covers = [_cover(box) for box in letter_boxes(left, top, item.width, item.height)]
            for cell, other, letter in zip(covers, reversed(covers), item.detail, strict=True):
                mine = here & (cell > other) & (cell > PATCH_SIZE * PATCH_SIZE / 6)
                labels[mine, column["letter"]] = 1 + LETTERS.index(letter)
        centre = (item.y // PATCH_SIZE) * GRID + item.x // PATCH_SIZE
        labels[centre, column["centre"]] = 1
    return labels


def _cover(box: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """Pixels of each patch inside ``box``, shape (144,)."""
    edges = np.arange(GRID) * PATCH_SIZE
    left, top, right, bottom = box
    across = np.clip(np.minimum(right, edges + PATCH_SIZE) - np.maximum(left, edges), 0, None)
    down = np.clip(np.minimum(bottom, edges + PATCH_SIZE) - np.maximum(top, edges), 0, None)
    return np.outer(down, across).reshape(-1)


def _tile(item: Item, rng: np.random.Generator) -> Image.Image:
    if item.role == "shape":
        return shape_tile(item.kind, item.detail, item.width, item.angle)
    if item.role == "person":
        return person_tile(item.detail, item.width, rng)
    if item.role == "tool":
        return tool_tile(item.kind, item.width, item.angle, rng)
    return sign_tile(item.detail, item.width, item.height, rng)
