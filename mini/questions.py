"""Everything that can be asked about a layout, with its one true answer, one family of questions per intent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from .layout import PICTURE_SIZE, Item, Layout
from .words import COLOURS, INTENTS, KINDS, PLURALS, PURPOSES, TOOLS, with_article

# Two things count as left or right of one another only where nobody would hesitate.
_CLEAR_GAP: Final = 14  # pixels between centres
_CLEAR_SIDE: Final = 10  # pixels from the middle line

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
        "Is the {kind} {one} or {other} of the {second}?",
    ),
    "spatial_vertical": (
        "Is the {kind} {one} or {other} the {second}?",
        "Is the {kind} located {one} or {other} the {second}?",
    ),
    "spatial_side": (
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

    Only ``spatial`` can be None, where no two single shapes stand clearly apart. Raises ``KeyError`` for an unknown
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
                  for name, pairs in (("spatial", _ACROSS), ("spatial_vertical", _DOWN), ("spatial_side", _ACROSS))
                  for one, other in (pairs, pairs[::-1]) for text in PHRASINGS[name]]
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
    # The first shape's kind is the counted one: asking for it keeps the answers 1 to 4 balanced.
    kind = layout.shapes[0].kind
    return Question("counting", _phrase("counting", rng).format(plural=PLURALS[kind]), str(layout.counts[kind]))


def _spatial(layout: Layout, rng: np.random.Generator) -> Question | None:
    clear = list(_relations(layout.unique_kinds))
    if not clear:
        return None
    # First the sort of relation, then one of that sort: pairs are many and sides are few.
    sorts = sorted({relation[0] for relation in clear})
    chosen = sorts[int(rng.integers(len(sorts)))]
    of_sort = [relation for relation in clear if relation[0] == chosen]
    _, first, second, answer = of_sort[int(rng.integers(len(of_sort)))]
    words = _DOWN if chosen == "spatial_vertical" else _ACROSS
    one, other = words if rng.random() < 0.5 else words[::-1]
    return Question(
        "spatial", _phrase(chosen, rng).format(kind=first, second=second, one=one, other=other), answer
    )


def _relations(items: tuple[Item, ...]) -> Iterator[tuple[str, str, str, str]]:
    """Every clear relation as the phrasings' name, the one kind, the other kind and the answer."""
    for first in items:
        if abs(first.x - PICTURE_SIZE // 2) >= _CLEAR_SIDE:
            yield "spatial_side", first.kind, "", _ACROSS[int(first.x > PICTURE_SIZE // 2)]
        for second in items:
            if abs(first.x - second.x) >= _CLEAR_GAP:
                yield "spatial", first.kind, second.kind, _ACROSS[int(first.x > second.x)]
            if abs(first.y - second.y) >= _CLEAR_GAP:
                yield "spatial_vertical", first.kind, second.kind, _DOWN[int(first.y > second.y)]


def _default(layout: Layout, rng: np.random.Generator) -> Question | None:
    """A yes or no, equally often; most of the no's name a colour and a kind that are there, but not together."""
    true = bool(rng.random() < 0.5)
    if rng.random() < 0.25:
        tool = layout.only("tool").kind
        others = [other for other in TOOLS if other != tool]
        thing = tool if true else others[int(rng.integers(len(others)))]
    else:
        here = sorted({(shape.detail, shape.kind) for shape in layout.shapes})
        mixed = [(colour, kind) for colour, _ in here for _, kind in here if (colour, kind) not in here]
        absent = [(colour, kind) for colour, _ in here for kind in KINDS if kind not in layout.counts]
        pool = here if true else mixed if rng.random() < 0.7 else absent
        colour, kind = pool[int(rng.integers(len(pool)))]
        thing = f"{colour} {kind}"
    return Question("default", _presence(_phrase("default", rng), with_article(thing)), "yes" if true else "no")


def _presence(text: str, thing: str) -> str:
    return text.format(thing=thing)


_ACROSS: Final = ("left", "right")
_DOWN: Final = ("above", "below")
_ANSWERS: Final = (*KINDS, *COLOURS, *TOOLS, *PURPOSES.values(), *_ACROSS, *_DOWN, "yes", "no")
_FAMILIES: Final[dict[str, Callable[[Layout, np.random.Generator], Question | None]]] = dict(
    zip(INTENTS, (_object, _attribute, _text, _scene, _spatial, _counting, _action, _intention, _default), strict=True)
)
