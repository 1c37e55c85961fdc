"""A loaded model as extraction sees it: images in, all vision layers out; and the key that it implies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image
from torch import Tensor

from claspkit.profiles.errors import BadDataError
from claspkit.runtime.inputs import (
    batch_inputs,
    check_takes_clips,
    clip_inputs,
    image_backend,
    picture_grid,
    picture_pixels,
    pixel_values,
    processor_sha256,
)
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.pictures import check_sides

from .encoding import EncodedPicture
from .keys import FeatureKey


class LoadedEncoder:
    """A loaded model whose pictures are all one grid, seen as a ``VisionEncoder``."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Run the vision tower once: -> (B, vision_depth + 1, N, d_v) in the model's dtype, on its device.

        Raises:
            BadDataError: the image processor refuses one of them; it does not say which.
        """
        with _processing():
            pixels = pixel_values(self._loaded, images)
        return self._loaded.family.vision_layers(self._loaded.model, pixels).transpose(0, 1)


class LoadedPictureEncoder:
    """A loaded model whose pictures differ in size, seen as a ``ClipEncoder``.

    Tokens are the patches that the projector takes, units one after the other in the order in which the image
    processor makes them (overview and close-up tiles, or the packed patches of one picture), so that a record split
    into units again is what :meth:`Family.project` takes.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def tokens(self, image: Image.Image) -> int:
        """Patch tokens by the image processor's own count, or the family's where the processor has none.

        Raises:
            BadDataError: the image processor refuses it.
        """
        check_sides(image.size)
        loaded, size = self._loaded, (image.height, image.width)
        processor = loaded.processor.image_processor
        count = getattr(processor, "get_number_of_image_patches", None)
        if count is None:
            return loaded.family.picture_patches(loaded.model, size)
        with _processing():
            units = int(count(*size, {"crop_to_patches": True}))
        # With a merge size the processor packs patches, else it cuts tiles: the reference picture is one of them.
        return units if hasattr(processor, "merge_size") else units * loaded.family.facts(loaded.model).patches

    def encode_picture(self, image: Image.Image) -> EncodedPicture:
        """Run the vision tower on one picture; its grid is that of :func:`claspkit.runtime.inputs.picture_grid`.

        Raises:
            BadDataError: the image processor refuses it.
        """
        loaded = self._loaded
        with _processing():
            inputs = batch_inputs(loaded, [image], [""])
        pixels, grid = picture_pixels(inputs), picture_grid(loaded, inputs)
        if pixels.ndim == 2:
            pixels = unpack_patches(pixels, grid, loaded.model.config.vision_config)[:, 0]  # its frames are alike
        layers = loaded.family.vision_layers(loaded.model, pixels)
        return EncodedPicture(layers.flatten(1, 2), grid)

    def clip_tokens(self, frames: Sequence[Image.Image]) -> int:
        """Frames times the patch tokens of a frame; in a packed encoder, several frames make one."""
        loaded = self._loaded
        check_takes_clips(loaded)  # now, not when all pictures are encoded and the first clip's turn comes
        vision = loaded.model.config.vision_config
        if not hasattr(vision, "temporal_patch_size"):
            return len(frames) * loaded.family.unit_patches(loaded.model, "video")
        times = -(-len(frames) // int(vision.temporal_patch_size))
        return times * self.tokens(frames[0])

    def encode_clip(self, frames: Sequence[Image.Image]) -> EncodedPicture:
        """Run the video tower on one clip.

        The grid is (frames, height, width) in patches; where the encoder makes one patch of several frames, (temporal
        patches, height, width, frames given). Its length tells a clip from a picture.

        Raises:
            UsageError: the model takes no videos, or the frames differ in size.
            BadDataError: the image processor refuses its frames.
        """
        loaded, vision = self._loaded, self._loaded.model.config.vision_config
        with _processing():
            inputs = clip_inputs(loaded, [frames], [""])
        pixels: Tensor = inputs["pixel_values_videos"]
        if "video_grid_thw" in inputs:
            times, *sides = (int(number) for number in inputs["video_grid_thw"][0])
            grid: tuple[int, ...] = (times, *sides, len(frames))
            pixels = unpack_patches(pixels, grid, vision)
        else:
            pixels = pixels[0]
            grid = (len(frames), *(int(side) // vision.patch_size for side in pixels.shape[-2:]))
        layers = loaded.family.vision_layers(loaded.model, pixels, "video")
        return EncodedPicture(layers.flatten(1, 2), grid)


@contextmanager
def _processing() -> Iterator[None]:
    """Blame the image for what an image processor says is wrong with its values, which it does with a ValueError."""
    try:
        yield
    except ValueError as error:
        raise BadDataError(f"the model's image processor refuses it: {error}") from error


def unpack_patches(patches: Tensor, grid: Sequence[int], vision: Any) -> Tensor:
    """Put the packed patches of one picture or video together again.

    Args:
        patches: (times * height * width, channels * frames * patch * patch), in the order of merged patches.
        grid: (times, height, width) in patches; more numbers are not looked at.
        vision: the model's vision config: ``patch_size``, ``spatial_merge_size`` and ``temporal_patch_size``.

    Returns:
        (1, times * frames, channels, height * patch, width * patch) pixels.
    """
    merge, side = vision.spatial_merge_size, vision.patch_size
    times, rows, columns = grid[0], grid[1] // merge, grid[2] // merge
    cells = patches.view(times, rows, columns, merge, merge, -1, vision.temporal_patch_size, side, side)
    frames = cells.permute(0, 6, 5, 1, 3, 7, 2, 4, 8)  # (times, frames, channels, rows, ..., columns, ...)
    return frames.flatten(6, 8).flatten(3, 5).flatten(0, 1)[None]


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
