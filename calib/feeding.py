"""How a block's cached features reach the decoder: as ready-made embeddings, or in the vision encoder's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from claspkit.cache.store import FeatureStore
from claspkit.cache.tensors import to_tensor
from claspkit.profiles.errors import ResourceError
from claspkit.runtime.fusion import fuse
from claspkit.runtime.inputs import text_inputs
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.replay import inputs_from_grids, replay
from claspkit.runtime.shared_start import repeat_rows, share_start

from .samples import Sample

TOGETHER = 2**16
"""Tokens of prompts that are run as one batch, at most, where several plans share the block's first layers."""


class FusedBlock(Protocol):
    """A block whose pictures are fused, ready to be asked."""

    def generate(self, plans: Sequence[PrunePlan], max_new_tokens: int) -> list[Tensor]:
        """Answer greedily under plans whose rows read the stock layer alone; returns new ids (B, T) for each.

        The plans have the same stages. What one answers does not depend on the others, up to rounding.

        Raises:
            ResourceError: one plan alone does not fit into the device's memory.
        """


class Block(Protocol):
    """A block's prompts and the vision layers of its pictures."""

    def fused(self, layers: Sequence[int], weights: Sequence[float]) -> FusedBlock:
        """Fuse some of the layers that were read, with one weight each."""


class Feed(Protocol):
    """Reads blocks from the cache."""

    def read(self, samples: Sequence[Sample], layers: Sequence[int]) -> Block:
        """Read vision layers of the samples' pictures, one left-padded batch."""


def open_feed(loaded: LoadedModel, store: FeatureStore) -> Feed:
    """The feed for a model: by embeddings where all pictures are one grid, which is faster, by replay where not."""
    return GridFeed(loaded, store) if loaded.family.one_grid else ReplayFeed(loaded, store)


@dataclass(frozen=True)
class GridFeed:
    """For models whose pictures are all one grid: the decoder gets embeddings, projected once per fusion."""

    loaded: LoadedModel
    store: FeatureStore

    def read(self, samples: Sequence[Sample], layers: Sequence[int]) -> Block:
        """As of :class:`Feed`."""
        model = self.loaded.model
        records = [self.store.read(sample.image_sha256, layers) for sample in samples]
        features = to_tensor(np.stack(records, axis=1), self.store.key.dtype)  # (L, B, N, D)
        ids, mask = text_inputs(self.loaded, [sample.prompt for sample in samples])
        return _GridBlock(self.loaded, tuple(layers), features.to(model.device, dtype=model.dtype), ids, mask)


@dataclass(frozen=True)
class _GridBlock:
    loaded: LoadedModel
    layers: tuple[int, ...]
    features: Tensor  # (L, B, N, D)
    ids: Tensor  # (B, S)
    mask: Tensor  # (B, S)

    def fused(self, layers: Sequence[int], weights: Sequence[float]) -> FusedBlock:
        family, model = self.loaded.family, self.loaded.model
        visual = torch.isin(self.ids, torch.tensor(family.placeholder_ids(model), device=self.ids.device))
        chosen = self.features[[self.layers.index(layer) for layer in layers]]
        with torch.inference_mode():
            shares = torch.tensor(weights, dtype=torch.float64).expand(len(self.ids), -1)
            tokens = family.project(model, fuse(chosen, shares))
            embeds = model.get_input_embeddings()(self.ids)
            embeds = embeds.masked_scatter(visual[:, :, None], tokens.to(embeds.dtype))
        return _Embedded(self.loaded, embeds, self.mask, visual)


@dataclass(frozen=True)
class _Embedded:
    loaded: LoadedModel
    embeds: Tensor  # (B, S, d)
    mask: Tensor  # (B, S)
    visual: Tensor  # (B, S) bool

    def generate(self, plans: Sequence[PrunePlan], max_new_tokens: int) -> list[Tensor]:
        size = max(1, TOGETHER // self.mask.numel())
        parts = [plans[start : start + size] for start in range(0, len(plans), size)]
        return [answer for part in parts for answer in self._fitting(part, max_new_tokens)]

    def _fitting(self, plans: Sequence[PrunePlan], max_new_tokens: int) -> list[Tensor]:
        try:
            return self._together(plans, max_new_tokens)
        except torch.OutOfMemoryError as error:
            if len(plans) == 1:
                raise ResourceError(
                    f"no memory on {self.mask.device} for {len(self.mask)} samples at a time; make --block-size smaller"
                ) from error
        half = len(plans) // 2
        return [*self._fitting(plans[:half], max_new_tokens), *self._fitting(plans[half:], max_new_tokens)]

    def _together(self, plans: Sequence[PrunePlan], max_new_tokens: int) -> list[Tensor]:
        """All plans as rows of one batch; the layers before the first stage see each prompt once."""
        model, family, copies = self.loaded.model, self.loaded.family, len(plans)
        whole = replace(plans[0], rows=tuple(row for plan in plans for row in plan.rows))
        last = whole.stages[0][0] if whole.stages else 0
        embeds, mask, visual = (repeat_rows(part, copies) for part in (self.embeds, self.mask, self.visual))
        with (
            torch.inference_mode(),
            share_start(model, family, last, copies),
            apply_plan(model, family, whole) as stages,
        ):
            stages.expect(visual)
            answers = _greedy(model, max_new_tokens, inputs_embeds=embeds, attention_mask=mask)
        return list(answers.split(len(self.mask)))


@dataclass(frozen=True)
class ReplayFeed:
    """For models whose pictures differ in size: features stand in for the encoder, the model does the rest itself."""

    loaded: LoadedModel
    store: FeatureStore

    def read(self, samples: Sequence[Sample], layers: Sequence[int]) -> Block:
        """As of :class:`Feed`."""
        model, names = self.loaded.model, [sample.image_sha256 for sample in samples]
        records = [to_tensor(self.store.read(name, layers), self.store.key.dtype) for name in names]
        grids = [self.store.grid(name) for name in names]
        inputs = inputs_from_grids(self.loaded, grids, [sample.prompt for sample in samples])
        placed = [record.to(model.device, dtype=model.dtype) for record in records]
        return _ReplayBlock(self.loaded, tuple(layers), placed, grids, inputs)


@dataclass(frozen=True)
class _ReplayBlock:
    loaded: LoadedModel
    layers: tuple[int, ...]
    records: Sequence[Tensor]  # (L, tokens, D) each
    grids: Sequence[tuple[int, ...]]
    inputs: Any

    def fused(self, layers: Sequence[int], weights: Sequence[float]) -> FusedBlock:
        rows = [self.layers.index(layer) for layer in layers]
        shares = torch.tensor([list(weights)], dtype=torch.float64)
        with torch.inference_mode():  # one at a time: their token counts differ
            records = [fuse(record[rows][:, None], shares)[0] for record in self.records]
        return _Replayed(self.loaded, records, self.grids, self.inputs)


@dataclass(frozen=True)
class _Replayed:
    loaded: LoadedModel
    records: Sequence[Tensor]  # (tokens, D) each
    grids: Sequence[tuple[int, ...]]
    inputs: Any

    def generate(self, plans: Sequence[PrunePlan], max_new_tokens: int) -> list[Tensor]:
        return [self._generate(plan, max_new_tokens) for plan in plans]

    def _generate(self, plan: PrunePlan, max_new_tokens: int) -> Tensor:
        model, family = self.loaded.model, self.loaded.family
        with (
            torch.inference_mode(),
            replay(model, family, self.records, self.grids),
            apply_plan(model, family, plan),
        ):
            whole = _greedy(model, max_new_tokens, **self.inputs)
        return whole[:, self.inputs["input_ids"].shape[1] :]


def _greedy(model: Any, max_new_tokens: int, **inputs: Any) -> Tensor:
    answer: Tensor = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
    return answer
