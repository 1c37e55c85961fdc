"""The embedded default: a small LLaVA, the pictures it was trained on, and the recipe that made it.

What is named here needs only numpy and Pillow. The model is at ``MODEL_DIR`` and loads like any LLaVA, or with
``claspkit.mini.store.load_model``; ``claspkit.mini.train`` made it and ``claspkit.mini.evaluate`` measures it.
"""

from __future__ import annotations

from .paths import MODEL_DIR
from .samples import (
    CALIBRATION_SEED,
    HELD_OUT_SEED,
    TRAINING_SEEDS,
    VALIDATION_SEED,
    MiniSample,
    draw_picture,
    generate_samples,
)
from .words import INTENTS

__all__ = [
    "CALIBRATION_SEED",
    "HELD_OUT_SEED",
    "INTENTS",
    "MODEL_DIR",
    "TRAINING_SEEDS",
    "VALIDATION_SEED",
    "MiniSample",
    "draw_picture",
    "generate_samples",
]
