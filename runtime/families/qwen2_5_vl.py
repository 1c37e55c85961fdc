"""Qwen2.5-VL: a windowed vision transformer on pictures and videos of any size, packed into one axis of patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from claspkit.profiles.errors import UsageError
from claspkit.runtime.inputs_qwen2_5_vl import token_types
from claspkit.runtime.token_map import TokenMap, grid_view

from .base import Family, FamilyFacts, VisualInput, blank_pixels

REFERENCE_SIDE = 1008
"""Pixels along one side of the picture that budgets refer to: the 1296 visual tokens for which the paper states its
budgets of this model, at patches of 14 pixels merged two by two."""

_KINDS = (("image", "pixel_values", "image_grid_thw"), ("video", "pixel_values_videos", "video_grid_thw"))


class Qwen2_5VLFamily(Family):
    """``Qwen2_5_VLForConditionalGeneration``.

    A unit is one patch. The encoder walks a picture window by window, and so are the patches of a hidden state
    ordered; those of one picture stay together, as do the patches that the merger makes one token of. The model puts
    tokens back into raster order after the merger, so whatever replaces the merger's input keeps the order it has.
    One encoder serves both kinds: the model runs it on a batch's pictures first, then on its videos.
    """

    id: ClassVar[str] = "qwen2.5-vl"
    grids: ClassVar[Mapping[int, str]] = {3: "image", 4: "video"}
    model_type: ClassVar[str] = "qwen2_5_vl"

    def matches(self, model: nn.Module) -> bool:
        """A trunk with ``language_model`` and a ``visual`` that has ``blocks`` and a ``merger``."""
        trunk = getattr(model, "model", None)
        visual = getattr(trunk, "visual", None)
        return (
            getattr(getattr(model, "config", None), "model_type", None) == self.model_type
            and hasattr(trunk, "language_model")
            and all(hasattr(visual, name) for name in ("blocks", "merger"))
        )

    def facts(self, model: nn.Module) -> FamilyFacts:
        """Sizes from ``vision_config`` and ``text_config`` of config.json; tokens of a square reference picture."""
        config: Any = model.config
        vision, text = config.vision_config, config.text_config
        return FamilyFacts(
            vision_depth=vision.depth,
            vision_width=vision.hidden_size,
            decoder_depth=text.num_hidden_layers,
            decoder_width=text.hidden_size,
            ffn_width=text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            visual_tokens=(REFERENCE_SIDE // (vision.patch_size * vision.spatial_merge_size)) ** 2,
            default_layer=vision.depth,
            scaling="share",
            head_width=getattr(text, "head_dim", None),
            patches=(REFERENCE_SIDE // vision.patch_size) ** 2,
            vision_ffn=vision.intermediate_size,
            vision_mlp=3,
            vision_span=(vision.window_size // vision.patch_size) ** 2,
            vision_global=len(vision.fullatt_block_indexes),
        )

    def picture_patches(self, model: nn.Module, size: tuple[int, int]) -> int:
        """Both sides rounded to whole merged patches; the processor's limits on pixels are not applied."""
        vision = cast(Any, model).config.vision_config
        side = vision.patch_size * vision.spatial_merge_size
        rows, columns = (max(1, round(pixels / side)) for pixels in size)
        return int(rows * columns * vision.spatial_merge_size**2)

    def towers(self, model: nn.Module) -> dict[str, nn.ModuleList]:
        """The one encoder's blocks, under both names: it is run once for each kind that a batch has."""
        blocks = cast(nn.ModuleList, cast(Any, model).model.visual.blocks)
        return {kind: blocks for kind, *_ in _KINDS}

    def encode(self, model: nn.Module, pixel_values: Tensor, tower: str = "image") -> None:
        """Cut pictures (B, 3, H, W) or videos (B, frames, 3, H, W) into patches as processors do, and run the encoder.

        Raises:
            UsageError: H and W are no multiples of a merged patch's side, or the pixels are cut already.
        """
        times, rows, columns = self._merged_grid(model, pixel_values)
        vision = cast(Any, model).config.vision_config
        merge, patch, frames = vision.spatial_merge_size, vision.patch_size, vision.temporal_patch_size
        moving = pixel_values if pixel_values.ndim == 5 else pixel_values[:, None].expand(-1, frames, -1, -1, -1)
        cut = moving.unflatten(4, (columns, merge, patch)).unflatten(3, (rows, merge, patch))
        cut = cut.unflatten(1, (times, frames))
        patches = cut.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)  # (B, t, rows, columns, merge, merge, channels, ...)
        grid = torch.tensor([[times, rows * merge, columns * merge]] * len(moving), device=moving.device)
        cast(Any, model).model.visual(patches.flatten(6).flatten(0, 5), grid_thw=grid)

    def unit_patches(self, model: nn.Module, tower: str = "image") -> int:
        """A unit is a patch."""
        return 1

    def stand_ins(self, model: nn.Module, tower: str, grids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Packed patches (sum of t h w, values of a patch), and the first three numbers of each grid, (B, 3)."""
        vision = cast(Any, model).config.vision_config
        device = cast(Any, model).device
        sizes = torch.tensor([list(grid[:3]) for grid in grids], device=device)
        values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        _, pixels, grid_name = next(kind for kind in _KINDS if kind[0] == tower)
        return {pixels: blank_pixels(model, int(sizes.prod(-1).sum()), values), grid_name: sizes}

    def token_map(
        self, model: nn.Module, grid: Sequence[int], size: tuple[int, int], image_processor: Any
    ) -> TokenMap:
        """Merged patches over the whole picture, raster order; of a clip a grid for every temporal patch."""
        tower, vision = self.record_tower(grid), cast(Any, model).config.vision_config
        merge, depth = vision.spatial_merge_size, vision.temporal_patch_size
        times, rows, columns = grid[0], grid[1] // merge, grid[2] // merge
        if tower == "image":
            return TokenMap((grid_view("picture", rows, columns),))
        spans = [(depth * time + 1, min(depth * (time + 1), grid[3])) for time in range(times)]
        names = [f"frame {begin}" if begin == end else f"frames {begin} to {end}" for begin, end in spans]
        return TokenMap(
            tuple(grid_view(name, rows, columns, time * rows * columns) for time, name in enumerate(names))
        )

    def replayed(self, model: nn.Module, patches: Mapping[str, Tensor]) -> dict[nn.Module, Callable[..., Any]]:
        """The patch embedding gives out the patches and every block what it takes in.

        Windows, merger and raster order stay the encoder's own.
        """
        visual = cast(Any, model).model.visual
        turns = cycle([patches[kind] for kind, *_ in _KINDS if kind in patches])

        def embed(pixels: Tensor) -> Tensor:
            given = next(turns)
            if len(given) != len(pixels):
                raise UsageError(
                    f"cached features of {len(given)} patches were given, the model asks for those of {len(pixels)}: "
                    "give one record per picture of the batch, and one sequence per prompt"
                )
            return given

        return {visual.patch_embed: embed, **dict.fromkeys(visual.blocks, _handed_on)}

    def text_extras(self, model: nn.Module, input_ids: Tensor) -> dict[str, Tensor]:
        """The token types from which the model computes positions."""
        return {"mm_token_type_ids": token_types(input_ids, *self.placeholder_ids(model))}

    def patch_tokens(self, model: nn.Module, hidden: Tensor, tower: str = "image") -> Tensor:
        """Nothing is split off; every patch is a unit of its own: (U, D) -> (U, 1, D)."""
        return hidden[:, None]

    def projector_input(self, model: nn.Module, patches: Tensor, tower: str = "image") -> Tensor:
        """Pack the units again: (U, 1, D) -> (U, D)."""
        return patches[:, 0]

    def projector(self, model: nn.Module) -> nn.Module:
        """``visual.merger``."""
        return cast(nn.Module, cast(Any, model).model.visual.merger)

    def trunk(self, model: nn.Module) -> nn.Module:
        """``model.model``."""
        return cast(nn.Module, model.model)

    def decoder(self, model: nn.Module) -> nn.Module:
        """``language_model``."""
        return cast(nn.Module, cast(Any, model).model.language_model)

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """``language_model.layers``."""
        return cast(nn.ModuleList, cast(Any, model).model.language_model.layers)

    def placeholder_ids(self, model: nn.Module) -> tuple[int, ...]:
        """``image_token_id`` and ``video_token_id`` of config.json."""
        config: Any = model.config
        return int(config.image_token_id), int(config.video_token_id)

    def visual_inputs(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[VisualInput, ...]:
        """Pictures by ``image_grid_thw`` (n, 3) and videos by ``video_grid_thw`` (n, 3), both in patches.

        Raises:
            UsageError: pixels without their grid.
        """
        per_token = cast(Any, model).config.vision_config.spatial_merge_size ** 2
        found = []
        for (kind, pixels, grid), token_id in zip(_KINDS, self.placeholder_ids(model), strict=True):
            if inputs.get(pixels) is None:
                continue
            if inputs.get(grid) is None:
                raise UsageError(f"{pixels} came without {grid}; pass everything that the image processor returned")
            patches = [int(count) for count in inputs[grid].prod(-1).tolist()]
            found.append(VisualInput(kind, token_id, tuple(n // per_token for n in patches), tuple(patches)))
        return tuple(found)

    def vision_layers(self, model: nn.Module, pixel_values: Tensor, tower: str = "image") -> Tensor:
        """As :meth:`Family.vision_layers`, patches in the order in which the processor packs them.

        ``pixel_values`` may be (B, frames, 3, H, W) too: videos whose frames fill whole temporal patches.
        """
        layers = super().vision_layers(model, pixel_values, tower)  # (L + 1, B * P, 1, D)
        vision = cast(Any, model).config.vision_config
        window = vision.window_size // vision.spatial_merge_size // vision.patch_size
        times, rows, columns = self._merged_grid(model, pixel_values)
        order = window_order(rows, columns, window).to(layers.device)  # windows do not reach through time
        walked = layers.view(layers.shape[0], len(pixel_values) * times, len(order), -1, layers.shape[-1])
        packed: Tensor = walked[:, :, order.argsort()].flatten(1, 3)
        return packed.reshape(len(packed), len(pixel_values), -1, packed.shape[-1])

    def project(self, model: nn.Module, fused: Tensor) -> Tensor:
        """Merge patches (B, P, D) in the order of :meth:`vision_layers` into tokens (B, N, decoder width)."""
        merged: Tensor = self.projector(model)(fused.flatten(0, 1))
        return merged.view(len(fused), -1, merged.shape[-1])

    @staticmethod
    def _merged_grid(model: nn.Module, pixel_values: Tensor) -> tuple[int, int, int]:
        """Visual tokens along time, height and width of pictures (B, 3, H, W) or videos (B, frames, 3, H, W)."""
        vision = cast(Any, model).config.vision_config
        side = vision.patch_size * vision.spatial_merge_size
        height, width = pixel_values.shape[-2:]
        frames = pixel_values.shape[1] if pixel_values.ndim == 5 else vision.temporal_patch_size
        if pixel_values.ndim not in (4, 5) or height % side or width % side or frames % vision.temporal_patch_size:
            raise UsageError(
                f"this encoder takes pictures (B, 3, H, W) with sides that are multiples of {side} pixels, or videos "
                f"(B, frames, 3, H, W) with a multiple of {vision.temporal_patch_size} frames, got "
                f"{tuple(pixel_values.shape)}"
            )
        return frames // vision.temporal_patch_size, height // side, width // side


def _handed_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    """A block that does nothing."""
    return hidden_states


def window_order(rows: int, columns: int, window: int) -> Tensor:
    """Merged patches of one picture in the order of a walk through its windows.

    Args:
        rows: merged patches from top to bottom.
        columns: merged patches from left to right.
        window: side of a window in merged patches; windows at the right and lower edges may be smaller.

    Returns:
        (rows * columns,) int64, raster indices: window after window, and raster order inside each.
    """
    across = -(-columns // window)
    owner = (torch.arange(rows) // window)[:, None] * across + torch.arange(columns) // window
    return owner.flatten().argsort(stable=True)
