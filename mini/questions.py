"""Everything that can be asked about a layout, with its one true answer, one family of questions per intent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from .layout import PICTURE_SIZE, Item, Layout
from .words import COLOURS, INTENTS, KINDS, PLURALS, PURPOSES, TOOLS, with_article

# A thing counts as left or right only where nobody would hesitate.
_CLEAR_SIDE: Final = 10  # pixels from the middle line
_COUNTED: Final = 3  # how many of a kind are asked for at most

PHRASINGS: Final[dict[str, tuple[str, ...]]] = {
    "object": (
        "What is the {colour} object?",
        "What is the thing that is {colour}?",
        "Name the {colour} object.",
        "Which object is {colour}?",
    ),
    "attribute": (
        "What colour is the {kind}?",
        "What color is the {kind}?",
        "What is the colour of the {kind}?",
        "Which color does the {kind} have?",
    ),
    "text": (
        "What does the sign say?",
        "What letters are written on the sign?",
        "Read the sign.",
        "What is written on the sign?",
    ),
    "scene": (
        "What kind of place is this?",
        "Where was this picture taken?",
        "What scene is shown here?",
        "What is the setting of this picture?",
    ),
    "spatial": (
        "Which side of the picture is the {kind} on?",
        "Is the {kind} on the {one} or {other} side?",
    ),
    "counting": (
        "How many {plural} are there?",
        "Count the {plural}.",
        "How many {plural} are in the picture?",
        "What is the number of {plural}?",
    ),
    "action": (
        "What is the person doing?",
        "What action is the person performing?",
        "Which activity is the person doing?",
    ),
    "intention": (
        "What is the tool used for?",
        "What is the purpose of the tool?",
        "What would somebody use the tool for?",
    ),
    "default": (
        "Is there {thing} in the picture?",
        "Does the picture show {thing}?",
        "Can you see {thing}?",
        "Is {thing} visible?",
    ),
}


@dataclass(frozen=True)
class Question:
    """One question about one picture; ``intent`` is one of ``words.INTENTS``."""

    intent: str
    text: str
    answer: str


def ask(layout: Layout, intent: str, rng: np.random.Generator) -> Question | None:
    """Return a random question of ``intent`` about ``layout``, or None where the picture gives none.

    Only ``spatial`` can be None, where no single shape stands clearly on a side. Raises ``KeyError`` for an unknown
    intent.
    """
    return _FAMILIES[intent](layout, rng)


def all_texts() -> list[str]:
    """Every question and answer the world can produce, for a tokenizer's training."""
    texts = list(_ANSWERS)
    for colour in COLOURS:
        texts += [text.format(colour=colour) for text in PHRASINGS["object"]]
        texts += [_presence(text, with_article(f"{colour} {kind}")) for kind in KINDS for text in PHRASINGS["default"]]
    for thing in (*KINDS, *TOOLS):
        texts += [_presence(text, with_article(thing)) for text in PHRASINGS["default"]]
    for kind in KINDS:
        texts += [text.format(kind=kind, plural=PLURALS[kind]) for name in ("attribute", "counting")
                  for text in PHRASINGS[name]]
        texts += [text.format(kind=kind, second=kind, one=one, other=other)
                  for phrasings, pairs in ((_BESIDE, _ACROSS), (_OVER, _DOWN), (PHRASINGS["spatial"], _ACROSS))
                  for one, other in (pairs, pairs[::-1]) for text in phrasings]
    return texts + [text for name in ("text", "scene", "action", "intention") for text in PHRASINGS[name]]


def _phrase(name: str, rng: np.random.Generator) -> str:
    return PHRASINGS[name][int(rng.integers(len(PHRASINGS[name])))]


def _pick(items: tuple[Item, ...], rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]


def _object(layout: Layout, rng: np.random.Generator) -> Question | None:
    item = _pick(layout.unique_colours, rng)
    return Question("object", _phrase("object", rng).format(colour=item.detail), item.kind)


def _attribute(layout: Layout, rng: np.random.Generator) -> Question | None:
    item = _pick(layout.unique_kinds, rng)
    return Question("attribute", _phrase("attribute", rng).format(kind=item.kind), item.detail)


def _text(layout: Layout, rng: np.random.Generator) -> Question | None:
    return Question("text", _phrase("text", rng), " ".join(layout.only("sign").detail))


def _scene(layout: Layout, rng: np.random.Generator) -> Question | None:
    return Question("scene", _phrase("scene", rng), layout.scene)


def _action(layout: Layout, rng: np.random.Generator) -> Question | None:
    return Question("action", _phrase("action", rng), layout.only("person").detail)


def _intention(layout: Layout, rng: np.random.Generator) -> Question | None:
    return Question("intention", _phrase("intention", rng), PURPOSES[layout.only("tool").kind])


def _counting(layout: Layout, rng: np.random.Generator) -> Question | None:
    # The first shape's kind is the counted one: asking for it keeps the answers balanced. Four of a kind are not asked
    # for, the decoder learns that last; one of the single shapes is asked for instead.
    kind = layout.shapes[0].kind
    if layout.counts[kind] > _COUNTED:
        kind = _pick(layout.unique_kinds, rng).kind
    return Question("counting", _phrase("counting", rng).format(plural=PLURALS[kind]), str(layout.counts[kind]))


def _spatial(layout: Layout, rng: np.random.Generator) -> Question | None:
    clear = tuple(item for item in layout.unique_kinds if abs(item.x - PICTURE_SIZE // 2) >= _CLEAR_SIDE)
    if not clear:
        return None
    item = _pick(clear, rng)
    one, other = _ACROSS if rng.random() < 0.5 else _ACROSS[::-1]
    text = _phrase("spatial", rng).format(kind=item.kind, one=one, other=other)
    return Question("spatial", text, _ACROSS[int(item.x > PICTURE_SIZE // 2)])


def _default(layout: Layout, rng: np.random.Generator) -> Question | None:
    """Is there such a thing, a shape or a tool? Yes and no equally often."""
    true = bool(rng.random() < 0.5)
    if rng.random() < 0.25:
        here: list[str] = [layout.only("tool").kind]
        world: tuple[str, ...] = tuple(TOOLS)
    else:
        here, world = sorted({shape.kind for shape in layout.shapes}), tuple(KINDS)
    pool = here if true else [thing for thing in world if thing not in here]
    thing = pool[int(rng.integers(len(pool)))]
    return Question("default", _presence(_phrase("default", rng), with_article(thing)), "yes" if true else "no")


def _presence(text: str, thing: str) -> str:
    return text.format(thing=thing)


# Relations between two things are not asked for, this model does not learn them; their words are in its vocabulary.
_BESIDE: Final = ("Is the {kind} {one} or {other} of the {second}?",)
_OVER: Final = ("Is the {kind} {one} or {other} the {second}?", "Is the {kind} located {one} or {other} the {second}?")
_ACROSS: Final = ("left", "right")
_DOWN: Final = ("above", "below")
_ANSWERS: Final = (*KINDS, *COLOURS, *TOOLS, *PURPOSES.values(), *_ACROSS, *_DOWN, "yes", "no")
_FAMILIES: Final[dict[str, Callable[[Layout, np.random.Generator], Question | None]]] = dict(
    zip(INTENTS, (_object, _attribute, _text, _scene, _spatial, _counting, _action, _intention, _default), strict=True)
)
