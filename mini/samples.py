"""The public generator: pictures with questions and true answers, for calibration and for tests.

Pictures are told apart by a seed and an index. Training draws only from ``TRAINING_SEEDS``; whatever is measured must
come from other seeds, and the two below are kept for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from .draw import render
from .layout import plan_layout
from .questions import ask
from .words import INTENTS

TRAINING_SEEDS: Final = range(1000)
VALIDATION_SEED: Final = 9000  # watched while training, never trained on
HELD_OUT_SEED: Final = 10_000  # the model card's accuracy
CALIBRATION_SEED: Final = 20_000  # the calibration's default


@dataclass(frozen=True)
class MiniSample:
    """One question about one drawn picture (96 x 96, RGB); ``answer`` is exactly what the model shall generate."""

    picture: Image.Image
    picture_index: int
    question: str
    answer: str
    intent: str


def draw_picture(seed: int, index: int) -> Image.Image:
    """Return picture ``index`` of ``seed``: 96 x 96 pixels, RGB. Raises ``ValueError`` for negative numbers."""
    return render(plan_layout(seed, index))


def generate_samples(
    count_pictures: int,
    seed: int = CALIBRATION_SEED,
    *,
    intents: Sequence[str] = INTENTS,
    per_intent: int = 1,
    first_picture: int = 0,
) -> Iterator[MiniSample]:
    """Yield ``per_intent`` samples of each intent for each of ``count_pictures`` pictures, picture after picture.

    All intents are equally frequent but for ``spatial``, which the rare picture with nothing clearly on a side lacks.
    The same arguments always yield the same samples, and a picture's samples do not depend on how many pictures are
    asked for. Raises ``KeyError`` for an unknown intent and ``ValueError`` for negative numbers.
    """
    if count_pictures < 0 or per_intent < 0:
        raise ValueError("the numbers of pictures and of samples cannot be negative")
    for index in range(first_picture, first_picture + count_pictures):
        layout = plan_layout(seed, index)
        picture = render(layout)
        for intent in intents:
            rng = np.random.default_rng([seed, index, 3, INTENTS.index(intent)] if intent in INTENTS else 0)
            for _ in range(per_intent):
                question = ask(layout, intent, rng)
                if question is not None:
                    yield MiniSample(picture, index, question.text, question.answer, intent)
