"""Qwen2.5-VL's inputs without its processor, which cannot be built where torchvision is missing.

The PIL image processor and the tokenizer do work without it. What the processor adds is done here: a placeholder per
visual token, and the token types from which the model computes its positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .placeholders import chat_texts, expand, one_picture_each, tokenise

_IMAGE, _VIDEO = 1, 2  # token types; text is 0


def token_counts(grids: Tensor, merge_size: int) -> list[int]:
    """Visual tokens of pictures or videos with patch grids (n, 3) of time, height and width."""
    return [int(patches) // merge_size**2 for patches in grids.prod(-1).tolist()]


def token_types(input_ids: Tensor, image_token_id: int, video_token_id: int) -> Tensor:
    """Say of every token of (B, S) what it stands for: 0 text, 1 a picture, 2 a video; int64."""
    types = torch.zeros_like(input_ids)
    return types.masked_fill(input_ids == image_token_id, _IMAGE).masked_fill(input_ids == video_token_id, _VIDEO)


def build_inputs(
    image_processor: Any, tokenizer: Any, pictures: Sequence[Image.Image], prompts: Sequence[str], model_config: Any
) -> dict[str, Tensor]:
    """Build a left-padded batch with one picture per prompt.

    Args:
        image_processor: a ``Qwen2VLImageProcessorPil`` or its torchvision twin.
        tokenizer: the model's tokenizer, with its chat template.
        pictures: one per prompt, of any size.
        prompts: the users' texts, without placeholders or roles.
        model_config: the model's config.

    Returns:
        ``input_ids``, ``attention_mask`` and ``mm_token_type_ids`` (B, S) int64, ``pixel_values`` (patches, channels
        of a patch) float32 and ``image_grid_thw`` (B, 3) int64.

    Raises:
        UsageError: not as many pictures as prompts, or a tokenizer without chat template or pad token.
    """
    one_picture_each(pictures, prompts)
    made = image_processor(images=list(pictures), return_tensors="pt")
    counts = token_counts(made["image_grid_thw"], image_processor.merge_size)
    image, *others = tokenizer.convert_ids_to_tokens(
        [
            model_config.image_token_id,
            model_config.video_token_id,
            model_config.vision_start_token_id,
            model_config.vision_end_token_id,
        ]
    )
    texts = chat_texts(tokenizer, prompts, [image, *others])
    expanded = [expand(text, image, [image * count]) for text, count in zip(texts, counts, strict=True)]
    words = tokenise(tokenizer, expanded)
    types = token_types(words["input_ids"], model_config.image_token_id, model_config.video_token_id)
    pixels = {name: made[name] for name in ("pixel_values", "image_grid_thw")}
    return {**words, "mm_token_type_ids": types, **pixels}
