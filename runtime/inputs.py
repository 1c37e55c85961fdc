"""From pictures and prompts to the tensors a model takes, through the model's own processor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor
from transformers import BatchEncoding

from claspkit.profiles.errors import UsageError

from .models import LoadedModel
from .pictures import check_pictures
from .placeholders import user_texts
from .processors import VIDEO_BUILDERS, SplitProcessor


def chat_text(loaded: LoadedModel, prompt: str, kind: str = "image") -> str:
    """Put one prompt with one picture (or "video") into the model's chat template, ready for the answer.

    Control tokens inside the user's text are taken out: they would announce pictures that do not exist, or open turns.
    """
    named = (getattr(loaded.processor, name, None) for name in ("image_token", "video_token"))
    (bare,) = user_texts(loaded.processor.tokenizer, [prompt], [name for name in named if name])
    turn = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": bare}]}]
    text: str = loaded.processor.apply_chat_template(turn, add_generation_prompt=True)
    return text


def chat_texts(loaded: LoadedModel, prompts: Sequence[str], kind: str = "image") -> list[str]:
    """Put prompts, each about one "image" or "video", into the chat format; their placeholders are not expanded."""
    if isinstance(loaded.processor, SplitProcessor):
        return loaded.processor.chats(prompts, kind)
    return [chat_text(loaded, prompt, kind) for prompt in prompts]


def batch_inputs(
    loaded: LoadedModel, pictures: Sequence[Image.Image], prompts: Sequence[str]
) -> BatchEncoding:
    """Build a left-padded batch with one picture per prompt.

    Returns:
        What the model's ``generate`` takes, on its device: ``input_ids`` (B, S) int64, ``attention_mask`` (B, S),
        ``pixel_values`` in the model's dtype, and whatever else its family needs (sizes, grids, token types).

    Raises:
        BadDataError: a picture is too long and thin, see :data:`claspkit.runtime.pictures.MAX_RATIO`.
        ValueError: the image processor refuses a picture for another reason.
    """
    check_pictures(pictures)
    processor = loaded.processor
    if isinstance(processor, SplitProcessor):
        batch = BatchEncoding(processor.build(pictures, prompts))
    else:
        processor.tokenizer.padding_side = "left"
        texts = [chat_text(loaded, prompt) for prompt in prompts]
        batch = processor(images=list(pictures), text=texts, return_tensors="pt", padding=True)
    return _placed(loaded, batch)


def clip_inputs(
    loaded: LoadedModel, clips: Sequence[Sequence[Image.Image]], prompts: Sequence[str]
) -> BatchEncoding:
    """Build a left-padded batch with one clip per prompt; its frames go through the image processor.

    Args:
        loaded: the model.
        clips: frames that are sampled already, all of one clip of one size.
        prompts: the users' texts.

    Returns:
        What the model's ``generate`` takes, on its device.

    Raises:
        UsageError: the model takes no videos, or these do not fit.
        BadDataError, ValueError: as of :func:`batch_inputs`.
    """
    check_takes_clips(loaded)
    for frames in clips:
        check_pictures(frames)
    processor, build = loaded.processor, VIDEO_BUILDERS[loaded.family.id]
    made = build(processor.image_processor, processor.tokenizer, clips, prompts, loaded.model.config)
    return _placed(loaded, made)


def picture_grid(loaded: LoadedModel, inputs: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The grid of the one picture that a batch of one was built for, as a cached record of it has it.

    (frames, height, width) in patches where the image processor gives that, else the (height, width) in pixels that it
    was given, else the number of tiles; empty for models whose pictures all are one grid.
    """
    if loaded.family.one_grid:
        return ()
    for name in ("image_grid_thw", "image_sizes"):
        if name in inputs:
            return tuple(int(number) for number in inputs[name][0])
    return (len(picture_pixels(inputs)),)


def picture_pixels(inputs: Mapping[str, Tensor]) -> Tensor:
    """The pixels of a batch's pictures, under whichever name this release of transformers has for them."""
    return next(inputs[name] for name in ("pixel_values", "pixel_values_images") if name in inputs)


def check_takes_clips(loaded: LoadedModel) -> None:
    """Refuse clips for a model that has no use for them.

    Raises:
        UsageError: the model takes no videos; the text says which families do.
    """
    if loaded.family.id not in VIDEO_BUILDERS:
        raise UsageError(
            f"models of the family {loaded.family.id!r} take pictures only; clips can be given to: "
            f"{', '.join(VIDEO_BUILDERS)}"
        )


def _placed(loaded: LoadedModel, batch: Mapping[str, Tensor]) -> BatchEncoding:
    """A batch on the model's device, floats in its dtype."""
    return BatchEncoding(
        {
            name: value.to(loaded.model.device, dtype=loaded.model.dtype if value.is_floating_point() else None)
            for name, value in batch.items()
        }
    )


def pixel_values(loaded: LoadedModel, pictures: Sequence[Image.Image]) -> Tensor:
    """Run the image processor: -> (B, 3, H, W) in the model's dtype, on its device.

    Raises:
        BadDataError, ValueError: as of :func:`batch_inputs`.
    """
    check_pictures(pictures)
    batch = loaded.processor.image_processor(images=list(pictures), return_tensors="pt")
    values: Tensor = batch["pixel_values"]
    return values.to(loaded.model.device, dtype=loaded.model.dtype)


def encode_pictures(loaded: LoadedModel, pictures: Sequence[Image.Image]) -> Tensor:
    """All vision layers of pictures: (L + 1, B, N, D) in the model's dtype, entry 0 the embedding output."""
    return loaded.family.vision_layers(loaded.model, pixel_values(loaded, pictures))


def decode_answers(loaded: LoadedModel, generated: Tensor) -> list[str]:
    """Turn generated ids (B, T), without the prompt, into stripped text."""
    texts = loaded.processor.batch_decode(generated, skip_special_tokens=True)
    return [text.strip() for text in texts]


def image_backend(loaded: LoadedModel) -> str:
    """Name the code that resizes and normalises pictures; backends differ in the last bits."""
    kind = type(loaded.processor.image_processor)
    return f"{kind.__module__.rsplit('.', 1)[-1]}.{kind.__name__}"


def processor_sha256(loaded: LoadedModel) -> str:
    """SHA-256 of the image processor's settings, as canonical JSON."""
    settings = loaded.processor.image_processor.to_dict()
    text = json.dumps(settings, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
