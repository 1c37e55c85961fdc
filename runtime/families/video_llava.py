"""Video-LLaVA: one CLIP tower for pictures, one for video frames, and a projector that both share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from claspkit.profiles.errors import UsageError
from claspkit.runtime.token_map import CLS, TokenMap

from .base import FamilyFacts, VisualInput, blank_pixels, parts
from .llava import LlavaFamily


class VideoLlavaFamily(LlavaFamily):
    """``VideoLlavaForConditionalGeneration`` with an integer ``vision_feature_layer`` and CLIP towers.

    A unit is a picture or a frame. The model encodes and projects the pictures of a batch first, then its videos.
    Pictures lose their [CLS] token by ``vision_feature_select_strategy``; frames always keep theirs, in front of
    their patches.
    """

    id: ClassVar[str] = "video-llava"
    one_grid: ClassVar[bool] = False
    grids: ClassVar[Mapping[int, str]] = {1: "image", 3: "video"}
    model_type: ClassVar[str] = "video_llava"

    def matches(self, model: nn.Module) -> bool:
        """A trunk with both towers, the projector and ``language_model``, and one feature layer."""
        config: Any = getattr(model, "config", None)
        trunk = getattr(model, "model", None)
        names = ("image_tower", "video_tower", "multi_modal_projector", "language_model")
        return (
            getattr(config, "model_type", None) == self.model_type
            and isinstance(getattr(config, "vision_feature_layer", None), int)
            and all(hasattr(trunk, name) for name in names)
            and config.vision_config.model_type == "clip_vision_model"
        )

    def facts(self, model: nn.Module) -> FamilyFacts:
        """As LLaVA's; budgets refer to a video of ``video_seq_length`` tokens and scale to a picture's size."""
        tokens = int(cast(Any, model).config.video_seq_length)
        return replace(super().facts(model), visual_tokens=tokens, scaling="share", patches=tokens)

    def picture_patches(self, model: nn.Module, size: tuple[int, int]) -> int:
        """One grid, whatever the size; the reference picture is a video."""
        return self.tokens_per_unit(model)

    def towers(self, model: nn.Module) -> dict[str, nn.ModuleList]:
        """The CLIP layers of both towers."""
        return {name: parts(self.encoder(model, name), "vision_model").encoder.layers for name in ("image", "video")}

    def encoder(self, model: nn.Module, tower: str = "image") -> nn.Module:
        """``image_tower`` or ``video_tower``."""
        trunk: Any = cast(Any, model).model
        return cast(nn.Module, {"image": trunk.image_tower, "video": trunk.video_tower}[tower])

    def unit_patches(self, model: nn.Module, tower: str = "image") -> int:
        """A frame has its [CLS] token among them."""
        return self.tokens_per_frame(model) if tower == "video" else super().unit_patches(model, tower)

    def stand_ins(self, model: nn.Module, tower: str, grids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pixels (B, 3, H, W) of pictures, (B, frames, 3, H, W) of videos.

        Raises:
            UsageError: videos of different lengths, which the model takes in no batch.
        """
        side = cast(Any, model).config.vision_config.image_size
        if tower == "image":
            known = inspect.signature(type(model).forward).parameters
            name = "pixel_values" if "pixel_values" in known else "pixel_values_images"
            return {name: blank_pixels(model, len(grids), 3, side, side)}
        lengths = sorted({grid[0] for grid in grids})
        if len(lengths) != 1:
            raise UsageError(
                f"the cached videos of one batch have {lengths} frames; this model takes equally many of each: sample "
                "the same number when they are encoded"
            )
        return {"pixel_values_videos": blank_pixels(model, len(grids), lengths[0], 3, side, side)}

    def token_map(
        self, model: nn.Module, grid: Sequence[int], size: tuple[int, int], image_processor: Any
    ) -> TokenMap:
        """A picture's as LLaVA's; of a clip a grid for every frame, each behind its [CLS] token."""
        if self.record_tower(grid) == "image":
            return super().token_map(model, grid, size, image_processor)
        stride = self.tokens_per_frame(model)
        views = tuple(self.unit_view(model, f"frame {frame + 1}", frame * stride + 1) for frame in range(grid[0]))
        return TokenMap(views, {CLS: tuple(range(0, grid[0] * stride, stride))}, cropped=True)

    def patch_tokens(self, model: nn.Module, hidden: Tensor, tower: str = "image") -> Tensor:
        """Frames keep [CLS]; pictures as LLaVA's."""
        return hidden if tower == "video" else super().patch_tokens(model, hidden, tower)

    def placeholder_ids(self, model: nn.Module) -> tuple[int, ...]:
        """``image_token_id`` and ``video_token_id`` of config.json."""
        config: Any = model.config
        return int(config.image_token_id), int(config.video_token_id)

    def visual_inputs(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[VisualInput, ...]:
        """Pictures from ``pixel_values`` (B, 3, H, W), videos from ``pixel_values_videos`` (B, frames, 3, H, W).

        ``pixel_values`` is called ``pixel_values_images`` in older releases of transformers, and may be so in newer.
        """
        image_id, video_id = self.placeholder_ids(model)
        pixels, videos = inputs.get("pixel_values"), inputs.get("pixel_values_videos")
        if pixels is None:
            pixels = inputs.get("pixel_values_images")
        found = []
        if pixels is not None:
            count = pixels.shape[0]
            found.append(VisualInput("image", image_id, (self.tokens_per_unit(model),) * count, (1,) * count))
        if videos is not None:
            count, frames = videos.shape[:2]
            tokens = frames * self.tokens_per_frame(model)
            found.append(VisualInput("video", video_id, (tokens,) * count, (frames,) * count))
        return tuple(found)

    def cls_tokens(self, model: nn.Module, scores: Tensor, inputs: Mapping[str, Any], tower: str) -> list[Tensor]:
        """Scores of a picture's patches, or of all frames of a video in turn, with 0 for their [CLS] tokens."""
        (visual,) = (found for found in self.visual_inputs(model, inputs) if found.tower == tower)
        scored = scores.clone()
        scored[:, 0] = 0
        kept = self.patch_tokens(model, scored[:, :, None], tower)[..., 0]
        return [unit.flatten() for unit in kept.split(visual.units)]

    @staticmethod
    def tokens_per_frame(model: nn.Module) -> int:
        """Visual tokens of one frame: its patches and [CLS]."""
        vision = cast(Any, model).config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2) + 1
