"""InternVL's inputs without its processor, which cannot be built where torchvision is missing.

The PIL image processor, which cuts pictures into tiles, and the tokenizer do work without it. What the processor adds
is done here: the tiles' placeholders between a start and an end token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .placeholders import chat_texts, expand, one_picture_each, tokenise

if TYPE_CHECKING:  # the families need this file, and run where Pillow is not installed
    from PIL import Image

START, END = "<img>", "</img>"
"""What encloses a picture where the tokenizer does not name its own start and end tokens."""


def picture_run(tokenizer: Any, model_config: Any, tiles: int) -> str:
    """The text of one picture of ``tiles`` tiles: start, ``image_seq_length`` placeholders per tile, end."""
    token: str = tokenizer.convert_ids_to_tokens(model_config.image_token_id)
    return enclosed(tokenizer, token * (model_config.image_seq_length * tiles))


def enclosed(tokenizer: Any, placeholders: str) -> str:
    """The placeholders of one picture between the tokenizer's start and end token."""
    start, end = (getattr(tokenizer, f"{name}_image_token", own) for name, own in (("start", START), ("end", END)))
    return f"{start}{placeholders}{end}"


def build_inputs(
    image_processor: Any, tokenizer: Any, pictures: Sequence[Image.Image], prompts: Sequence[str], model_config: Any
) -> dict[str, Tensor]:
    """Build a left-padded batch with one picture per prompt.

    Args:
        image_processor: a ``GotOcr2ImageProcessorPil`` or its torchvision twin.
        tokenizer: the model's tokenizer, with its chat template.
        pictures: one per prompt, of any size; larger ones are cut into tiles and get an overview tile in the end.
        prompts: the users' texts, without placeholders or roles.
        model_config: the model's config.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, S) int64 and ``pixel_values`` (tiles of all pictures, 3, H, W)
        float32.

    Raises:
        UsageError: not as many pictures as prompts, or a tokenizer without chat template or pad token.
    """
    one_picture_each(pictures, prompts)
    # The processor asks for tiles whatever the image processor's own setting is.
    made = image_processor(images=list(pictures), crop_to_patches=True, return_tensors="pt")
    token = tokenizer.convert_ids_to_tokens(model_config.image_token_id)
    runs = [picture_run(tokenizer, model_config, int(tiles)) for tiles in made["num_patches"]]
    texts = chats(tokenizer, prompts, model_config)
    expanded = [expand(text, token, [run]) for text, run in zip(texts, runs, strict=True)]
    return {**tokenise(tokenizer, expanded), "pixel_values": made["pixel_values"]}


def chats(tokenizer: Any, prompts: Sequence[str], model_config: Any, kind: str = "image") -> list[str]:
    """Put prompts into the chat template, each with one placeholder that is not expanded yet."""
    token = tokenizer.convert_ids_to_tokens(model_config.image_token_id)
    named = (getattr(tokenizer, f"{name}_token", None) for name in ("start_image", "end_image", "video"))
    taken_out = [token, START, END, *(text for text in named if text)]
    return chat_texts(tokenizer, prompts, taken_out, kind)
