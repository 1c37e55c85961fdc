"""A random-weight LLaVA of the real architecture, small enough to build in every test."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE_TOKEN = 99
PAD = 0
GRID = 6  # 6 x 6 patches


def tiny_llava(attention: str = "sdpa", seed: int = 0, depth: int = 6, dtype: torch.dtype = torch.float32) -> Any:
    """``LlavaForConditionalGeneration`` with 36 visual tokens, 4 vision blocks and ``depth`` decoder layers."""
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=24,
            patch_size=4,
        ),
        text_config=LlamaConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=depth,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=PAD,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-2,
        image_seq_length=GRID * GRID,
    )
    model: Any = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # random init is nearly linear; larger weights make attention and answers vary
    model.generation_config.eos_token_id = None  # tests compare full-length answers
    model.set_attn_implementation(attention)
    return model.to(dtype).eval()


def tiny_batch(lengths: list[int], seed: int = 1) -> dict[str, torch.Tensor]:
    """A left-padded batch: two tokens, the picture, then ``lengths[i]`` prompt tokens."""
    generator = torch.Generator().manual_seed(seed)
    visual = GRID * GRID
    width = 2 + visual + max(lengths)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        start = width - (2 + visual + length)
        ids[row, start : start + 2] = torch.tensor([1, 7])
        ids[row, start + 2 : start + 2 + visual] = IMAGE_TOKEN
        ids[row, start + 2 + visual :] = torch.randint(10, 98, (length,), generator=generator)
        mask[row, start:] = 1
    pixels = torch.randn(len(lengths), 3, 24, 24, generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def build(attention: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float32, depth: int = 6) -> Any:
    """The model under the name that every family's tiny model has."""
    return tiny_llava(attention, seed, depth, dtype)


def batch(kind: str, seed: int = 1) -> dict[str, torch.Tensor]:
    """A batch of one kind: "single", "padded", "several" (pictures in a prompt), "mixed" (one without), "text"."""
    if kind in ("single", "padded"):
        return tiny_batch([5] if kind == "single" else [3, 8, 5], seed)
    generator = torch.Generator().manual_seed(seed)
    picture = [IMAGE_TOKEN] * GRID * GRID
    prompts = {
        "several": [[1, 7, *picture, 11, 12, *picture, 13, 14, 15, 16], [1, 7, *picture, 21, 22, 23]],
        "mixed": [[1, 7, *picture, 21, 22, 23], [1, 31, 32, 33, 34]],
        "text": [[1, 31, 32, 33, 34]],
    }[kind]
    inputs = left_padded(prompts, PAD)
    pictures = sum(prompt.count(IMAGE_TOKEN) for prompt in prompts) // len(picture)
    if pictures:
        inputs["pixel_values"] = torch.randn(pictures, 3, 24, 24, generator=generator)
    return inputs


def left_padded(prompts: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` (B, S) of prompts of different lengths."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def full_inputs(inputs: dict[str, torch.Tensor], ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Arguments of one pass over ``ids`` (prompt and answer) whose positions are those of ``generate``."""
    return {**inputs, "input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
