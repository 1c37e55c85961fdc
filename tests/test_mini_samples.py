"""The drawn pictures and their questions: the same each time, and each answer true of its picture."""

from collections import Counter

import numpy as np
import pytest

from claspkit.mini.draw import GRID, LABEL_CLASSES, PATCH_SIZE, patch_labels
from claspkit.mini.layout import PICTURE_SIZE, Layout, plan_layout
from claspkit.mini.questions import PHRASINGS, all_texts, ask
from claspkit.mini.samples import (
    CALIBRATION_SEED,
    HELD_OUT_SEED,
    TRAINING_SEEDS,
    VALIDATION_SEED,
    draw_picture,
    generate_samples,
)
from claspkit.mini.words import COLOURS, INTENTS, KINDS, PLURALS, PURPOSES, TOOLS

SEED = 31_000
LAYOUTS = [plan_layout(SEED, index) for index in range(300)]


def named(text: str, words: tuple[str, ...]) -> list[str]:
    """The words that occur in the question, in its order."""
    tokens = text.rstrip("?.").split()
    return [token for token in tokens if token in words]


def true_answer(layout: Layout, intent: str, text: str) -> str:
    """The answer found from the layout by this test's own rules, apart from the generator's."""
    shapes = layout.shapes
    kinds = named(text, KINDS)
    if intent == "object":
        (item,) = (shape for shape in shapes if shape.detail in text.split() or f"{shape.detail}?" in text.split())
        return item.kind
    if intent == "attribute":
        (item,) = (shape for shape in shapes if shape.kind == kinds[0])
        return item.detail
    if intent == "counting":
        (kind,) = (kind for kind in KINDS if PLURALS[kind] in text.rstrip("?.").split())
        return str(sum(shape.kind == kind for shape in shapes))
    if intent == "text":
        return " ".join(layout.only("sign").detail)
    if intent == "scene":
        return layout.scene
    if intent == "action":
        return layout.only("person").detail
    if intent == "intention":
        return PURPOSES[layout.only("tool").kind]
    if intent == "default":
        tools = named(text, TOOLS)
        if tools:
            return "yes" if layout.only("tool").kind == tools[0] else "no"
        return "yes" if any(shape.kind == kinds[0] for shape in shapes) else "no"
    first = next(shape for shape in shapes if shape.kind == kinds[0])
    return "left" if first.x < PICTURE_SIZE / 2 else "right"


def test_a_picture_is_the_same_each_time_and_differs_from_its_neighbours() -> None:
    once, again, other = draw_picture(SEED, 5), draw_picture(SEED, 5), draw_picture(SEED, 6)
    assert once.size == (PICTURE_SIZE, PICTURE_SIZE)
    assert once.mode == "RGB"
    assert once.tobytes() == again.tobytes() != other.tobytes()
    assert draw_picture(SEED + 1, 5).tobytes() != once.tobytes()


def test_samples_repeat_and_do_not_depend_on_how_many_are_asked_for() -> None:
    few = list(generate_samples(2, SEED))
    many = list(generate_samples(4, SEED))
    later = list(generate_samples(1, SEED, first_picture=1))

    def told(samples: list[object]) -> list[tuple[object, ...]]:
        return [tuple(getattr(s, n) for n in ("picture_index", "intent", "question", "answer")) for s in samples]

    assert told([*few]) == told([*many])[: len(few)]
    assert told([*later]) == [sample for sample in told([*few]) if sample[0] == 1]
    assert many[-1].picture.tobytes() == draw_picture(SEED, many[-1].picture_index).tobytes()


def test_every_intent_is_there_and_equally_often() -> None:
    counts = Counter(sample.intent for sample in generate_samples(60, SEED, per_intent=2))
    assert tuple(counts) == INTENTS
    assert all(count == 120 for intent, count in counts.items() if intent != "spatial")
    assert counts["spatial"] >= 110


@pytest.mark.parametrize("intent", INTENTS)
def test_each_answer_is_true_of_its_picture(intent: str) -> None:
    rng = np.random.default_rng(1)
    asked = [(layout, ask(layout, intent, rng)) for layout in LAYOUTS for _ in range(3)]
    questions = [(layout, question) for layout, question in asked if question is not None]
    # No single shape may stand clearly on a side: the one case without a question, and a rare one.
    assert len(questions) > (0.97 if intent == "spatial" else 0.999) * len(asked)
    for layout, question in questions:
        assert question.intent == intent
        assert question.answer == true_answer(layout, intent, question.text), (layout, question)


@pytest.mark.parametrize("intent", [intent for intent in INTENTS if intent not in {"object", "text"}])
def test_no_answer_can_be_guessed_from_being_frequent(intent: str) -> None:
    rng = np.random.default_rng(2)
    answers = Counter(q.answer for layout in LAYOUTS for _ in range(4) if (q := ask(layout, intent, rng)) is not None)
    assert max(answers.values()) < 1.6 * sum(answers.values()) / len(answers)


def test_yes_and_no_are_equally_often_true() -> None:
    rng = np.random.default_rng(3)
    answers = [ask(layout, "default", rng) for layout in LAYOUTS for _ in range(4)]
    share = np.mean([question is not None and question.answer == "yes" for question in answers])
    assert 0.45 < share < 0.55


def test_things_stand_apart_inside_the_picture_and_shapes_have_unique_referents() -> None:
    for layout in LAYOUTS:
        taken = np.zeros((PICTURE_SIZE, PICTURE_SIZE), dtype=int)
        for item in layout.items:
            left, top, right, bottom = item.box
            assert min(left, top) >= 0
            assert max(right, bottom) <= PICTURE_SIZE
            taken[top:bottom, left:right] += 1
        assert taken.max() == 1
        assert len(layout.unique_kinds) >= 2
        assert len(layout.unique_colours) >= 2
        assert 1 <= layout.counts[layout.shapes[0].kind] <= 4


def test_patch_labels_name_what_stands_at_each_centre() -> None:
    columns = list(LABEL_CLASSES)
    for layout in LAYOUTS[:50]:
        labels = patch_labels(layout)
        assert labels.shape == (GRID * GRID, len(columns))
        assert (labels.max(axis=0) < np.array(list(LABEL_CLASSES.values()))).all()
        for shape in layout.shapes:
            patch = labels[(shape.y // PATCH_SIZE) * GRID + shape.x // PATCH_SIZE]
            assert patch[columns.index("thing")] == 1 + KINDS.index(shape.kind)
            assert patch[columns.index("colour")] == 1 + list(COLOURS).index(shape.detail)


def test_every_word_that_is_asked_is_among_the_texts_of_the_tokenizer() -> None:
    words = {word.strip("?.") for text in all_texts() for word in text.split()}
    rng = np.random.default_rng(4)
    asked = {q.text for layout in LAYOUTS for intent in INTENTS if (q := ask(layout, intent, rng)) is not None}
    assert {word.strip("?.") for text in asked for word in text.split()} <= words
    assert all(len(set(phrasings)) >= 2 for phrasings in PHRASINGS.values())


def test_measuring_seeds_are_not_training_seeds() -> None:
    measuring = {VALIDATION_SEED, HELD_OUT_SEED, CALIBRATION_SEED}
    assert len(measuring) == 3
    assert not measuring & set(TRAINING_SEEDS)


def test_unknown_intents_and_negative_numbers_are_refused() -> None:
    with pytest.raises(KeyError):
        list(generate_samples(1, SEED, intents=["weather"]))
    with pytest.raises(ValueError, match="negative"):
        list(generate_samples(-1, SEED))
    with pytest.raises(ValueError, match="negative"):
        plan_layout(-1, 0)
