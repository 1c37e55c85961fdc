"""Scores candidates on samples from cached vision layers: fuse, prune, answer, score.

Sample-major: one read of a block's layers serves all candidates; fusion runs once per prototype, and so do the decoder
layers before the first stage, where the splits of one prototype do not differ yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from claspkit.cache.store import FeatureStore
from claspkit.profiles.budget import Stage
from claspkit.runtime.inputs import decode_answers
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan, RowPlan

from .feeding import open_feed
from .samples import Sample
from .scorers import score_answer
from .space import Candidate


@dataclass(frozen=True)
class BlockResult:
    """What a candidate did on a block: one answer and one score per sample."""

    candidate: Candidate | None
    answers: tuple[str, ...]
    scores: tuple[float, ...]


class Evaluator:
    """Runs a model's decoder on cached features.

    Args:
        loaded: the model.
        store: its vision layers, one record per picture.
        stages: the pruning schedule all candidates share.
        max_new_tokens: length of an answer, at most.
    """

    def __init__(self, loaded: LoadedModel, store: FeatureStore, stages: Sequence[Stage], max_new_tokens: int) -> None:
        self._loaded = loaded
        self._feed = open_feed(loaded, store)
        self._stages = tuple((stage.after_layer, stage.keep) for stage in stages)
        self._max_new_tokens = max_new_tokens

    def evaluate(self, samples: Sequence[Sample], candidates: Sequence[Candidate]) -> Iterator[list[BlockResult]]:
        """Score ``candidates`` on one block of samples; yields the outcomes prototype by prototype.

        The block is one left-padded batch, so an outcome depends on the block's make-up, never on what else was
        evaluated before it.
        """
        layers = tuple(sorted({layer for candidate in candidates for layer in candidate.prototype.layers}))
        block = self._feed.read(samples, layers)
        for prototype, group in groupby(candidates, key=lambda candidate: candidate.prototype):
            fused, asked = block.fused(prototype.layers, prototype.weights), list(group)
            plans = [self._plan(self._stages, candidate.rho, len(samples)) for candidate in asked]
            found = fused.generate(plans, self._max_new_tokens)
            yield [self._result(samples, candidate, ids) for candidate, ids in zip(asked, found, strict=True)]

    def unpruned(self, samples: Sequence[Sample]) -> BlockResult:
        """Score the stock model: its own layer, every visual token."""
        layer = self._loaded.spec.default_layer
        fused = self._feed.read(samples, (layer,)).fused((layer,), (1.0,))
        (ids,) = fused.generate([self._plan((), 1.0, len(samples))], self._max_new_tokens)
        return self._result(samples, None, ids)

    def _plan(self, stages: tuple[tuple[int, int], ...], rho: float, rows: int) -> PrunePlan:
        """Rows that read the stock layer: what stands there is fused already."""
        facts = self._loaded.family.facts(self._loaded.model)
        row = RowPlan((facts.default_layer,), (1.0,), rho)
        return PrunePlan(stages, (row,) * rows, scaling=facts.scaling, visual_tokens=facts.visual_tokens)

    def _result(self, samples: Sequence[Sample], candidate: Candidate | None, ids: Tensor) -> BlockResult:
        answers = decode_answers(self._loaded, ids)
        scores = [score_answer(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
        return BlockResult(candidate, tuple(answers), tuple(scores))
