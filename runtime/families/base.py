"""What a model family must say about itself: where its vision layers, projector and decoder are.

A family is stateless; every method takes the model. It is found by looking at the model's structure, never at a
version string. Layer indices follow ``hidden_states``: 0 is the embedding output, L the output of the last block.

A *picture* is whatever one placeholder run stands for: an image, or a video. A *unit* is one entry of the leading
axis of the vision encoder's hidden states: a tile, a frame, or in a packed encoder a patch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from claspkit.profiles.budget import Scaling
from claspkit.profiles.errors import MismatchError, UsageError
from claspkit.runtime.capture import capture
from claspkit.runtime.token_map import TokenMap


@dataclass(frozen=True)
class FamilyFacts:
    """Sizes read from the model's config.

    Attributes:
        vision_depth: vision blocks, so layers 0..vision_depth exist.
        vision_width: channels of a vision layer.
        decoder_depth: decoder layers.
        decoder_width: channels of the decoder.
        ffn_width: inner width of the decoder's gated MLP.
        heads: attention heads of the decoder.
        kv_heads: key/value heads of the decoder.
        visual_tokens: visual tokens at the decoder's input that budgets refer to; where a model takes pictures of
            any size, those of its reference picture.
        default_layer: the vision layer the stock model reads.
        scaling: "absolute" where a budget is a number of tokens per picture, "share" where pictures differ so much
            in size that a budget is the share ``keep / visual_tokens`` of every picture's own tokens.
        head_width: channels of one attention head of the decoder, None for ``decoder_width / heads``.
        patches: patch tokens per vision layer that the projector takes, of the picture that ``visual_tokens`` is of.
        vision_ffn: inner width of a vision block's MLP.
        vision_mlp: weight matrices of that MLP: 2, or 3 where it is gated.
        vision_span: patch tokens that attend to one another in a vision block: those of a tile, a frame or a window.
        vision_global: vision blocks in which, instead, all patch tokens of the picture attend to one another.
    """

    vision_depth: int
    vision_width: int
    decoder_depth: int
    decoder_width: int
    ffn_width: int
    heads: int
    kv_heads: int
    visual_tokens: int
    default_layer: int
    scaling: Scaling = "absolute"
    head_width: int | None = None
    patches: int = 0
    vision_ffn: int = 0
    vision_mlp: int = 2
    vision_span: int = 0
    vision_global: int = 0


@dataclass(frozen=True)
class VisualInput:
    """The pictures of one kind in a batch, in the order in which the model computes their features.

    Attributes:
        tower: which of :meth:`Family.towers` encodes them.
        token_id: the placeholder that one visual token of theirs replaces.
        tokens: visual tokens at the decoder's input, per picture.
        units: entries of the encoder's leading axis, per picture.
    """

    tower: str
    token_id: int
    tokens: tuple[int, ...]
    units: tuple[int, ...]


class Family(ABC):
    """One model family. A new one is a new file here and one row in ``FAMILIES``."""

    id: ClassVar[str]
    one_grid: ClassVar[bool] = False
    """Whether every picture is one grid of the same size, so that its layers can be cached and fed back as they are."""
    grids: ClassVar[Mapping[int, str]] = {}
    """Numbers in the grid of a cached record -> the encoder its layers are of; the table in docs/format-cache.md."""

    @abstractmethod
    def matches(self, model: nn.Module) -> bool:
        """Return whether ``model`` has this family's structure."""

    @abstractmethod
    def facts(self, model: nn.Module) -> FamilyFacts:
        """Return the sizes of ``model``, from its config."""

    def picture_patches(self, model: nn.Module, size: tuple[int, int]) -> int:
        """Return the patch tokens per vision layer of a picture of ``size`` (height, width) in pixels.

        Only the config is asked: limits that stand in the image processor's settings alone are taken at the
        defaults of its class.
        """
        return self.facts(model).patches

    @abstractmethod
    def towers(self, model: nn.Module) -> dict[str, nn.ModuleList]:
        """Return the blocks of every vision encoder by name ("image", "video").

        Block l - 1 puts out layer l, block 0 takes in layer 0, all of shape (U, special + P, D), or (U, D) where the
        encoder packs the patches of all pictures into one axis.
        """

    @abstractmethod
    def encode(self, model: nn.Module, pixel_values: Tensor, tower: str = "image") -> None:
        """Run an encoder on (B, 3, H, W) pixels, so that hooks on its blocks see every layer."""

    @abstractmethod
    def unit_patches(self, model: nn.Module, tower: str = "image") -> int:
        """Return P, the patch tokens that :meth:`patch_tokens` leaves of one unit."""

    @abstractmethod
    def patch_tokens(self, model: nn.Module, hidden: Tensor, tower: str = "image") -> Tensor:
        """Split off the special tokens that the projector does not take: (U, special + P, D) -> (U, P, D)."""

    def projector_input(self, model: nn.Module, patches: Tensor, tower: str = "image") -> Tensor:
        """Arrange fused patch tokens as the projector takes them; the same tensor where nothing is to be done."""
        return patches

    @abstractmethod
    def projector(self, model: nn.Module) -> nn.Module:
        """Return the module that maps patch tokens into the decoder's space; its first input is what we fuse."""

    @abstractmethod
    def trunk(self, model: nn.Module) -> nn.Module:
        """Return the module whose forward takes ``input_ids`` and pixels and calls the decoder."""

    @abstractmethod
    def decoder(self, model: nn.Module) -> nn.Module:
        """Return the decoder: it takes ``inputs_embeds`` and runs :meth:`decoder_layers`."""

    @abstractmethod
    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the decoder's layers, each with a ``self_attn`` that has ``q_proj`` and ``k_proj``."""

    @abstractmethod
    def placeholder_ids(self, model: nn.Module) -> tuple[int, ...]:
        """Return the ids of the placeholder tokens that visual tokens replace."""

    @abstractmethod
    def visual_inputs(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[VisualInput, ...]:
        """Describe the pictures among a model call's keyword arguments; () where it has none.

        Args:
            model: the model.
            inputs: what ``forward`` or ``generate`` was called with (``pixel_values``, grids, sizes ...).
        """

    @abstractmethod
    def token_map(
        self, model: nn.Module, grid: Sequence[int], size: tuple[int, int], image_processor: Any
    ) -> TokenMap:
        """Say where the visual tokens of one picture or clip lie.

        Args:
            model: the model.
            grid: of its cached record; :func:`claspkit.runtime.inputs.picture_grid` has it of a picture's inputs.
            size: height and width in pixels, as given to the image processor; of a clip, those of its frames.
            image_processor: the model's; where tiles are cut may depend on its settings.

        Returns:
            As many tokens as :meth:`visual_inputs` counts, numbered as they stand in the prompt.

        Raises:
            MismatchError: records of this family have no such grid, or not those of a picture of this size.
        """

    def record_tower(self, grid: Sequence[int]) -> str:
        """Return the encoder whose layers a cached record with this grid holds.

        Raises:
            MismatchError: records of this family have no such grid.
        """
        if len(grid) not in self.grids:
            counts = " or ".join(map(str, self.grids))
            raise MismatchError(
                f"a cached record has the grid {list(grid)}; those of family {self.id!r} have {counts} numbers. The "
                "features were made for another model, or by another version: extract them again into another folder"
            )
        return self.grids[len(grid)]

    @abstractmethod
    def stand_ins(self, model: nn.Module, tower: str, grids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return what ``forward`` takes for pictures of which only the records' grids are at hand.

        Args:
            model: the model.
            tower: the encoder that all these records are of.
            grids: one per picture.

        Returns:
            Sizes or grids as the processor gives them, and blank pixels of the right shape that take no memory.
        """

    @abstractmethod
    def replayed(self, model: nn.Module, patches: Mapping[str, Tensor]) -> dict[nn.Module, Callable[..., Any]]:
        """Return forwards under which the encoders are not run and give out cached patch tokens instead.

        Everything behind an encoder stays the model's own code.

        Args:
            model: the model.
            patches: encoder -> (tokens, D) of all its pictures, one record after the other.

        Returns:
            Module -> what to call in place of its forward.
        """

    def placeholder_run(self, model: nn.Module, tokenizer: Any, token: str, tokens: int) -> str:
        """Return the text that one ``token`` of a chat becomes for a picture of so many visual tokens."""
        return token * tokens

    def text_extras(self, model: nn.Module, input_ids: Tensor) -> dict[str, Tensor]:
        """Return what ``forward`` wants to know of ``input_ids`` (B, S) besides the attention mask."""
        return {}

    def cls_attention(self, model: nn.Module, tower: str) -> nn.Module:
        """Return the attention module whose [CLS] row scores patches, the one of the layer the stock model reads.

        It has ``q_proj`` and ``k_proj`` and a ``num_heads``.

        Raises:
            UsageError: the encoder has no [CLS] token.
        """
        raise UsageError(
            f"the vision encoder of family {self.id!r} has no [CLS] token: saliency 'cls', and with it a stage before "
            "the decoder, cannot be used; take saliency 'text' or 'last'"
        )

    def cls_tokens(self, model: nn.Module, scores: Tensor, inputs: Mapping[str, Any], tower: str) -> list[Tensor]:
        """Arrange [CLS] attention over patches as the decoder's visual tokens are arranged.

        Args:
            model: the model.
            scores: (U, special + P), attention of the [CLS] row of every unit to every encoder position.
            inputs: the call's keyword arguments, as in :meth:`visual_inputs`.
            tower: the encoder.

        Returns:
            One (tokens,) tensor per picture; 0 for tokens that stand for no patch.
        """
        patches = self.patch_tokens(model, scores[:, :, None], tower)
        return list(self.projector_input(model, patches, tower).mean(dim=-1).unbind(0))

    def vision_layers(self, model: nn.Module, pixel_values: Tensor, tower: str = "image") -> Tensor:
        """Return every vision layer of a batch of pictures of one size, or of the frames of a video.

        Args:
            model: the model, in eval mode.
            pixel_values: (B, 3, H, W) from the model's own image processor.
            tower: the encoder.

        Returns:
            (L + 1, B, P, D) patch tokens in the model's dtype; entry 0 is the embedding output.
        """
        depth = self.facts(model).vision_depth
        with torch.inference_mode(), capture(self.towers(model)[tower], range(depth + 1)) as seen:
            self.encode(model, pixel_values, tower)
            return torch.stack([self.patch_tokens(model, seen[layer], tower) for layer in range(depth + 1)])

    def project(self, model: nn.Module, fused: Tensor) -> Tensor:
        """Map fused patch tokens (B, P, D) to decoder-input visual tokens (B, N, decoder width)."""
        projected: Tensor = self.projector(model)(self.projector_input(model, fused))
        return projected


def parts(module: Any, *names: str) -> Any:
    """Follow attribute names down a module, skipping those that this release of transformers does not have."""
    for name in names:
        module = getattr(module, name, module)
    return module


def blank_pixels(model: Any, *shape: int) -> Tensor:
    """Zeros of ``shape`` in the model's dtype, on its device, that take the memory of one number."""
    return torch.zeros((), dtype=model.dtype, device=model.device).expand(shape)


def repeated(counts: Sequence[int]) -> list[int]:
    """Index of the picture every unit belongs to: (2, 1) -> [0, 0, 1]."""
    return [index for index, count in enumerate(counts) for _ in range(count)]
