"""InternVL in its transformers form: tiles of one size, a pixel shuffle that makes one token of several patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isqrt, prod
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from claspkit.profiles.errors import MismatchError
from claspkit.runtime.inputs_internvl import enclosed
from claspkit.runtime.token_map import TokenMap, grid_view, tiled_view

from .base import FamilyFacts, blank_pixels
from .llava import LlavaFamily


class InternVLFamily(LlavaFamily):
    """``InternVLForConditionalGeneration`` with an integer ``vision_feature_layer`` and without [CLS] tokens.

    A tile counts as a picture: ``pixel_values`` (tiles, 3, H, W) does not say which tiles were cut from one picture.
    """

    id: ClassVar[str] = "internvl"
    one_grid: ClassVar[bool] = False
    grids: ClassVar[Mapping[int, str]] = {1: "image"}
    model_type: ClassVar[str] = "internvl"

    def matches(self, model: nn.Module) -> bool:
        """A trunk with ``vision_tower``, ``multi_modal_projector`` and ``pixel_shuffle``, and one feature layer."""
        config: Any = getattr(model, "config", None)
        trunk = getattr(model, "model", None)
        names = ("vision_tower", "multi_modal_projector", "language_model", "pixel_shuffle")
        return (
            getattr(config, "model_type", None) == self.model_type
            and isinstance(getattr(config, "vision_feature_layer", None), int)
            and self.drops_cls(model)
            and all(hasattr(trunk, name) for name in names)
            and config.vision_config.model_type == "internvl_vision"
        )

    def facts(self, model: nn.Module) -> FamilyFacts:
        """As LLaVA's; budgets refer to one tile and scale to the tiles there are."""
        patches = self._tile_patches(model)
        return replace(super().facts(model), scaling="share", patches=patches, vision_span=patches)

    def picture_patches(self, model: nn.Module, size: tuple[int, int]) -> int:
        """Those of the tiles that the image processor cuts by default, the overview included."""
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        height, width = cast(Any, model).config.vision_config.image_size
        cutting = {"crop_to_patches": True, "patch_size": {"height": height, "width": width}}
        tiles: int = GotOcr2ImageProcessorPil().get_number_of_image_patches(*size, cutting)
        return tiles * self._tile_patches(model)

    def tokens_per_unit(self, model: nn.Module) -> int:
        """Visual tokens of one tile: ``image_seq_length`` of config.json."""
        return int(cast(Any, model).config.image_seq_length)

    def towers(self, model: nn.Module) -> dict[str, nn.ModuleList]:
        """The encoder's layers, closed by the final norm where the stock model reads its last layer through one.

        ``vision_feature_layer`` -1 means the tower's ``last_hidden_state``, normed unless ``use_mean_pooling`` is
        set; every other value, also the last layer's number, means ``hidden_states``, which are not. So for -1 the
        norm takes the place of the last block, and its output is layer L. (A tower of one block has no such place.)
        """
        tower = cast(Any, model).model.vision_tower
        layers = cast(nn.ModuleList, tower.encoder.layer)
        reads_norm = cast(Any, model).config.vision_feature_layer == -1
        if not reads_norm or isinstance(tower.layernorm, nn.Identity):
            return {"image": layers}
        return {"image": nn.ModuleList([*layers[:-1], tower.layernorm])}

    def unit_patches(self, model: nn.Module, tower: str = "image") -> int:
        """Those of a tile, before the pixel shuffle."""
        return self._tile_patches(model)

    def stand_ins(self, model: nn.Module, tower: str, grids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pixels (tiles of all pictures, 3, H, W)."""
        height, width = cast(Any, model).config.vision_config.image_size
        return {"pixel_values": blank_pixels(model, sum(tiles for (tiles,) in grids), 3, height, width)}

    def token_map(
        self, model: nn.Module, grid: Sequence[int], size: tuple[int, int], image_processor: Any
    ) -> TokenMap:
        """The grid of all tiles over the picture, whose proportions they do not keep, and that of the overview.

        How a number of tiles is arranged is not in the grid: it follows from ``size`` and the image processor's limits.
        """
        self.record_tower(grid)
        side = isqrt(self.tokens_per_unit(model))
        tiles = self._tiles(model, size, image_processor)
        if grid[0] != prod(tiles) + (prod(tiles) > 1):
            raise MismatchError(
                f"the cached record has {grid[0]} tiles; a picture of {size[0]} x {size[1]} pixels (height x width) is "
                f"cut into {tiles[0]} x {tiles[1]}: it, or the image processor, is no longer the one that was used"
            )
        if grid[0] == 1:
            return TokenMap((grid_view("picture", side, side),))
        overview = grid_view("whole picture", side, side, prod(tiles) * side**2)
        return TokenMap((overview, tiled_view("tiles", tiles, side)))

    def placeholder_run(self, model: nn.Module, tokenizer: Any, token: str, tokens: int) -> str:
        """The placeholders between a start and an end token."""
        return enclosed(tokenizer, token * tokens)

    def projector_input(self, model: nn.Module, patches: Tensor, tower: str = "image") -> Tensor:
        """Shuffle patches (U, P, D) as the model does: (U, P r^2, D / r^2) with r = ``downsample_ratio``."""
        trunk: Any = model.model
        side = isqrt(patches.shape[1])
        shuffled: Tensor = trunk.pixel_shuffle(
            patches.reshape(len(patches), side, side, -1), scale_factor=cast(Any, model).config.downsample_ratio
        )
        return shuffled.flatten(1, 2)

    def cls_attention(self, model: nn.Module, tower: str) -> nn.Module:
        """The attention of the block whose output the stock model reads, with ``q_norm`` and ``k_norm``, maybe idle."""
        layers = cast(Any, model).model.vision_tower.encoder.layer
        return cast(nn.Module, layers[self.facts(model).default_layer - 1].attention)

    @staticmethod
    def _tiles(model: nn.Module, size: tuple[int, int], image_processor: Any) -> tuple[int, int]:
        """Rows and columns of the tiles of a picture, the overview not among them."""
        # The choice is the processor's own, ties included.
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

        least, most = image_processor.min_patches, image_processor.max_patches
        if most <= 1:
            return 1, 1
        height, width = cast(Any, model).config.vision_config.image_size
        columns, rows = get_optimal_tiled_canvas(tuple(size), (height, width), least, most)
        return rows, columns

    @staticmethod
    def _tile_patches(model: nn.Module) -> int:
        """Patches of one tile, [CLS] left out."""
        vision = cast(Any, model).config.vision_config
        return prod(side // patch for side, patch in zip(vision.image_size, vision.patch_size, strict=True))
