"""A random-weight InternVL of the real architecture, small enough to build in every test."""

from __future__ import annotations

from typing import Any

import torch
from tiny_llava import full_inputs, left_padded
from tiny_llava_next import words
from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

__all__ = ["GRID", "IMAGE_TOKEN", "PAD", "SIDE", "TOKENS", "batch", "build", "full_inputs"]

IMAGE_TOKEN = 99
START, END = 9, 8
PAD = 0
SIDE, GRID = 40, 10  # a tile is 40 pixels and 10 patches wide
TOKENS = 25  # of a tile: the pixel shuffle makes one token of 2 x 2 patches
_TEXT: dict[str, Any] = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
_KINDS: dict[str, list[list[int | tuple[int]]]] = {  # a number stands for so many words, (n,) for a picture of n tiles
    "single": [[2, (1,), 5]],
    "padded": [[2, (1,), 3], [2, (3,), 8], [2, (2,), 5]],
    "several": [[2, (1,), 4, (2,), 5], [3, (1,), 4]],
    "mixed": [[2, (1,), 6], [9]],
    "text": [[12]],
}


def build(
    attention: str = "sdpa",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    depth: int = 6,
    *,
    text: str = "qwen2",
    feature_layer: int = -1,
    mean_pooling: bool = True,
    norms_queries: bool = False,
) -> Any:
    """``InternVLForConditionalGeneration`` with 4 vision blocks and ``depth`` decoder layers.

    ``mean_pooling`` False gives the tower its final norm, ``norms_queries`` its norms of queries and keys; ``text`` is
    the decoder: "qwen2", "qwen3" or "llama".
    """
    torch.manual_seed(seed)
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=[SIDE, SIDE],
            patch_size=[SIDE // GRID, SIDE // GRID],
            use_mean_pooling=mean_pooling,
            use_qk_norm=norms_queries,
        ),
        text_config=_TEXT[text](
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=depth,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            pad_token_id=PAD,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_id=IMAGE_TOKEN,
        image_seq_length=TOKENS,
        vision_feature_layer=feature_layer,
        tie_word_embeddings=False,
    )
    model: Any = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # random init is nearly linear; larger weights make attention and answers vary
        embeddings = model.model.vision_tower.embeddings
        for start in (embeddings.cls_token, embeddings.position_embeddings):
            start.normal_()  # zero at first, which would make all [CLS] rows alike
        model.lm_head.weight[IMAGE_TOKEN] = 0  # an answer that names a placeholder could not be read again
    model.generation_config.eos_token_id = None  # tests compare full-length answers
    model.set_attn_implementation(attention)
    return model.to(dtype).eval()


def batch(kind: str, seed: int = 1) -> dict[str, Tensor]:
    """A left-padded batch of one of the kinds "single", "padded", "several", "mixed", "text"."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    tiles = 0
    for pieces in _KINDS[kind]:
        row: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                row += words(piece, generator)
            else:
                row += [START, *[IMAGE_TOKEN] * (TOKENS * piece[0]), END]
                tiles += piece[0]
        rows.append(row)
    made = left_padded(rows, PAD)
    if tiles:
        made["pixel_values"] = torch.randn(tiles, 3, SIDE, SIDE, generator=generator)
    return made
