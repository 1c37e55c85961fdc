"""Qwen2.5-VL's inputs without its processor, which cannot be built where torchvision is missing.

The PIL image processor and the tokenizer do work without it. What the processor adds is done here: a placeholder per
visual token, and the token types from which the model computes its positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from claspkit.profiles.errors import UsageError

from .placeholders import chat_texts, expand, one_picture_each, tokenise

if TYPE_CHECKING:  # the families need this file, and run where Pillow is not installed
    from PIL import Image

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
    pixels = {name: made[name] for name in ("pixel_values", "image_grid_thw")}
    return {**_words(tokenizer, prompts, model_config, "image", counts), **pixels}


def build_video_inputs(
    image_processor: Any,
    tokenizer: Any,
    videos: Sequence[Sequence[Image.Image]],
    prompts: Sequence[str],
    model_config: Any,
) -> dict[str, Tensor]:
    """Build a left-padded batch with one video per prompt, from frames that are sampled already.

    Frames go through the image processor, with its limits on pixels, which the video processor has others of; the last
    one is repeated until they fill whole temporal patches. The time between them is left to the model's default.

    Args:
        image_processor: as of :func:`build_inputs`.
        tokenizer: the model's tokenizer, with its chat template.
        videos: the frames of one video per prompt, all of one size.
        prompts: the users' texts, without placeholders or roles.
        model_config: the model's config.

    Returns:
        ``input_ids``, ``attention_mask`` and ``mm_token_type_ids`` (B, S) int64, ``pixel_values_videos`` (patches,
        channels of a patch) float32 and ``video_grid_thw`` (B, 3) int64.

    Raises:
        UsageError: not as many videos as prompts, no frames or frames of different sizes, or a tokenizer without chat
            template or pad token.
    """
    one_picture_each(videos, prompts)
    packed = [_pack_video(image_processor, video) for video in videos]
    grids = torch.tensor([grid for _, grid in packed])
    words = _words(tokenizer, prompts, model_config, "video", token_counts(grids, image_processor.merge_size))
    return {**words, "pixel_values_videos": torch.cat([patches for patches, _ in packed]), "video_grid_thw": grids}


def chats(tokenizer: Any, prompts: Sequence[str], model_config: Any, kind: str = "image") -> list[str]:
    """Put prompts into the chat template, each with one placeholder of ``kind`` that is not expanded yet."""
    taken_out = tokenizer.convert_ids_to_tokens(
        [
            model_config.image_token_id,
            model_config.video_token_id,
            model_config.vision_start_token_id,
            model_config.vision_end_token_id,
        ]
    )
    return chat_texts(tokenizer, prompts, taken_out, kind)


def _words(
    tokenizer: Any, prompts: Sequence[str], model_config: Any, kind: str, counts: Sequence[int]
) -> dict[str, Tensor]:
    """Tokenised chats, with ``counts[k]`` placeholders in the k-th, and token types."""
    placeholders = (model_config.image_token_id, model_config.video_token_id)
    token: str = tokenizer.convert_ids_to_tokens(placeholders[kind == "video"])
    texts = chats(tokenizer, prompts, model_config, kind)
    words = tokenise(
        tokenizer, [expand(text, token, [token * count]) for text, count in zip(texts, counts, strict=True)]
    )
    return {**words, "mm_token_type_ids": token_types(words["input_ids"], *placeholders)}


def _pack_video(image_processor: Any, frames: Sequence[Image.Image]) -> tuple[Tensor, list[int]]:
    """Patches of a video, frame beside frame inside each, and its grid (t, h, w)."""
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) != 1:
        raise UsageError(f"a video needs at least one frame, and all of one size; got {len(frames)} of sizes {sizes}")
    made, depth = image_processor(images=list(frames), return_tensors="pt"), image_processor.temporal_patch_size
    _, height, width = made["image_grid_thw"][0].tolist()
    side = image_processor.patch_size**2
    stills = made["pixel_values"].view(len(frames), height * width, -1, depth, side)[:, :, :, 0]
    filled = torch.cat((stills, stills[-1:].expand(-len(frames) % depth, -1, -1, -1)))
    moving = filled.unflatten(0, (-1, depth)).permute(0, 2, 3, 1, 4)  # (t, h w, channels, depth, side)
    return moving.flatten(2).flatten(0, 1), [len(moving), height, width]
