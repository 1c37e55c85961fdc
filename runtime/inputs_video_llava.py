"""Video-LLaVA's inputs without its processor, which cannot be built where torchvision is missing.

The image processor and the tokenizer do work without it; what is left is to expand placeholders, done here.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from claspkit.profiles.errors import UsageError

from .placeholders import expand, tokenise, user_texts


def image_token_count(model_config: Any, height: int, width: int) -> int:
    """Visual tokens of a picture of processed size ``height`` x ``width`` pixels: its patches, and [CLS] if kept."""
    patch = model_config.vision_config.patch_size
    kept = 0 if model_config.vision_feature_select_strategy == "default" else 1
    return int((height // patch) * (width // patch)) + kept


def video_token_count(model_config: Any, frames: int, height: int, width: int) -> int:
    """Visual tokens of a video whose frames have processed size ``height`` x ``width``: patches and [CLS] of each."""
    patch = model_config.vision_config.patch_size
    return int(frames * ((height // patch) * (width // patch) + 1))


def expand_placeholders(text: str, token: str, counts: Sequence[int]) -> str:
    """Write the k-th ``token`` of a text ``counts[k]`` times.

    Raises:
        UsageError: the text does not hold one placeholder per count.
    """
    return expand(text, token, [token * count for count in counts])


def build_inputs(
    image_processor: Any, tokenizer: Any, pictures: Sequence[Image.Image], prompts: Sequence[str], model_config: Any
) -> dict[str, Tensor]:
    """Build a left-padded batch with one picture per prompt.

    Args:
        image_processor: a ``VideoLlavaImageProcessor``.
        tokenizer: the model's tokenizer.
        pictures: one per prompt.
        prompts: the users' texts, without placeholders or roles.
        model_config: the model's config.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, S) int64 and the pixels (B, 3, H, W) float32, under the name that
        this release of transformers uses.

    Raises:
        UsageError: not as many pictures as prompts.
    """
    _same_number(len(pictures), len(prompts), "pictures")
    name, pixels = _pixels(image_processor, pictures)
    count = image_token_count(model_config, *pixels.shape[-2:])
    token = _token(tokenizer, model_config.image_token_id)
    texts = [expand_placeholders(text, token, [count]) for text in chats(tokenizer, prompts, model_config, "image")]
    return {**tokenise(tokenizer, texts), name: pixels}


def build_video_inputs(
    image_processor: Any,
    tokenizer: Any,
    videos: Sequence[Sequence[Image.Image]],
    prompts: Sequence[str],
    model_config: Any,
) -> dict[str, Tensor]:
    """Build a left-padded batch with one video per prompt, from frames that are sampled already.

    The image processor has the video processor's settings, but resizes with PIL where that one uses torchvision, so
    pixels can differ in the last digits.

    Args:
        image_processor: a ``VideoLlavaImageProcessor``.
        tokenizer: the model's tokenizer.
        videos: the frames of one video per prompt, equally many in each.
        prompts: the users' texts, without placeholders or roles.
        model_config: the model's config.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, S) int64 and ``pixel_values_videos`` (B, frames, 3, H, W) float32.

    Raises:
        UsageError: not as many videos as prompts, or videos of different lengths.
    """
    _same_number(len(videos), len(prompts), "videos")
    lengths = sorted({len(video) for video in videos})
    if len(lengths) != 1 or lengths[0] == 0:
        raise UsageError(
            f"videos of one batch need equally many frames, at least one, got {lengths}; sample the same number of each"
        )
    _, frames = _pixels(image_processor, [frame for video in videos for frame in video])
    pixels = frames.unflatten(0, (len(videos), lengths[0]))
    count = video_token_count(model_config, lengths[0], *pixels.shape[-2:])
    token = _token(tokenizer, model_config.video_token_id)
    texts = [expand_placeholders(text, token, [count]) for text in chats(tokenizer, prompts, model_config, "video")]
    return {**tokenise(tokenizer, texts), "pixel_values_videos": pixels}


def _same_number(things: int, prompts: int, what: str) -> None:
    if things != prompts or not prompts:
        raise UsageError(f"a batch needs one of its {what} per prompt, got {things} {what} and {prompts} prompts")


def _pixels(image_processor: Any, pictures: Sequence[Image.Image]) -> tuple[str, Tensor]:
    """Run the image processor; return the key it uses for pixels, and them."""
    switch = "return_legacy_image_output"  # releases that have it also know the key pixel_values, and prefer it
    known = inspect.signature(image_processor.preprocess).parameters
    options: dict[str, Any] = {switch: False} if switch in known else {}
    # It would guess where the channels are, and take a picture that is 1 or 3 pixels high for channels first.
    options["input_data_format"] = "channels_last"
    made = image_processor(list(pictures), return_tensors="pt", **options)
    ((name, pixels),) = made.items()
    return name, pixels


def chats(tokenizer: Any, prompts: Sequence[str], model_config: Any, kind: str = "image") -> list[str]:
    """Put prompts into the chat format, with one placeholder of ``kind`` ("image", "video") in front of each.

    Control tokens inside a user's text are taken out: they would announce pictures that do not exist, or open turns.
    """
    image, video = (_token(tokenizer, i) for i in (model_config.image_token_id, model_config.video_token_id))
    bare = user_texts(tokenizer, prompts, (image, video))
    if not getattr(tokenizer, "chat_template", None):
        # What the model was tuned on; its tokenizer alone carries no template, its processor does.
        return [f"USER: {image if kind == 'image' else video}\n{text} ASSISTANT:" for text in bare]
    turns = [[{"role": "user", "content": [{"type": kind}, {"type": "text", "text": text}]}] for text in bare]
    return [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]


def _token(tokenizer: Any, token_id: int) -> str:
    """The text of a placeholder token."""
    return str(tokenizer.convert_ids_to_tokens(token_id))
