"""NaN and infinity in a search: the candidate that gave them is marked on its block, and nobody else is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

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

    def __init__(self, evaluator: BlockEvaluator, model: nn.Module) -> None:
        """Wrap ``evaluator``, which runs ``model``."""
        self._evaluator, self._model = evaluator, model

    def evaluate(
        self, samples: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        """As of :class:`BlockEvaluator`; one list holds all candidates of a prototype."""
        left = list(candidates)
        while left:
            try:
                for found in self._watched(samples, left, guesses):
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
            with _logits(self._model) as check:
                found = self._evaluator.unpruned(samples)
                check()
        except NotFiniteError:
            return _blank(samples, None)
        return found

    def _alone(self, samples: Sequence[Sample], candidate: Candidate, guesses: Sequence[str]) -> BlockResult:
        try:
            ((found,),) = self._watched(samples, [candidate], guesses)
        except NotFiniteError:
            return _blank(samples, candidate)
        return found

    def _watched(
        self, samples: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str]
    ) -> Iterator[list[BlockResult]]:
        """What the evaluator yields, each list only if the logits behind it were finite."""
        with _logits(self._model) as check:
            for found in self._evaluator.evaluate(samples, candidates, guesses):
                check()
                yield found


def all_finite(scores: Sequence[float]) -> bool:
    """Whether there are scores, and none of them is NaN or infinite."""
    return bool(scores) and all(map(math.isfinite, scores))


def count_odd(scores: Sequence[float]) -> int:
    """How many scores are NaN or infinite."""
    return sum(not math.isfinite(score) for score in scores)


def _blank(samples: Sequence[Sample], candidate: Candidate | None) -> BlockResult:
    return BlockResult(candidate, ("",) * len(samples), (math.nan,) * len(samples), Cost())


@contextmanager
def _logits(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Watch what the model's head gives; yields a function that raises NotFiniteError if that was not finite.

    The stages look at features and attention up to the last of them; what overflows in a later layer shows here. Only
    the last place counts, which is never padding. Minus infinity is no fault: a model may forbid a token by it.
    """
    broken: list[Tensor] = []
    find: Any = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None

    def look(_: nn.Module, __: tuple[Any, ...], logits: Tensor) -> None:
        last = logits[:, -1] if logits.ndim == 3 else logits
        odd = last.detach().amax(dim=-1).isfinite().all().logical_not()
        broken[:] = [odd.logical_or(broken[0])] if broken else [odd]

    def check() -> None:
        if broken and bool(broken.pop()):
            raise NotFiniteError("the model's logits hold NaN or infinity; run it in float32 or bfloat16")

    handle = head.register_forward_hook(look) if isinstance(head, nn.Module) else None
    try:
        yield check
    finally:
        if handle is not None:
            handle.remove()
