"""Whole calibrations on made-up scores: the project's own strategies and its own decision, without a model.

What one sample means to the candidates is drawn from recorded scores, so that candidates agree as often as real ones
do. Samples come as pictures with several questions each, and a picture falls on one side of search and holdout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path

import numpy as np
from _recorded import Recorded

from claspkit.calib import evidence, halving
from claspkit.calib.ledger import HOLDOUT, Entry, Ledger
from claspkit.calib.samples import Sample, Source
from claspkit.calib.search import ClassData, Verdict, decide
from claspkit.calib.space import Candidate
from claspkit.calib.strategies import STRATEGIES

QUESTIONS = 3
"""Questions about one picture."""


@dataclass(frozen=True)
class Found:
    """What a strategy made of one class: its choice, and on how many (candidate, sample) pairs it looked."""

    best: Candidate
    evaluations: int


@dataclass(frozen=True)
class Searched:
    """A class after its search.

    Attributes:
        intent: class id.
        winner: of the search.
        holdout: candidate id -> scores on the holdout; the default's and the winner's.
    """

    intent: str
    winner: Candidate
    holdout: dict[str, tuple[float, ...]]


def drive(recorded: Recorded, strategy_name: str, scores: np.ndarray) -> Found:
    """Let a strategy search one class.

    Args:
        recorded: the space, and the size of blocks.
        strategy_name: a row of ``STRATEGIES``.
        scores: (candidates, samples), in the order of the space's candidates.
    """
    strategy = STRATEGIES[strategy_name](recorded.space, recorded.sizes(scores.shape[1]))
    rows = {candidate: row for row, candidate in enumerate(recorded.space.candidates)}
    seen: dict[Candidate, int] = {}
    while requests := strategy.ask():
        for request in requests:
            seen[request.candidate] = samples = sum(strategy.sizes[: request.blocks])
            strategy.tell(request.candidate, scores[rows[request.candidate], :samples].tolist())
    return Found(strategy.best(), sum(seen.values()))


def alike(scores: np.ndarray, pictures: int, random: np.random.Generator) -> np.ndarray:
    """Scores of candidates between which there is no true difference.

    A question is a recorded sample, drawn with replacement. For every picture the candidates change their names at
    random, the same way for all its questions: every candidate has the class's mean, candidates agree as the recorded
    ones do, and what makes one of them right about a question helps it with the picture's other questions.

    Args:
        scores: recorded ones, (candidates, samples).
        pictures: how many.
        random: where the draws come from.

    Returns:
        (candidates, pictures * QUESTIONS), a picture's questions side by side.
    """
    names = random.permuted(np.tile(np.arange(len(scores)), (pictures, 1)), axis=1).repeat(QUESTIONS, axis=0)
    drawn = random.integers(0, scores.shape[1], size=pictures * QUESTIONS)
    found: np.ndarray = scores[names, drawn[:, None]].T
    return found


def plant(scores: np.ndarray, rows: Sequence[int], gain: float, mean: float, random: np.random.Generator) -> np.ndarray:
    """Make candidates better by ``gain``: so many of their wrong answers become right, the same questions for all.

    Args:
        scores: (candidates, samples), not changed.
        rows: the candidates that become better.
        gain: by how much, 0 to 1 - mean.
        mean: their true mean before.
        random: where the draws come from.
    """
    helped = random.random(scores.shape[1]) < gain / (1 - mean)
    better = scores.copy()
    better[rows] = np.maximum(better[rows], helped)
    return better


def search(
    recorded: Recorded, strategy_name: str, intent: str, scores: np.ndarray, random: np.random.Generator
) -> Searched:
    """Search one class and score its winner on the holdout, which has half of the pictures.

    Args:
        recorded: the space, and the size of blocks.
        strategy_name: a row of ``STRATEGIES``.
        intent: class id.
        scores: (candidates, samples), a picture's questions side by side.
        random: gives the order of the search split, in which pictures are mixed.
    """
    pictures = scores.shape[1] // QUESTIONS // 2
    holdout, search = np.split(scores, [pictures * QUESTIONS], axis=1)
    winner = drive(recorded, strategy_name, random.permutation(search, axis=1)).best
    rows = {candidate.id: row for row, candidate in enumerate(recorded.space.candidates)}
    held = {name: tuple(holdout[rows[name]].tolist()) for name in {recorded.space.default.id, winner.id}}
    return Searched(intent, winner, held)


def judge(recorded: Recorded, classes: Sequence[Searched], seed: int, questions: int = QUESTIONS) -> list[Verdict]:
    """The project's decision over all classes of one calibration.

    Args:
        recorded: the space.
        classes: what was found in each.
        seed: of the run.
        questions: how many questions in a row the decision takes for one picture's.
    """
    default = recorded.space.default.id
    data = [ClassData(found.intent, (), _samples(len(found.holdout[default]), questions)) for found in classes]
    entries = [
        Entry(HOLDOUT, found.intent, name, 0, "", scores, ())
        for found in classes
        for name, scores in found.holdout.items()
    ]
    ledger = Ledger(Path("simulated"), {entry.key: entry for entry in entries}, None)
    return decide(data, {found.intent: found.winner for found in classes}, recorded.space, ledger, seed)


@contextmanager
def quickly() -> Iterator[None]:
    """Inside the block, leave out what decides nothing and takes most of the time.

    Bootstrap intervals are not drawn: a decision reads the p-value alone, which stays. The deviation of differences
    that are -1, 0 or 1 comes from two sums of integers, where the statistics module computes with fractions.
    """
    stand_ins = [(evidence, "_interval", _no_interval), (halving, "pstdev", whole_pstdev)]
    before = [vars(module)[name] for module, name, _ in stand_ins]
    for module, name, function in stand_ins:
        setattr(module, name, function)
    try:
        yield
    finally:
        for (module, name, _), function in zip(stand_ins, before, strict=True):
            setattr(module, name, function)


def whole_pstdev(values: Sequence[float]) -> float:
    """Standard deviation of a population of whole numbers."""
    count, total = len(values), sum(values)
    return sqrt(count * sum(value * value for value in values) - total * total) / count


def _no_interval(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float, float]:
    return float("nan"), float("nan")


@cache
def _samples(count: int, questions: int) -> tuple[Sample, ...]:
    """Samples of which only the picture counts."""
    return tuple(
        Sample("", "", str(index // questions), "", ("",), None, "", Source("simulated", None, None, index), None)
        for index in range(count)
    )
