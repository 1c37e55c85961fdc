"""A model's processor; in parts where transformers cannot build it as one.

Every video processor of transformers needs torchvision, and so do the processors that hold one, although pictures do
not. Where it is missing, the image processor and the tokenizer are loaded by themselves and the family's own code does
what the processor would have done between them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from . import inputs_internvl, inputs_qwen2_5_vl, inputs_video_llava

Build = Callable[[Any, Any, Sequence[Image.Image], Sequence[str], Any], dict[str, Tensor]]
BuildVideo = Callable[[Any, Any, Sequence[Sequence[Image.Image]], Sequence[str], Any], dict[str, Tensor]]
Chats = Callable[[Any, Sequence[str], Any, str], list[str]]


class InputBuilder(NamedTuple):
    """What stands in for a processor: a whole batch, or chats whose placeholders are not expanded yet."""

    build: Build
    chats: Chats


INPUT_BUILDERS: dict[str, InputBuilder] = {
    "video-llava": InputBuilder(inputs_video_llava.build_inputs, inputs_video_llava.chats),
    "qwen2.5-vl": InputBuilder(inputs_qwen2_5_vl.build_inputs, inputs_qwen2_5_vl.chats),
    "internvl": InputBuilder(inputs_internvl.build_inputs, inputs_internvl.chats),
}
"""Families whose processor needs torchvision, by family id."""

VIDEO_BUILDERS: dict[str, BuildVideo] = {
    "video-llava": inputs_video_llava.build_video_inputs,
    "qwen2.5-vl": inputs_qwen2_5_vl.build_video_inputs,
}
"""Families that take videos, by family id."""


class SplitProcessor:
    """Image processor and tokenizer of one model, used like its processor.

    Attributes:
        image_processor: from ``AutoImageProcessor``.
        tokenizer: from ``AutoTokenizer``.
        image_token: the placeholder of a picture, as text.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, config: Any, builder: InputBuilder) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.image_token: str = tokenizer.convert_ids_to_tokens(config.image_token_id)
        self._config, self._builder = config, builder

    @property
    def chat_template(self) -> str | None:
        """The tokenizer's chat template."""
        template: str | None = self.tokenizer.chat_template
        return template

    def apply_chat_template(self, turns: Any, **options: Any) -> str:
        """Render turns as text."""
        return str(self.tokenizer.apply_chat_template(turns, **{"tokenize": False, **options}))

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        """Turn ids (B, S) into text."""
        texts: list[str] = self.tokenizer.batch_decode(ids, **options)
        return texts

    def build(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Build a left-padded batch with one picture per prompt."""
        return self._builder.build(self.image_processor, self.tokenizer, pictures, prompts, self._config)

    def chats(self, prompts: Sequence[str], kind: str) -> list[str]:
        """Put prompts, each about one "image" or "video", into the chat format; placeholders are not expanded."""
        return self._builder.chats(self.tokenizer, prompts, self._config, kind)


def load_processor(location: str, revision: str | None, family: str, config: Any) -> Any:
    """Load a model's processor, in parts where it cannot be built whole.

    Args:
        location: folder or hub id.
        revision: hub revision.
        family: id of the model's family.
        config: the model's config.

    Raises:
        ImportError: it cannot be built, and the family has no builder of its own.
    """
    transformers: Any = importlib.import_module("transformers")
    try:
        return transformers.AutoProcessor.from_pretrained(location, revision=revision)
    except (ImportError, ValueError, AttributeError):  # which of them depends on the release and the class
        if family not in INPUT_BUILDERS:
            raise
    return SplitProcessor(
        _image_processor(transformers, location, revision),
        transformers.AutoTokenizer.from_pretrained(location, revision=revision),
        config,
        INPUT_BUILDERS[family],
    )


def _image_processor(transformers: Any, location: str, revision: str | None) -> Any:
    """Load the PIL form of an image processor; older releases' automatic class asks for torchvision first."""
    try:
        return transformers.AutoImageProcessor.from_pretrained(location, revision=revision)
    except (ImportError, ValueError):
        base = transformers.image_processing_utils.BaseImageProcessor
        settings, _ = base.get_image_processor_dict(location, revision=revision)
        name = str(settings.get("image_processor_type", "")).removesuffix("Fast").removesuffix("Pil")
        for candidate in (f"{name}Pil", name):
            kind: Any = getattr(transformers, candidate, None) if name.endswith("ImageProcessor") else None
            if kind is not None and issubclass(kind, base):
                return kind.from_pretrained(location, revision=revision)
        raise
