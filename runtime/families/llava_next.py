"""LLaVA-NeXT: LLaVA-1.5 whose picture is one overview tile and a grid of close-up tiles, padding cut away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from claspkit.profiles.errors import MismatchError, UsageError
from claspkit.runtime.token_map import NEWLINES, TokenMap, grid_view, unpadded

from .base import FamilyFacts, VisualInput, blank_pixels
from .llava import LlavaFamily


class LlavaNextFamily(LlavaFamily):
    """``LlavaNextForConditionalGeneration`` with an integer ``vision_feature_layer`` and a CLIP tower.

    A unit is a tile. The decoder sees, per picture, the overview's grid in raster order, then the rows of the whole
    close-up grid as far as they show the picture, each row followed by one learned newline token. Newline tokens
    are visual tokens like the others: they cost the decoder the same.
    """

    id: ClassVar[str] = "llava-next"
    one_grid: ClassVar[bool] = False
    grids: ClassVar[Mapping[int, str]] = {2: "image"}
    model_type: ClassVar[str] = "llava_next"

    def facts(self, model: nn.Module) -> FamilyFacts:
        """As LLaVA's; ``visual_tokens`` are those of a picture with the most tiles, newlines not counted."""
        config: Any = model.config
        side = config.vision_config.image_size
        tiles = 1 + max((height // side) * (width // side) for height, width in config.image_grid_pinpoints)
        tokens = tiles * self.tokens_per_unit(model)
        return replace(super().facts(model), visual_tokens=tokens, patches=tokens)

    def picture_patches(self, model: nn.Module, size: tuple[int, int]) -> int:
        """Those of all its tiles; padding is cut after the encoder only."""
        return self.picture_layout(model, size)[0] * self.tokens_per_unit(model)

    def encode(self, model: nn.Module, pixel_values: Tensor, tower: str = "image") -> None:
        """Run the tower on (B, 3, H, W), or on every tile of (B, tiles, 3, H, W), padding tiles included."""
        super().encode(model, pixel_values.flatten(0, -4), tower)

    def stand_ins(self, model: nn.Module, tower: str, grids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pixels (B, most tiles, 3, H, W) and ``image_sizes`` (B, 2), which the grids are."""
        side = cast(Any, model).config.vision_config.image_size
        tiles = [self.picture_layout(model, (height, width))[0] for height, width in grids]
        return {
            "pixel_values": blank_pixels(model, len(grids), max(tiles), 3, side, side),
            "image_sizes": torch.tensor([list(grid) for grid in grids], device=cast(Any, model).device),
        }

    def visual_inputs(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[VisualInput, ...]:
        """Tiles and tokens of every picture from its height and width in ``image_sizes`` (B, 2).

        ``pixel_values`` may be (B, most tiles, 3, H, W) or the (tiles, 3, H, W) of all pictures one after the other;
        padding tiles of the first form never reach the tower.

        Raises:
            UsageError: ``image_sizes`` is missing or does not fit ``pixel_values``.
        """
        pixels = inputs.get("pixel_values")
        if pixels is None or pixels.shape[0] == 0:
            return ()
        layouts = [self.picture_layout(model, size) for size in self._sizes(inputs)]
        tiles, tokens = tuple(count for count, _ in layouts), tuple(count for _, count in layouts)
        wanted = len(layouts) if pixels.ndim == 5 else sum(tiles)
        if pixels.shape[0] != wanted:
            raise UsageError(
                f"image_sizes names {len(layouts)} pictures of {list(tiles)} tiles, so pixel_values must have {wanted} "
                f"entries, got {tuple(pixels.shape)}; pass both as the model's own processor returns them"
            )
        return (VisualInput("image", self.placeholder_ids(model)[0], tokens, tiles),)

    def cls_tokens(self, model: nn.Module, scores: Tensor, inputs: Mapping[str, Any], tower: str) -> list[Tensor]:
        """Lay scores out as the model lays out features, with 0 for newline tokens."""
        trunk: Any = model.model
        (visual,) = self.visual_inputs(model, inputs)
        patches = self.patch_tokens(model, scores[:, :, None], tower)
        packed, _ = trunk.pack_image_features(
            patches.split(visual.units),
            self._sizes(inputs),
            vision_feature_select_strategy=cast(Any, model).config.vision_feature_select_strategy,
            image_newline=scores.new_zeros(1),
        )
        return [score[:, 0] for score in packed]

    def picture_layout(self, model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
        """Return the tiles and the visual tokens of a picture.

        The picture is scaled into the best-fitting of ``image_grid_pinpoints`` and centred there; patch rows or
        columns that lie wholly in the padding are cut, equally many at both ends. With a tile of g x g patches and
        h x w patches left, a picture has g * g + h * (w + 1) tokens: the + 1 is the newline of each row.

        Args:
            model: the model.
            size: height and width in pixels, before any scaling.
        """
        rows, columns = self._tiles(model, size)
        (height, above), (width, before) = self._unpadding(model, size)
        height, width = height - 2 * above, width - 2 * before
        return 1 + rows * columns, self.tokens_per_unit(model) + height * (width + 1)

    def token_map(
        self, model: nn.Module, grid: Sequence[int], size: tuple[int, int], image_processor: Any
    ) -> TokenMap:
        """The overview's grid over the picture, whose proportions it does not keep, and that of all close-up tiles."""
        self.record_tower(grid)
        if tuple(grid) != tuple(size):
            raise MismatchError(
                f"the cached record is of a picture of {grid[0]} x {grid[1]} pixels (height x width), not of "
                f"{size[0]} x {size[1]}: the picture is no longer the one that was encoded"
            )
        side, tile = self.grid_side(model), cast(Any, model).config.vision_config.image_size
        canvas = [tiles * tile for tiles in self._tiles(model, size)]
        scale = min(canvas[0] / size[0], canvas[1] / size[1])
        axes = []
        for (cells, left_out), whole, pixels in zip(self._unpadding(model, size), canvas, size, strict=True):
            scaled = min(ceil(pixels * scale), whole)  # as the image processor rounds it
            axes.append(unpadded(cells, left_out, tile / side, (whole - scaled) // 2, scaled))
        (rows, top, bottom), (columns, left, right) = axes
        first = side**2
        tokens = first + rows * (columns + 1)
        if not rows or not columns:  # a picture so thin that all its patches went with the padding
            rest = {NEWLINES: tuple(range(first, tokens))} if tokens > first else {}
            return TokenMap((self.unit_view(model, "whole picture", 0),), rest)
        views = (
            self.unit_view(model, "whole picture", 0),
            grid_view("tiles", rows, columns, first, gap=1, window=(left, top, right, bottom)),
        )
        return TokenMap(views, {NEWLINES: tuple(range(first + columns, tokens, columns + 1))})

    def _tiles(self, model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of close-up tiles of a picture of ``size`` (height, width)."""
        # The choice among pinpoints is the processor's own, ties included; here it must not differ by a rounding.
        from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

        config: Any = model.config
        rows, columns = get_anyres_image_grid_shape(
            size, config.image_grid_pinpoints, config.vision_config.image_size
        )
        return int(rows), int(columns)

    def _unpadding(self, model: nn.Module, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Per axis, height first: patches of all close-up tiles, and those cut away at either end."""
        height, width = (tiles * self.grid_side(model) for tiles in self._tiles(model, size))
        if size[1] / size[0] > width / height:
            return (height, _padding(height, size[0], width / size[1])), (width, 0)
        return (height, 0), (width, _padding(width, size[1], height / size[0]))

    @staticmethod
    def _sizes(inputs: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Height and width of every picture, as plain numbers."""
        sizes = inputs.get("image_sizes")
        if sizes is None:
            raise UsageError(
                "pixel_values came without image_sizes: LLaVA-NeXT needs the height and width of every picture; pass "
                "both as the model's own processor returns them"
            )
        rows = sizes.tolist() if hasattr(sizes, "tolist") else sizes
        return [(int(height), int(width)) for height, width in rows]


def _padding(patches: int, pixels: int, scale: float) -> int:
    """Patches cut from either end of an axis on which ``pixels`` scaled by ``scale`` cover less than ``patches``.

    The 7 digits are the model's: they take a product such as 23.999999999 for the whole number that it is.
    """
    return (patches - int(round(pixels * scale, 7))) // 2
