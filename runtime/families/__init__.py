"""The model families the runtime knows: one file each, one row in ``FAMILIES``."""

from __future__ import annotations

from torch import nn

from claspkit.profiles.errors import UsageError

from .base import Family, FamilyFacts, VisualInput
from .internvl import InternVLFamily
from .llava import LlavaFamily
from .llava_next import LlavaNextFamily
from .qwen2_5_vl import Qwen2_5VLFamily
from .video_llava import VideoLlavaFamily

FAMILIES: dict[str, type[Family]] = {
    "llava": LlavaFamily,
    "llava-next": LlavaNextFamily,
    "video-llava": VideoLlavaFamily,
    "qwen2.5-vl": Qwen2_5VLFamily,
    "internvl": InternVLFamily,
}


def find_family(model: nn.Module) -> Family:
    """Return the family whose structure ``model`` has.

    Raises:
        UsageError: no family matches; the text names the model's type and the families there are.
    """
    for family in FAMILIES.values():
        candidate = family()
        if candidate.matches(model):
            return candidate
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    layers = getattr(getattr(model, "config", None), "vision_feature_layer", None)
    if isinstance(layers, list | tuple):
        raise UsageError(
            f"this {kind!r} model reads several vision layers (vision_feature_layer = {list(layers)}), as one written "
            "by `claspkit export --fold-class` does; profiles are made for, and prune, the model it was folded from"
        )
    raise UsageError(
        f"a model of type {kind!r} is not supported; supported families: {', '.join(FAMILIES)}. "
        "See docs/extending.md for how to add one."
    )


__all__ = ["FAMILIES", "Family", "FamilyFacts", "VisualInput", "find_family"]
