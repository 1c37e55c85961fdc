"""LLaVA-1.5: CLIP tower, two-layer projector, Llama decoder, one grid of patches per picture."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from torch import Tensor, nn

from .base import Family, FamilyFacts


class LlavaFamily(Family):
    """``LlavaForConditionalGeneration`` with an integer ``vision_feature_layer`` and a CLIP tower."""

    id: ClassVar[str] = "llava"

    def matches(self, model: nn.Module) -> bool:
        """A trunk with ``vision_tower``, ``multi_modal_projector`` and ``language_model``, and one feature layer."""
        config: Any = getattr(model, "config", None)
        trunk = getattr(model, "model", None)
        return (
            getattr(config, "model_type", None) == "llava"
            and isinstance(getattr(config, "vision_feature_layer", None), int)
            and all(hasattr(trunk, name) for name in ("vision_tower", "multi_modal_projector", "language_model"))
            and config.vision_config.model_type == "clip_vision_model"
        )

    def facts(self, model: nn.Module) -> FamilyFacts:
        """Sizes from ``vision_config``, ``text_config`` and ``vision_feature_layer`` of config.json."""
        config: Any = model.config
        vision, text = config.vision_config, config.text_config
        depth = vision.num_hidden_layers
        patches = (vision.image_size // vision.patch_size) ** 2
        return FamilyFacts(
            vision_depth=depth,
            vision_width=vision.hidden_size,
            decoder_depth=text.num_hidden_layers,
            decoder_width=text.hidden_size,
            ffn_width=text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            visual_tokens=patches + (0 if self._drops_cls(model) else 1),
            default_layer=config.vision_feature_layer % (depth + 1),
        )

    def vision_blocks(self, model: nn.Module) -> nn.ModuleList:
        """The CLIP encoder's layers; the tower carries them below ``vision_model`` in some releases."""
        tower: Any = self._tower(model)
        return cast(nn.ModuleList, getattr(tower, "vision_model", tower).encoder.layers)

    def encode(self, model: nn.Module, pixel_values: Tensor) -> None:
        """Call the tower itself: ``get_image_features`` runs it too, but also the projector."""
        self._tower(model)(pixel_values)

    def patch_tokens(self, model: nn.Module, hidden: Tensor) -> Tensor:
        """Drop [CLS] where ``vision_feature_select_strategy`` is "default"."""
        return hidden[:, 1:] if self._drops_cls(model) else hidden

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

    def image_token_id(self, model: nn.Module) -> int:
        """``image_token_id`` of config.json."""
        return int(cast(Any, model).config.image_token_id)

    @staticmethod
    def _tower(model: nn.Module) -> nn.Module:
        return cast(nn.Module, cast(Any, model).model.vision_tower)

    @staticmethod
    def _drops_cls(model: nn.Module) -> bool:
        return bool(cast(Any, model).config.vision_feature_select_strategy == "default")
