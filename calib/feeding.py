"""How a block's cached features reach the decoder: fused for all prototypes at once, then asked by all their splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from claspkit.cache.store import FeatureStore
from claspkit.cache.tensors import to_tensor
from claspkit.profiles.errors import ResourceError
from claspkit.runtime.decoder_inputs import (
    DecoderInputs,
    KeysAndValues,
    common_prefix,
    keys_and_values,
    prefix_inputs,
    read_decoder_inputs,
    without_prefix,
)
from claspkit.runtime.greedy import Answers, answer, end_tokens, is_plainly_greedy
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.replay import inputs_from_grids, replay
from claspkit.runtime.vision import owned_pictures, pictures_per_row
from claspkit.runtime.work import count_work

from .logits import finite_logits
from .samples import Sample

TOGETHER = 2**16
"""Tokens of prompts that are run as one batch, at most, where several plans share the block's first layers."""

Mix = tuple[Sequence[int], Sequence[float]]
"""Vision layers, and one weight for each."""

Drafts = Sequence[Sequence[int]]
"""Per sample a guess of the answer's tokens; empty for no guesses."""


class Feed:
    """Reads blocks from the cache and puts them before the decoder.

    Attributes:
        bytes_read: of features, so far.
    """

    def __init__(self, loaded: LoadedModel, store: FeatureStore) -> None:
        """Feed ``loaded`` from ``store``, which holds a record of every picture."""
        self.loaded, self.bytes_read = loaded, 0
        self._store = store
        self._prefixes: dict[tuple[int, ...], KeysAndValues] = {}

    def read(self, samples: Sequence[Sample], mixes: Sequence[Mix]) -> list[FusedBlock]:
        """Read the samples' pictures, each once, and fuse them: one block per mix.

        A picture's layers are read once for all mixes and all questions about it, and fused for all mixes in one
        product, (mixes x layers) by (layers x tokens * D).
        """
        layers = tuple(sorted({layer for wanted, _ in mixes for layer in wanted}))
        table = torch.zeros(len(mixes), len(layers), dtype=torch.float64)
        for row, (wanted, weights) in enumerate(mixes):
            for layer, weight in zip(wanted, weights, strict=True):
                table[row, layers.index(layer)] += weight
        model, names = self.loaded.model, [sample.image_sha256 for sample in samples]
        fused: dict[str, Tensor] = {}  # picture -> (mixes, tokens, D)
        for name in dict.fromkeys(names):
            record = self._store.read(name, layers)
            self.bytes_read += record.nbytes
            values = to_tensor(record, self._store.key.dtype).to(model.device, dtype=model.dtype)
            fused[name] = _products(table, values)
        grids = [self._store.grid(name) for name in names]
        inputs = inputs_from_grids(self.loaded, grids, [sample.prompt for sample in samples])
        return [
            FusedBlock(self, [fused[name][number] for name in names], grids, inputs) for number in range(len(mixes))
        ]

    def share_prefix(self, inputs: DecoderInputs, ids: Tensor) -> DecoderInputs:
        """Take off what all prompts begin with; it goes through the decoder once for all blocks."""
        tokens = common_prefix(inputs, ids)
        if not tokens:
            return inputs
        if tokens not in self._prefixes:
            model, family = self.loaded.model, self.loaded.family
            self._prefixes[tokens] = keys_and_values(model, family, prefix_inputs(inputs, len(tokens)))
        return without_prefix(inputs, self._prefixes[tokens])


@dataclass(frozen=True)
class FusedBlock:
    """A block whose pictures are fused, ready to be asked.

    Attributes:
        feed: where it comes from.
        records: (tokens, D) per sample.
        grids: how the tokens lie.
        inputs: of ``generate``, with stand-ins for the pixels.
    """

    feed: Feed
    records: Sequence[Tensor]
    grids: Sequence[tuple[int, ...]]
    inputs: Any

    def ask(self, plans: Sequence[PrunePlan], max_new_tokens: int, drafts: Drafts = ()) -> list[Answers]:
        """Answer greedily under plans whose rows read the stock layer alone.

        The plans have the same stages. What one answers does not depend on the others, up to rounding.

        Raises:
            ResourceError: one plan alone does not fit into the device's memory.
        """
        if not is_plainly_greedy(self.feed.loaded.model):
            return [self._generate(plan, max_new_tokens) for plan in plans]
        size = max(1, TOGETHER // self.prompts.mask.numel())
        parts = [plans[start : start + size] for start in range(0, len(plans), size)]
        return [found for part in parts for found in halving(part, self._together(max_new_tokens, drafts))]

    @cached_property
    def sizes(self) -> tuple[list[int], list[int], list[int]]:
        """Text tokens, visual tokens and pictures of every sample."""
        model, family, ids = self.feed.loaded.model, self.feed.loaded.family, self.inputs["input_ids"]
        visual = torch.isin(ids, torch.tensor(family.placeholder_ids(model), device=ids.device)).sum(dim=1)
        text = self.inputs["attention_mask"].sum(dim=1) - visual
        pictures = pictures_per_row(owned_pictures(model, family, ids, self.inputs), len(ids))
        return text.tolist(), visual.tolist(), list(pictures)

    @cached_property
    def prompts(self) -> DecoderInputs:
        """The prompts as the decoder takes them."""
        loaded = self.feed.loaded
        with replay(loaded.model, loaded.family, self.records, self.grids):
            whole = read_decoder_inputs(loaded.model, loaded.family, self.inputs)
        return self.feed.share_prefix(whole, self.inputs["input_ids"])

    def _together(self, max_new_tokens: int, drafts: Drafts) -> Callable[[Sequence[PrunePlan]], list[Answers]]:
        loaded = self.feed.loaded

        def run(plans: Sequence[PrunePlan]) -> list[Answers]:
            """All plans as rows of one batch."""
            whole = replace(plans[0], rows=tuple(row for plan in plans for row in plan.rows))
            found = answer(
                loaded.model,
                loaded.family,
                self.prompts,
                whole,
                max_new_tokens,
                copies=len(plans),
                drafts=drafts,
            )
            return found.split(len(plans))

        return run

    def _generate(self, plan: PrunePlan, max_new_tokens: int) -> Answers:
        """The model's own ``generate``, for those that are set up to do more than take the largest logit."""
        loaded = self.feed.loaded
        model, family = loaded.model, loaded.family
        with (
            torch.inference_mode(),
            replay(model, family, self.records, self.grids),
            apply_plan(model, family, plan),
            count_work(family.decoder_layers(model)) as work,
            finite_logits(model),
        ):
            whole: Tensor = model.generate(
                **self.inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
            )
        said = whole[:, self.inputs["input_ids"].shape[1] :]
        ended = torch.isin(said, torch.tensor(end_tokens(model), device=said.device, dtype=said.dtype))
        # Up to the first end token, that one included.
        lengths = [min(said.shape[1], 1 + int(length)) for length in (ended.cumsum(dim=1) == 0).sum(dim=1)]
        return Answers(said, tuple(lengths), (False,) * len(whole), work)


def halving(
    plans: Sequence[PrunePlan], run: Callable[[Sequence[PrunePlan]], list[Answers]]
) -> list[Answers]:
    """Run plans together; those that do not fit into memory as two halves, one after the other.

    Raises:
        ResourceError: one plan alone does not fit.
    """
    try:
        return run(plans)
    except torch.OutOfMemoryError as error:
        if len(plans) == 1:
            rows = len(plans[0].rows)
            raise ResourceError(f"no memory for {rows} samples at a time; make --block-size smaller") from error
    half = len(plans) // 2
    return [*halving(plans[:half], run), *halving(plans[half:], run)]


def _products(table: Tensor, values: Tensor) -> Tensor:
    """Fuse one record (L, tokens, D) by every row of ``table`` (M, L): -> (M, tokens, D), in the dtype of ``values``.

    Summed in float32. A row with one layer is that layer bit for bit, whatever a product makes of its factors.
    """
    shares = table.to(values.device, torch.float32)
    fused = torch.einsum("ml,lnd->mnd", shares, values.float()).to(values.dtype)
    for row, weights in enumerate(table.tolist()):
        if weights.count(0.0) == len(weights) - 1 and 1.0 in weights:
            fused[row] = values[weights.index(1.0)]
    return fused
