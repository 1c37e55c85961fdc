"""The student: a linear classifier over hashed words, small enough to ship inside a profile. Plain numpy.

A prompt's features are the words of its question, its pairs of neighbouring words, and its first two words once
more, each hashed to a row of the weight matrix. Logits = (sum of rows) / sqrt(number of features) + bias.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import ProfileError, UsageError
from claspkit.profiles.intents import INTENT_IDS

from .backends import Backend
from .labels import Label
from .prompts import normalise, question

BUCKETS: Final = 2**15
_MAX_BUCKETS: Final = 2**20
_MAX_WORDS: Final = 400
_BATCH: Final = 64
_WORD = re.compile(r"\w+")

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class StudentBackend(Backend):
    """Labels by a trained student.

    Args:
        weights: (buckets, 9) float16, columns in INTENT order.
        bias: (9,) float16.
    """

    def __init__(self, weights: NDArray[np.float16], bias: NDArray[np.float16]) -> None:
        self._stored = {"weights": weights, "bias": bias}
        self._weights = weights.astype(np.float32)
        self._bias = bias.astype(np.float32)
        self.template = sha256_hex(self.to_bytes())
        self.source = f"student:{self.template[:12]}"
        self.block = 4096

    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt: the likeliest intent and its probability; no fine intent."""
        return [self._label(prompt) for prompt in prompts]

    def _label(self, prompt: str) -> Label:
        rows = features(prompt, len(self._weights))
        logits = self._weights[rows].sum(axis=0) / math.sqrt(max(len(rows), 1)) + self._bias
        shares = _softmax(logits[None])[0]
        best = int(shares.argmax())
        return Label(INTENT_IDS[best], None, min(float(shares[best]), 1.0), self.source, self.template)

    def to_bytes(self) -> bytes:
        """The student as a safetensors file."""
        from safetensors.numpy import save

        data: bytes = save(self._stored)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> StudentBackend:
        """Read a student from a safetensors file that may be hostile.

        Raises:
            ProfileError: it is no safetensors file, or names, shapes, dtypes or values are not a student's.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors: dict[str, Any] = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ProfileError("router.file", f"no safetensors file: {error}") from None
        if tensors.keys() != {"weights", "bias"}:
            raise ProfileError("router.file", "a student holds the tensors 'weights' and 'bias' and no others")
        weights, bias = tensors["weights"], tensors["bias"]
        classes = len(INTENT_IDS)
        shapes_fit = weights.ndim == 2 and weights.shape[1] == classes and bias.shape == (classes,)
        if not shapes_fit or not 1 <= len(weights) <= _MAX_BUCKETS:
            raise ProfileError("router.file", f"weights {weights.shape} and bias {bias.shape} are not a student's")
        if weights.dtype != np.float16 or bias.dtype != np.float16:
            raise ProfileError("router.file", f"a student is float16, not {weights.dtype} and {bias.dtype}")
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ProfileError("router.file", "its weights are not finite")
        return cls(weights, bias)


def features(prompt: str, buckets: int = BUCKETS) -> Indices:
    """Rows of the weight matrix that a prompt's features hash to, (n,) int64, repetitions kept."""
    words = _WORD.findall(question(normalise(prompt)))[:_MAX_WORDS]
    pairs = [f"{left} {right}" for left, right in pairwise(words)]
    first = [f"^{number} {word}" for number, word in enumerate(words[:2])]
    hashed = [zlib.crc32(name.encode()) % buckets for name in (*words, *pairs, *first)]
    return np.array(hashed, dtype=np.int64)


def train_student(
    prompts: Sequence[str],
    intents: Sequence[str],
    *,
    seed: int = 0,
    epochs: int = 30,
    buckets: int = BUCKETS,
    rate: float = 0.5,
) -> StudentBackend:
    """Fit a student to labelled prompts: softmax regression by AdaGrad, the same result for the same input.

    Args:
        prompts: the texts. intents: one intent id each, from a teacher.
        seed: order of the prompts within each epoch.
        epochs: passes over the prompts.
        buckets: rows of the weight matrix.
        rate: step size.

    Raises:
        UsageError: no prompts, counts that differ, or an unknown intent.
    """
    if not prompts or len(prompts) != len(intents):
        raise UsageError(
            f"a student needs one intent per prompt and at least one: {len(prompts)} and {len(intents)} given"
        )
    unknown = sorted(set(intents) - set(INTENT_IDS))
    if unknown:
        raise UsageError(f"unknown intents {', '.join(unknown)}; there are: {', '.join(INTENT_IDS)}")
    rows = [features(prompt, buckets) for prompt in prompts]
    wanted = np.array([INTENT_IDS.index(intent) for intent in intents])
    classes = len(INTENT_IDS)
    # Row 0 is the bias, so that one update serves both.
    weights = np.zeros((buckets + 1, classes), dtype=np.float32)
    squares = np.full_like(weights, 1e-8)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            _step(weights, squares, [rows[index] for index in batch], wanted[batch], rate)
    return StudentBackend(weights[1:].astype(np.float16), weights[0].astype(np.float16))


def _step(weights: Floats, squares: Floats, rows: list[Indices], wanted: Indices, rate: float) -> None:
    """One AdaGrad step on a batch, in place."""
    owner = np.repeat(np.arange(len(rows)), [len(row) + 1 for row in rows])
    places = np.concatenate([np.concatenate(([0], row + 1)) for row in rows])
    scale = np.array([1 / math.sqrt(max(len(row), 1)) for row in rows], dtype=np.float32)
    factor = np.where(places == 0, np.float32(1.0), scale[owner])[:, None]
    logits = np.zeros((len(rows), weights.shape[1]), dtype=np.float32)
    np.add.at(logits, owner, weights[places] * factor)
    error = _softmax(logits)
    error[np.arange(len(rows)), wanted] -= 1
    touched, inverse = np.unique(places, return_inverse=True)
    gradient = np.zeros((len(touched), weights.shape[1]), dtype=np.float32)
    np.add.at(gradient, inverse, error[owner] * factor / len(rows))
    squares[touched] += gradient**2
    weights[touched] -= rate * gradient / np.sqrt(squares[touched])


def _softmax(logits: Floats) -> Floats:
    parts = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = parts / parts.sum(axis=-1, keepdims=True)
    return shares
