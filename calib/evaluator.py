"""Scores candidates on samples from cached vision layers: fuse, project, prune, answer, score.

Sample-major: one read of a block's layers serves all candidates; fusion and projection run once per prototype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from claspkit.cache.store import FeatureStore
from claspkit.cache.tensors import to_tensor
from claspkit.profiles.budget import Stage
from claspkit.runtime.fusion import fuse
from claspkit.runtime.inputs import decode_answers, text_inputs
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan

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
        self._store = store
        self._stages = tuple((stage.after_layer, stage.keep) for stage in stages)
        self._max_new_tokens = max_new_tokens

    def evaluate(self, samples: Sequence[Sample], candidates: Sequence[Candidate]) -> Iterator[list[BlockResult]]:
        """Score ``candidates`` on one block of samples; yields the outcomes prototype by prototype.

        The block is one left-padded batch, so an outcome depends on the block's make-up, never on what else was
        evaluated before it.
        """
        layers = tuple(sorted({layer for candidate in candidates for layer in candidate.prototype.layers}))
        cached = self._read(samples, layers)
        for prototype, group in groupby(candidates, key=lambda candidate: candidate.prototype):
            rows = [layers.index(layer) for layer in prototype.layers]
            embeds, mask, visual = self._embed(samples, cached[rows], prototype.weights)
            yield [
                self._answer(
                    samples,
                    candidate,
                    self._plan(self._stages, candidate.row, len(samples)),
                    embeds,
                    mask,
                    visual,
                )
                for candidate in group
            ]

    def unpruned(self, samples: Sequence[Sample]) -> BlockResult:
        """Score the stock model: its own layer, every visual token."""
        layer = self._loaded.spec.default_layer
        embeds, mask, visual = self._embed(samples, self._read(samples, (layer,)), (1.0,))
        plan = self._plan((), RowPlan((layer,), (1.0,), 1.0), len(samples))
        return self._answer(samples, None, plan, embeds, mask, visual)

    def _plan(self, stages: tuple[tuple[int, int], ...], row: RowPlan, rows: int) -> PrunePlan:
        facts = self._loaded.family.facts(self._loaded.model)
        return PrunePlan(stages, (row,) * rows, scaling=facts.scaling, visual_tokens=facts.visual_tokens)

    def _read(self, samples: Sequence[Sample], layers: Sequence[int]) -> Tensor:
        """Vision layers of a block: (L, B, N, D) in the model's dtype."""
        records = [self._store.read(sample.image_sha256, layers) for sample in samples]
        features = to_tensor(np.stack(records, axis=1), self._store.key.dtype)
        return features.to(self._loaded.model.device, dtype=self._loaded.model.dtype)

    def _embed(
        self, samples: Sequence[Sample], layers: Tensor, weights: Sequence[float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decoder inputs (B, S, d), attention mask (B, S) and where the visual tokens are (B, S)."""
        loaded = self._loaded
        ids, mask = text_inputs(loaded, [sample.prompt for sample in samples])
        visual = torch.isin(ids, torch.tensor(loaded.family.placeholder_ids(loaded.model), device=ids.device))
        with torch.inference_mode():
            fused = fuse(layers, torch.tensor(weights, dtype=torch.float64).expand(len(samples), -1))
            tokens = loaded.family.project(loaded.model, fused)
            embeds = loaded.model.get_input_embeddings()(ids)
            return embeds.masked_scatter(visual[:, :, None], tokens.to(embeds.dtype)), mask, visual

    def _answer(
        self,
        samples: Sequence[Sample],
        candidate: Candidate | None,
        plan: PrunePlan,
        embeds: Tensor,
        mask: Tensor,
        visual: Tensor,
    ) -> BlockResult:
        model = self._loaded.model
        with torch.inference_mode(), apply_plan(model, self._loaded.family, plan) as stages:
            stages.expect(visual)
            generated = model.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                num_beams=1,
            )
        answers = decode_answers(self._loaded, generated)
        scores = [score_answer(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
        return BlockResult(candidate, tuple(answers), tuple(scores))
