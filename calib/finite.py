"""NaN and infinity in a search: the candidate that gave them is marked on its block, and nobody else is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

from claspkit.profiles.errors import NotFiniteError

from .evaluator import BlockResult
from .ledger import Cost
from .samples import Sample
from .space import Candidate


class BlockEvaluator(Protocol):
    """Scores candidates on blocks of samples, as :class:`calib.evaluator.Evaluator` does."""

    def evaluate(
        self, samples: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = (), /
    ) -> Iterator[list[BlockResult]]:
        """Score ``candidates`` on one block; yields outcomes prototype by prototype."""

    def unpruned(self, samples: Sequence[Sample], /) -> BlockResult:
        """Score the stock model on one block."""


class FiniteEvaluator:
    """An evaluator that goes on where a model gives NaN or infinity.

    A candidate whose pass over a block does has NaN for every score there, and empty answers. Candidates that shared
    its batch are run again, each alone, so that only the guilty one is marked.
    """

    def __init__(self, evaluator: BlockEvaluator) -> None:
        """Wrap ``evaluator``, which raises NotFiniteError."""
        self._evaluator = evaluator

    def evaluate(
        self, samples: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        """As of :class:`BlockEvaluator`; one list holds all candidates of a prototype."""
        left = list(candidates)
        while left:
            try:
                for found in self._evaluator.evaluate(samples, left, guesses):
                    yield found
                    done = {result.candidate for result in found}
                    left = [candidate for candidate in left if candidate not in done]
                return
            except NotFiniteError:
                suspects = [candidate for candidate in left if candidate.prototype == left[0].prototype]
            yield [self._alone(samples, candidate, guesses) for candidate in suspects]
            left = left[len(suspects) :]

    def unpruned(self, samples: Sequence[Sample]) -> BlockResult:
        """As of :class:`BlockEvaluator`."""
        try:
            return self._evaluator.unpruned(samples)
        except NotFiniteError:
            return _blank(samples, None)

    def _alone(self, samples: Sequence[Sample], candidate: Candidate, guesses: Sequence[str]) -> BlockResult:
        try:
            ((found,),) = self._evaluator.evaluate(samples, [candidate], guesses)
        except NotFiniteError:
            return _blank(samples, candidate)
        return found


def all_finite(scores: Sequence[float]) -> bool:
    """Whether there are scores, and none of them is NaN or infinite."""
    return bool(scores) and all(map(math.isfinite, scores))


def count_odd(scores: Sequence[float]) -> int:
    """How many scores are NaN or infinite."""
    return sum(not math.isfinite(score) for score in scores)


def _blank(samples: Sequence[Sample], candidate: Candidate | None) -> BlockResult:
    return BlockResult(candidate, ("",) * len(samples), (math.nan,) * len(samples), Cost())
