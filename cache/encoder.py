"""A loaded model as extraction sees it: images in, all vision layers out; and the key that it implies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from claspkit.runtime.inputs import batch_inputs, encode_pictures, image_backend, processor_sha256
from claspkit.runtime.models import LoadedModel

from .encoding import EncodedPicture
from .keys import FeatureKey


class LoadedEncoder:
    """A loaded model whose pictures are all one grid, seen as a ``VisionEncoder``."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Run the vision tower once: -> (B, vision_depth + 1, N, d_v) in the model's dtype, on its device."""
        return encode_pictures(self._loaded, images).transpose(0, 1)


class LoadedPictureEncoder:
    """A loaded model whose pictures differ in size, seen as a ``PictureEncoder``.

    Tokens are the patches that the projector takes, units one after the other in the order in which the image
    processor makes them (overview and close-up tiles, or the packed patches of one picture), so that a record split
    into units again is what :meth:`Family.project` takes.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def tokens(self, image: Image.Image) -> int:
        """Patch tokens by the image processor's own count, or the family's where the processor has none."""
        loaded, size = self._loaded, (image.height, image.width)
        processor = loaded.processor.image_processor
        count = getattr(processor, "get_number_of_image_patches", None)
        if count is None:
            return loaded.family.picture_patches(loaded.model, size)
        units = int(count(*size, {"crop_to_patches": True}))
        # With a merge size the processor packs patches, else it cuts tiles: the reference picture is one of them.
        return units if hasattr(processor, "merge_size") else units * loaded.family.facts(loaded.model).patches

    def encode_picture(self, image: Image.Image) -> EncodedPicture:
        """Run the vision tower on one picture.

        The grid is (frames, height, width) in patches where the image processor gives that, else the (height, width)
        in pixels that it was given, else the number of tiles.
        """
        loaded = self._loaded
        inputs = batch_inputs(loaded, [image], [""])
        pixels = next(inputs[name] for name in ("pixel_values", "pixel_values_images") if name in inputs)
        grid: tuple[int, ...] = (int(pixels.shape[0]),)
        for name in ("image_grid_thw", "image_sizes"):
            if name in inputs:
                grid = tuple(int(number) for number in inputs[name][0])
        if pixels.ndim == 2:
            pixels = unpack_patches(pixels, grid, loaded.model.config.vision_config)
        layers = loaded.family.vision_layers(loaded.model, pixels)
        return EncodedPicture(layers.flatten(1, 2), grid)


def unpack_patches(patches: Tensor, grid: Sequence[int], vision: Any) -> Tensor:
    """Put the packed patches of one picture together again.

    Args:
        patches: (height * width, channels * frames * patch * patch), in the order of merged patches.
        grid: (1, height, width) in patches.
        vision: the model's vision config: ``patch_size``, ``spatial_merge_size`` and ``temporal_patch_size``.

    Returns:
        (1, channels, height * patch, width * patch) pixels; a picture's frames are alike, so one stands for all.
    """
    merge, side = vision.spatial_merge_size, vision.patch_size
    rows, columns = grid[1] // merge, grid[2] // merge
    cells = patches.view(rows, columns, merge, merge, -1, vision.temporal_patch_size, side, side)[:, :, :, :, :, 0]
    return cells.permute(4, 0, 2, 5, 1, 3, 6).flatten(4, 6).flatten(1, 3)[None]


def feature_key(loaded: LoadedModel, *, layers: Sequence[int] | None = None, dtype: str = "float16") -> FeatureKey:
    """The key of a loaded model's features; its token count is open where the model's pictures differ in size.

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
        tokens=spec.visual_tokens if loaded.family.one_grid else None,
        width=spec.vision_width,
    )
