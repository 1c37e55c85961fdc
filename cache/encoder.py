"""A loaded model as extraction sees it: images in, all vision layers out; and the key that it implies."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from claspkit.runtime.inputs import encode_pictures, image_backend, processor_sha256
from claspkit.runtime.models import LoadedModel

from .keys import FeatureKey


class LoadedEncoder:
    """A loaded model seen as a ``VisionEncoder``."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Run the vision tower once: -> (B, vision_depth + 1, N, d_v) in the model's dtype, on its device."""
        return encode_pictures(self._loaded, images).transpose(0, 1)


def feature_key(
    loaded: LoadedModel, *, layers: Sequence[int] | None = None, dtype: str = "float16"
) -> FeatureKey:
    """The key of a loaded model's features.

    Args:
        loaded: model, processor and their facts.
        layers: vision layers to store (``hidden_states`` indexing); None for all, 0..vision_depth.
        dtype: logical dtype to store, one of ``keys.DTYPES``.

    Raises:
        ValueError: layers not ascending or out of bounds, or an unknown dtype.
    """
    spec = loaded.spec
    chosen = tuple(range(spec.vision_depth + 1)) if layers is None else tuple(layers)
    last = spec.vision_depth
    if chosen and chosen[-1] > last:
        raise ValueError(f"layer {chosen[-1]} does not exist: {spec.id} has vision layers 0 to {last}")
    return FeatureKey(
        model_id=spec.id,
        revision=spec.revision,
        fingerprint=spec.fingerprint,
        processor_sha256=processor_sha256(loaded),
        image_backend=image_backend(loaded),
        dtype=dtype,
        layers=chosen,
        tokens=spec.visual_tokens,
        width=spec.vision_width,
    )
