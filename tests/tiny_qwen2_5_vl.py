"""A random-weight Qwen2.5-VL of the real architecture, small enough to build in every test."""

from __future__ import annotations

from typing import Any

import torch
from tiny_llava import left_padded
from tiny_llava_next import words
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

IMAGE_TOKEN, VIDEO_TOKEN = 99, 98
VISION_START, VISION_END = 9, 8
PAD = 0
PATCH, MERGE, FRAMES = 14, 2, 2
WINDOW = 2  # merged patches along the side of a window
# (frames, height, width) in patches -> tokens by hand: a quarter of the patches.
PICTURES = {(1, 8, 10): 20, (1, 6, 14): 21, (1, 14, 10): 35, (1, 4, 12): 12}
VIDEOS = {(2, 6, 10): 30, (3, 4, 8): 24}
_KINDS: dict[str, list[list[int | tuple[int, int, int]]]] = {  # a number stands for so many words
    "single": [[2, (1, 8, 10), 5]],
    "padded": [[2, (1, 4, 12), 3], [2, (1, 14, 10), 8], [2, (1, 6, 14), 5]],
    "several": [[2, (1, 8, 10), 4, (1, 4, 12), 5], [3, (1, 6, 14), 4]],
    "mixed": [[2, (1, 6, 14), 6], [9]],
    "text": [[12]],
    "video": [[2, (2, 6, 10), 5]],
    "both": [[2, (2, 6, 10), 3, (1, 8, 10), 5], [2, (1, 4, 12), 3, (3, 4, 8), 4]],
}


def build(attention: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float32, depth: int = 6) -> Any:
    """``Qwen2_5_VLForConditionalGeneration`` with 4 vision blocks and ``depth`` decoder layers."""
    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 4,
            "hidden_size": 32,
            "out_hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES,
            "window_size": WINDOW * MERGE * PATCH,
            "fullatt_block_indexes": [1, 3],
        },
        text_config={
            "vocab_size": 100,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": depth,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            "pad_token_id": PAD,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )
    model: Any = Qwen2_5_VLForConditionalGeneration(config)
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
    rows: list[list[int]] = []
    pictures: list[tuple[int, int, int]] = []
    videos: list[tuple[int, int, int]] = []
    for pieces in _KINDS[kind]:
        row: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                row += words(piece, generator)
            elif piece in VIDEOS:
                row += [VISION_START, *[VIDEO_TOKEN] * VIDEOS[piece], VISION_END]
                videos.append(piece)
            else:
                row += [VISION_START, *[IMAGE_TOKEN] * PICTURES[piece], VISION_END]
                pictures.append(piece)
        rows.append(row)
    made = left_padded(rows, PAD)
    if not pictures and not videos:
        return made
    ids = made["input_ids"]
    made["mm_token_type_ids"] = (ids == IMAGE_TOKEN).long() + 2 * (ids == VIDEO_TOKEN).long()
    if pictures:
        made |= {"pixel_values": patches(pictures, generator), "image_grid_thw": torch.tensor(pictures)}
    if videos:
        made |= {"pixel_values_videos": patches(videos, generator), "video_grid_thw": torch.tensor(videos)}
        made["second_per_grid_ts"] = torch.full((len(videos),), 1.0)
    return made


def patches(grids: list[tuple[int, int, int]], generator: torch.Generator) -> Tensor:
    """Random patches of pictures or videos, packed: (sum of t h w, 3 * FRAMES * PATCH^2)."""
    count = sum(t * h * w for t, h, w in grids)
    return torch.randn(count, 3 * FRAMES * PATCH * PATCH, generator=generator)


def full_inputs(batch: dict[str, Tensor], ids: Tensor, mask: Tensor) -> dict[str, Any]:
    """Arguments of one pass over ``ids`` (prompt and answer); the model finds the positions of ``generate`` itself."""
    inputs: dict[str, Any] = {**batch, "input_ids": ids, "attention_mask": mask}
    if "mm_token_type_ids" in batch:
        types = batch["mm_token_type_ids"]
        answer = types.new_zeros(len(types), ids.shape[1] - types.shape[1])
        inputs["mm_token_type_ids"] = torch.cat((types, answer), dim=1)
    return inputs
