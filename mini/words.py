"""The closed vocabulary of the drawn world: what can be in a picture and what can be answered about it."""

from __future__ import annotations

from typing import Final

INTENTS: Final[tuple[str, ...]] = (
    "object",
    "attribute",
    "text",
    "scene",
    "spatial",
    "counting",
    "action",
    "intention",
    "default",
)

SCENES: Final[tuple[str, ...]] = ("beach", "forest", "city", "field", "room")

# Eight outlines that stay apart at some fifteen pixels.
KINDS: Final[tuple[str, ...]] = ("star", "heart", "moon", "box", "ball", "cross", "ring", "kite")
PLURALS: Final[dict[str, str]] = {kind: kind + ("es" if kind[-1] in "sx" else "s") for kind in KINDS}

# The backgrounds are muted, so these bright fills are never a background's colour.
COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (225, 30, 35),
    "green": (40, 205, 60),
    "blue": (35, 70, 235),
    "yellow": (250, 230, 40),
    "purple": (165, 40, 205),
    "orange": (250, 140, 20),
}

ACTIONS: Final[tuple[str, ...]] = ("running", "jumping", "sitting", "waving", "sleeping")

PURPOSES: Final[dict[str, str]] = {
    "hammer": "hitting",
    "key": "opening",
    "scissors": "cutting",
    "spoon": "eating",
    "brush": "painting",
}
TOOLS: Final[tuple[str, ...]] = tuple(PURPOSES)

# Ten capitals of clearly different skeletons: no C beside O, no Z beside S, no N beside H.
LETTERS: Final[str] = "AEHKLOSTUX"

MAX_COUNT: Final[int] = 4


def with_article(phrase: str) -> str:
    """Return ``phrase`` after its indefinite article ("an orange star")."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
