"""LLaVA-1.5: CLIP tower, two-layer projector, Llama decoder, one grid of patches per picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from claspkit.profiles.errors import UsageError
from claspkit.runtime.token_map import CLS, TokenMap, TokenView, grid_view

from .base import Family, FamilyFacts, VisualInput, blank_pixels, parts


class LlavaFamily(Family):
    """``LlavaForConditionalGeneration`` with an integer ``vision_feature_layer`` and a CLIP tower."""

    id: ClassVar[str] = "llava"
    one_grid: ClassVar[bool] = True
    grids: ClassVar[Mapping[int, str]] = {0: "image"}
    model_type: ClassVar[str] = "llava"

    def matches(self, model: nn.Module) -> bool:
        """A trunk with ``vision_tower``, ``multi_modal_projector`` and ``language_model``, and one feature layer."""
        config: Any = getattr(model, "config", None)
        trunk = getattr(model, "model", None)
        return (
            getattr(config, "model_type", None) == self.model_type
            and isinstance(getattr(config, "vision_feature_layer", None), int)
            and all(hasattr(trunk, name) for name in ("vision_tower", "multi_modal_projector", "language_model"))
            and config.vision_config.model_type == "clip_vision_model"
        )

    def facts(self, model: nn.Module) -> FamilyFacts:
        """Sizes from ``vision_config``, ``text_config`` and ``vision_feature_layer`` of config.json."""
        config: Any = model.config
        vision, text = config.vision_config, config.text_config
        depth, tokens = vision.num_hidden_layers, self.tokens_per_unit(model)
        return FamilyFacts(
            vision_depth=depth,
            vision_width=vision.hidden_size,
            decoder_depth=text.num_hidden_layers,
            decoder_width=text.hidden_size,
            ffn_width=text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            visual_tokens=tokens,
            default_layer=config.vision_feature_layer % (depth + 1),
            head_width=getattr(text, "head_dim", None),
            patches=tokens,
            vision_ffn=vision.intermediate_size,
            vision_span=tokens,
        )

    def tokens_per_unit(self, model: nn.Module) -> int:
        """Visual tokens of one grid of patches."""
        vision = cast(Any, model).config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2) + (0 if self.drops_cls(model) else 1)

    def towers(self, model: nn.Module) -> dict[str, nn.ModuleList]:
        """The CLIP encoder's layers; the tower carries them below ``vision_model`` in some releases."""
        return {"image": parts(cast(Any, model).model.vision_tower, "vision_model").encoder.layers}

    def encoder(self, model: nn.Module, tower: str = "image") -> nn.Module:
        """The module that the blocks of a tower are in, ``vision_tower``."""
        return cast(nn.Module, cast(Any, model).model.vision_tower)

    def encode(self, model: nn.Module, pixel_values: Tensor, tower: str = "image") -> None:
        """Call the tower itself: ``get_image_features`` runs it too, but also the projector."""
        self.encoder(model, tower)(pixel_values)

    def unit_patches(self, model: nn.Module, tower: str = "image") -> int:
        """As many as the decoder sees."""
        return self.tokens_per_unit(model)

    def patch_tokens(self, model: nn.Module, hidden: Tensor, tower: str = "image") -> Tensor:
        """Drop [CLS] where ``vision_feature_select_strategy`` is "default"."""
        return hidden[:, 1:] if self.drops_cls(model) else hidden

    def projector(self, model: nn.Module) -> nn.Module:
        """``multi_modal_projector``."""
        return cast(nn.Module, cast(Any, model).model.multi_modal_projector)

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
        """``image_token_id`` of config.json."""
        return (int(cast(Any, model).config.image_token_id),)

    def visual_inputs(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[VisualInput, ...]:
        """One unit and one grid of tokens per entry of ``pixel_values`` (B, 3, H, W)."""
        pixels = inputs.get("pixel_values")
        if pixels is None:
            return ()
        count = pixels.shape[0]
        tokens = (self.tokens_per_unit(model),) * count
        return (VisualInput("image", self.placeholder_ids(model)[0], tokens, (1,) * count),)

    def token_map(
        self, model: nn.Module, grid: Sequence[int], size: tuple[int, int], image_processor: Any
    ) -> TokenMap:
        """One grid over the middle of the picture, as the image processor scales and crops it."""
        self.record_tower(grid)
        special = self.tokens_per_unit(model) - self.grid_side(model) ** 2
        placeless = {CLS: tuple(range(special))} if special else {}
        return TokenMap((self.unit_view(model, "picture", special),), placeless, cropped=True)

    def unit_view(self, model: nn.Module, name: str, first: int) -> TokenView:
        """The patches of one unit in raster order; pixels that fill no whole patch are seen by none."""
        vision, side = cast(Any, model).config.vision_config, self.grid_side(model)
        end = side * vision.patch_size / vision.image_size
        return grid_view(name, side, side, first, window=(0.0, 0.0, end, end))

    @staticmethod
    def grid_side(model: nn.Module) -> int:
        """Patches along either side of a unit."""
        vision = cast(Any, model).config.vision_config
        return int(vision.image_size // vision.patch_size)

    def stand_ins(self, model: nn.Module, tower: str, grids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pixels (B, 3, H, W)."""
        side = cast(Any, model).config.vision_config.image_size
        return {"pixel_values": blank_pixels(model, len(grids), 3, side, side)}

    def replayed(self, model: nn.Module, patches: Mapping[str, Tensor]) -> dict[nn.Module, Callable[..., Any]]:
        """Each tower's own forward gives way to one that puts out the patches as every layer."""
        return {self.encoder(model, tower): self._giving(model, tower, given) for tower, given in patches.items()}

    def _giving(self, model: nn.Module, tower: str, patches: Tensor) -> Callable[..., Any]:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        hidden = patches.unflatten(0, (-1, self.unit_patches(model, tower)))
        left_out = self.patch_tokens(model, hidden, tower).shape[1] != hidden.shape[1]
        if left_out:  # a [CLS] token that the model takes off again
            hidden = torch.cat((hidden.new_zeros(len(hidden), 1, hidden.shape[2]), hidden), dim=1)
        layers = (hidden,) * (self.facts(model).vision_depth + 1)

        def forward(pixel_values: Tensor, *_: Any, **__: Any) -> Any:
            if len(pixel_values) != len(hidden):
                raise UsageError(
                    f"cached features of {len(hidden)} tiles or frames were given, the model asks for those of "
                    f"{len(pixel_values)}: give one record per picture of the batch, and one sequence per prompt"
                )
            return BaseModelOutputWithPooling(last_hidden_state=cast(Any, hidden), hidden_states=cast(Any, layers))

        return forward

    def cls_attention(self, model: nn.Module, tower: str) -> nn.Module:
        """The attention of the block whose output the stock model reads."""
        return cast(nn.Module, self.towers(model)[tower][self.facts(model).default_layer - 1].self_attn)

    @staticmethod
    def drops_cls(model: nn.Module) -> bool:
        """Whether [CLS] is left out of the visual tokens."""
        return bool(cast(Any, model).config.vision_feature_select_strategy == "default")
