"""Training a student: softmax regression by AdaGrad over hashed words, then its temperature and its threshold.

    python -m claspkit.router.student_training FILE.jsonl [FILE.jsonl ...] --out student.safetensors

trains on lines of {"prompt", "fine"}; lines whose "part" is "test" are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from claspkit.profiles.canonical import write_atomic
from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import STANDARD
from claspkit.profiles.taxonomy import Taxonomy

from .prompts import prompt_digest
from .scoring import Scores, score, threshold_for
from .student import StudentBackend, class_shares, logits, merge_matrix, most_bits, softmax
from .student_features import Features, Indices, features

HELD_OUT: Final = 10
"""One prompt in this many, by its digest, fits temperature and threshold."""
WANTED: Final = 0.95
"""How often the accepted labels are to be right."""
ENOUGH: Final = 20
"""A temperature is fitted to at least this many prompts held out, and a threshold accepts at least as many."""

_BATCH = 64
_SMOOTHING = 0.05  # training prompts bear one label each, and some of these are wrong
_DECAY = 1e-6

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Trained:
    """A student and what is known of it. With fewer than ENOUGH prompts held out its temperature is 1.

    Attributes:
        student: trained on all prompts.
        held_out: scores of its forerunner, trained without them, on the prompts held out; temperature and threshold
            were fitted to these very prompts. None where there were none.
        reached: whether some threshold accepts ENOUGH of them and these are right WANTED of the time; else
            ``reject_below`` is 1, which trusts nothing.
    """

    student: StudentBackend
    held_out: Scores | None
    reached: bool


def train_student(
    prompts: Sequence[str],
    fine_intents: Sequence[str],
    *,
    seed: int = 0,
    epochs: int = 12,
    rate: float = 0.2,
    bits: int | None = None,
    taxonomy: Taxonomy = STANDARD,
) -> Trained:
    """Fit a student to labelled prompts; the same input gives the same bytes.

    Args:
        prompts: the texts. fine_intents: one fine intent id each, from a teacher.
        seed: order of the prompts within each epoch.
        epochs: passes over the prompts.
        rate: step size.
        bits: 2 ** bits rows of the weight matrix; None for as many as fit into a student's file.
        taxonomy: whose fine intents these are.

    Raises:
        UsageError: no prompts, counts that differ, an unknown fine intent, or bits out of range.
    """
    if not prompts or len(prompts) != len(fine_intents):
        raise UsageError(
            f"a student needs one fine intent per prompt and at least one: {len(prompts)} and {len(fine_intents)} given"
        )
    unknown = sorted(set(fine_intents) - set(taxonomy.fine_ids))
    if unknown:
        raise UsageError(f"unknown fine intents {', '.join(unknown)}; there are: {', '.join(taxonomy.fine_ids)}")
    most = most_bits(len(taxonomy.fine_ids))
    bits = most if bits is None else bits
    if not 1 <= bits <= most:
        raise UsageError(f"2 ** {bits} rows are impossible; give 1 to {most} bits")
    found = features(prompts, bits)
    wanted = np.array([taxonomy.fine_ids.index(fine) for fine in fine_intents])
    held = np.array([int(prompt_digest(prompt)[:8], 16) % HELD_OUT == 0 for prompt in prompts])
    out, rest = np.flatnonzero(held), np.flatnonzero(~held)
    columns, merge = len(taxonomy.fine_ids), merge_matrix(taxonomy)
    temperature, below, scores = 1.0, None, None
    if len(out) and len(rest):
        part = found.take(rest)
        weights, bias = _halved(_fit(part, wanted[rest], columns, seed, epochs, rate, bits))
        raw = logits(weights.astype(np.float32), bias.astype(np.float32), found.take(out))
        truth = merge.argmax(axis=1)[wanted[out]]
        if len(out) >= ENOUGH:  # a few prompts, all right, would drive it to its limit
            temperature = fit_temperature(raw, truth, merge)
        forerunner = StudentBackend(weights, bias, temperature, taxonomy=taxonomy)
        labels = forerunner.label([prompts[index] for index in out.tolist()])
        names = [taxonomy.ids[number] for number in truth]
        scores = score(names, labels, taxonomy.ids)
        right = [label.intent == name for label, name in zip(labels, names, strict=True)]
        below = threshold_for(right, [label.confidence for label in labels], WANTED, ENOUGH)
    weights, bias = _halved(_fit(found, wanted, columns, seed, epochs, rate, bits))
    student = StudentBackend(weights, bias, temperature, 1.0 if below is None else below, taxonomy)
    return Trained(student, scores, below is not None)


def fit_temperature(raw: Floats, truth: NDArray[np.int64], merge: Floats) -> float:
    """The temperature from 0.1 to 10 under which the true classes are likeliest, by golden-section search.

    Args:
        raw: (n, F) logits. truth: (n,) class numbers. merge: (F, K), see :func:`.student.merge_matrix`.
    """
    rows = np.arange(len(truth))

    def loss(power: float) -> float:
        shares = class_shares(softmax((raw / 10**power).astype(np.float32)), merge)[rows, truth]
        return float(-np.log(np.maximum(shares, 1e-12, dtype=np.float64)).mean())

    low, high, ratio = -1.0, 1.0, (5**0.5 - 1) / 2
    for _ in range(30):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(10 ** ((low + high) / 2))


def _fit(
    found: Features, wanted: NDArray[np.int64], columns: int, seed: int, epochs: int, rate: float, bits: int
) -> Floats:
    """(1 + 2 ** bits, columns) weights; row 0 is the bias, so that one update serves both."""
    weights = np.zeros((1 + 2**bits, columns), dtype=np.float32)
    squares = np.full_like(weights, 1e-8)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(wanted))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            _step(weights, squares, found.take(batch), wanted[batch], rate)
    return weights


def _step(weights: Floats, squares: Floats, batch: Features, wanted: Indices, rate: float) -> None:
    """One AdaGrad step on a batch, in place."""
    count, classes = len(wanted), weights.shape[1]
    error = softmax(logits(weights[1:], weights[0], batch)) - np.float32(_SMOOTHING / classes)
    error[np.arange(count), wanted] -= np.float32(1 - _SMOOTHING)
    error /= count
    scale = 1 / np.sqrt(np.maximum(batch.counts, 1).astype(np.float32))
    places = np.concatenate((np.zeros(count, dtype=np.int64), batch.rows + 1))
    parts = np.concatenate((error, np.repeat(error * scale[:, None], batch.counts, axis=0)))
    order = np.argsort(places, kind="stable")
    touched, begins = np.unique(places[order], return_index=True)
    gradient = np.add.reduceat(parts[order], begins, axis=0) + np.float32(_DECAY) * weights[touched]
    squares[touched] += gradient**2
    weights[touched] -= np.float32(rate) * gradient / np.sqrt(squares[touched])


def _halved(weights: Floats) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Weights and bias as they are stored."""
    return weights[1:].astype(np.float16), weights[0].astype(np.float16)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on files of labelled prompts and write the student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="JSON lines with prompt and fine")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = [
        json.loads(line) for file in options.files for line in file.read_text(encoding="utf-8").splitlines()
    ]
    taught = [row for row in rows if row.get("part") != "test"]
    trained = train_student([row["prompt"] for row in taught], [row["fine"] for row in taught])
    write_atomic(options.out, trained.student.to_bytes())
    held = trained.held_out
    print(f"{len(taught)} prompts, held out: " + (f"{held.prompts}, accuracy {held.accuracy:.3f}" if held else "none"))
    print(f"temperature {trained.student.temperature:.3f}, reject below {trained.student.reject_below:.3f}")


if __name__ == "__main__":
    main()
