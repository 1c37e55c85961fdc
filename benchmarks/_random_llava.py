"""A LLaVA of random weights at several sizes, and a batch of prompts for it: no checkpoint is read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, LlavaConfig

from claspkit.profiles.budget import round_half_up
from claspkit.runtime.families import Family, find_family

BEFORE_PICTURE = Fraction(7, 12)  # of the text: 35 of 60 tokens, as the model's usual system prompt is long
GROUPS, NOISE = 40, 0.8  # neighbouring patches are alike
PATCH = 14


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA: decoder, vision tower, and patches along a side of the picture."""

    depth: int
    width: int
    ffn: int
    heads: int
    vocab: int
    tower_depth: int
    tower_width: int
    tower_ffn: int
    tower_heads: int
    side: int


SHAPES = {
    "tiny": Shape(6, 32, 64, 4, 100, 4, 32, 48, 4, 6),
    "small": Shape(32, 256, 688, 4, 512, 4, 64, 256, 4, 24),
    "medium": Shape(32, 512, 1376, 8, 512, 4, 64, 256, 4, 24),
    "llava-1.5-7b": Shape(32, 4096, 11008, 32, 32064, 24, 1024, 4096, 16, 24),
}


@dataclass
class Bench:
    """A model, a batch of prompts, and how to run them.

    Attributes:
        model: random weights, on the device.
        family: its family.
        inputs: ``inputs_embeds`` (B, S, D) and ``attention_mask`` (B, S): the decoder's prompt.
        pictures: ``input_ids``, ``attention_mask`` and ``pixel_values`` of the same prompts.
        visual: (B, S) bool, the visual tokens.
    """

    model: Any
    family: Family
    inputs: dict[str, Tensor]
    pictures: dict[str, Tensor]
    visual: Tensor

    def prefill(self) -> Any:
        """One pass of the decoder over the prompts, with the logits of the last token."""
        return self.model(**self.inputs, logits_to_keep=1)

    def token(self) -> Any:
        """One token of every prompt: what a pass costs however few tokens there are."""
        return self.model(**{name: part[:, :1] for name, part in self.inputs.items()}, logits_to_keep=1)

    def whole(self) -> Any:
        """The same with the vision tower before it."""
        return self.model(**self.pictures, logits_to_keep=1)


def build(shape: Shape, device: str, dtype: torch.dtype) -> Any:
    """A LLaVA of random weights, made on the device."""
    tower = CLIPVisionConfig(
        hidden_size=shape.tower_width,
        intermediate_size=shape.tower_ffn,
        num_hidden_layers=shape.tower_depth,
        num_attention_heads=shape.tower_heads,
        image_size=shape.side * PATCH,
        patch_size=PATCH,
    )
    decoder = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=decoder,
        image_token_index=shape.vocab - 1,
        vision_feature_layer=-2,
        image_seq_length=shape.side**2,
    )
    with torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return model.eval()


def make_bench(model: Any, shape: Shape, batch: int, text: int) -> Bench:
    """A batch of equal prompts: text, the picture in loose groups of alike patches, the question."""
    generator = torch.Generator().manual_seed(batch)
    tokens, before = shape.side**2, round_half_up(text * BEFORE_PICTURE)
    ids = torch.randint(3, shape.vocab - 1, (batch, text + tokens), generator=generator)
    ids[:, before : before + tokens] = shape.vocab - 1
    visual = ids == shape.vocab - 1
    groups = torch.randn(batch, GROUPS, shape.width, generator=generator)
    member = torch.randint(0, GROUPS, (batch, tokens), generator=generator)
    patches = groups.gather(1, member[:, :, None].expand(-1, -1, shape.width))
    patches = patches + NOISE * torch.randn(batch, tokens, shape.width, generator=generator)
    side = shape.side * PATCH
    pixels = torch.randn(batch, 3, side, side, generator=generator)
    device, dtype = model.device, model.dtype
    embeds = model.get_input_embeddings()(ids.to(device))
    patches = patches.to(device, dtype) * embeds.std()
    mask = torch.ones_like(ids).to(device)
    return Bench(
        model,
        find_family(model),
        {"inputs_embeds": embeds.masked_scatter(visual.to(device)[:, :, None], patches), "attention_mask": mask},
        {"input_ids": ids.to(device), "attention_mask": mask, "pixel_values": pixels.to(device, dtype)},
        visual.to(device),
    )
