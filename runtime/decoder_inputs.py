"""Prompts as the decoder gets them: pictures in place, positions given, and the part that all of them begin with.

What the model's own code makes of a batch is read off where the decoder takes it, so this holds for every family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .families import Family
from .vision import owned_pictures, pictures_per_row

KeysAndValues = tuple[tuple[Tensor, Tensor], ...]
"""Per decoder layer, (1, G, p, C) each: what a cache holds of p tokens that all rows have in common."""


@dataclass(frozen=True)
class DecoderInputs:
    """A left-padded batch of prompts.

    Attributes:
        embeds: (B, S, D), pictures in place.
        mask: (B, S) int64, 0 for padding.
        positions: (..., B, S) int64, ascending by one over the text at the end; leading axes are those of rotary
            embeddings of several axes.
        visual: (B, S) bool, the visual tokens.
        pictures: per row.
        prefix: keys and values of the tokens that were taken off the front, which all rows have in common; () for none.
    """

    embeds: Tensor
    mask: Tensor
    positions: Tensor
    visual: Tensor
    pictures: tuple[int, ...]
    prefix: KeysAndValues = ()

    @property
    def cached(self) -> int:
        """Tokens of the prefix."""
        return self.prefix[0][0].shape[2] if self.prefix else 0


class _Stop(Exception):
    """The decoder has been reached."""


def read_decoder_inputs(model: Any, family: Family, inputs: Mapping[str, Any]) -> DecoderInputs:
    """Let ``generate`` prepare a batch up to the decoder, and take what it would be given.

    Args:
        model: the model, with no pruner's hooks on.
        family: its family.
        inputs: what ``generate`` takes, left-padded; (B, S) ``input_ids`` among it.
    """
    taken: dict[str, Any] = {}

    def take(_: object, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taken.update(kwargs)
        raise _Stop

    handle = family.decoder(model).register_forward_pre_hook(take, with_kwargs=True)
    try:
        with torch.inference_mode():
            model.generate(**inputs, max_new_tokens=1, do_sample=False, num_beams=1)
    except _Stop:
        pass
    finally:
        handle.remove()
    ids = inputs["input_ids"]
    placeholders = torch.tensor(family.placeholder_ids(model), device=ids.device)
    positions: Tensor = taken["position_ids"]
    return DecoderInputs(
        embeds=taken["inputs_embeds"],
        mask=inputs.get("attention_mask", torch.ones_like(ids)),  # generate() drops one that hides nothing
        positions=positions.expand(*positions.shape[:-2], *ids.shape),
        visual=torch.isin(ids, placeholders),
        pictures=pictures_per_row(owned_pictures(model, family, ids, inputs), len(ids)),
    )


def common_prefix(inputs: DecoderInputs, ids: Tensor) -> tuple[int, ...]:
    """Ids of the text before the first picture that all rows begin with; () where there is none.

    Args:
        inputs: the prompts, whole.
        ids: (B, S), their tokens.
    """
    starts = (inputs.mask == 0).sum(dim=1).tolist()
    pictures = torch.where(inputs.visual.any(dim=1), inputs.visual.int().argmax(dim=1), ids.shape[1] - 1).tolist()
    rows = [ids[row, start:end].tolist() for row, (start, end) in enumerate(zip(starts, pictures, strict=True))]
    common: list[int] = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return tuple(common)


def prefix_inputs(inputs: DecoderInputs, length: int) -> DecoderInputs:
    """The first ``length`` tokens alone, as a batch of one row."""
    start = int((inputs.mask[0] == 0).sum())
    span = slice(start, start + length)
    return replace(
        inputs,
        embeds=inputs.embeds[:1, span],
        mask=inputs.mask[:1, span],
        positions=inputs.positions[..., :1, span],
        visual=inputs.visual[:1, span],
        pictures=(0,),
    )


def keys_and_values(model: Any, family: Family, inputs: DecoderInputs) -> KeysAndValues:
    """Run a prefix through the decoder, without any pruning, and keep what a cache would."""
    from transformers import DynamicCache

    cache: Any = DynamicCache()
    with torch.inference_mode():
        family.decoder(model)(
            inputs_embeds=inputs.embeds,
            attention_mask=inputs.mask,
            position_ids=inputs.positions,
            past_key_values=cache,
            use_cache=True,
        )
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def without_prefix(inputs: DecoderInputs, prefix: KeysAndValues) -> DecoderInputs:
    """Take the prefix off the front of every row; padding stays at the left.

    Args:
        inputs: the prompts, whole, all of which begin with the prefix.
        prefix: its keys and values.
    """
    length = prefix[0][0].shape[2]
    size = inputs.mask.shape[1] - length
    # A row is padding, prefix, rest. Without the first columns the padding has moved into the prefix's place.
    return DecoderInputs(
        embeds=inputs.embeds[:, length:],
        mask=inputs.mask[:, :size],
        positions=inputs.positions[..., length:],
        visual=inputs.visual[:, length:],
        pictures=inputs.pictures,
        prefix=prefix,
    )
