"""A random-weight Video-LLaVA of the real architecture, small enough to build in every test."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from tiny_llava import full_inputs, left_padded
from tiny_llava_next import words
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, VideoLlavaConfig, VideoLlavaForConditionalGeneration

__all__ = ["FRAMES", "GRID", "IMAGE_TOKEN", "PIXELS", "SIDE", "VIDEO_TOKEN", "batch", "build", "full_inputs"]

IMAGE_TOKEN, VIDEO_TOKEN = 99, 98
PAD = 0
SIDE, GRID = 16, 4
FRAMES = 3
PIXELS = (  # the name of a batch's pictures in this release of transformers
    "pixel_values"
    if "pixel_values" in inspect.signature(VideoLlavaForConditionalGeneration.forward).parameters
    else "pixel_values_images"
)
_KINDS: dict[str, list[list[int | str]]] = {  # a number stands for so many words
    "single": [[2, "image", 5]],
    "padded": [[2, "image", 3], [2, "video", 8], [2, "image", 5]],
    "several": [[2, "image", 4, "image", 5], [3, "image", 4]],
    "mixed": [[2, "image", 6], [9]],
    "text": [[12]],
    "video": [[2, "video", 5], [3, "video", 3]],
    "both": [[2, "image", 3, "video", 5], [2, "video", 3, "image", 4]],
}


def build(attention: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float32, depth: int = 6) -> Any:
    """``VideoLlavaForConditionalGeneration`` with 4 vision blocks in each tower and ``depth`` decoder layers."""
    torch.manual_seed(seed)
    config = VideoLlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=SIDE // GRID,
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
        video_token_index=VIDEO_TOKEN,
        vision_feature_layer=-2,
        image_seq_length=GRID * GRID,
        video_seq_length=FRAMES * (GRID * GRID + 1),
    )
    model: Any = VideoLlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # random init is nearly linear; larger weights make attention and answers vary
        model.lm_head.weight[[IMAGE_TOKEN, VIDEO_TOKEN]] = 0  # an answer that names one could not be read again
    model.generation_config.eos_token_id = None  # tests compare full-length answers
    model.set_attn_implementation(attention)
    return model.to(dtype).eval()


def batch(kind: str, seed: int = 1) -> dict[str, Tensor]:
    """A left-padded batch: "single", "padded", "several", "mixed", "text", "video", or "both" kinds in a prompt."""
    generator = torch.Generator().manual_seed(seed)
    patches = GRID * GRID
    runs = {"image": [IMAGE_TOKEN] * patches, "video": [VIDEO_TOKEN] * (FRAMES * (patches + 1))}
    pieces = [piece for row in _KINDS[kind] for piece in row]
    rows = [
        [token for piece in row for token in (runs[piece] if isinstance(piece, str) else words(piece, generator))]
        for row in _KINDS[kind]
    ]
    made = left_padded(rows, PAD)
    if "image" in pieces:
        made[PIXELS] = torch.randn(pieces.count("image"), 3, SIDE, SIDE, generator=generator)
    if "video" in pieces:
        made["pixel_values_videos"] = torch.randn(pieces.count("video"), FRAMES, 3, SIDE, SIDE, generator=generator)
    return made
