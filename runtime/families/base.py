"""What a model family must say about itself: where its vision layers, projector and decoder are.

A family is stateless; every method takes the model. It is found by looking at the model's structure, never at a
version string. Layer indices follow ``hidden_states``: 0 is the embedding output, L the output of the last block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


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
        visual_tokens: patch tokens of one picture at the decoder's input.
        default_layer: the vision layer the stock model reads.
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


class Family(ABC):
    """One model family. A new one is a new file here and one row in ``FAMILIES``."""

    id: ClassVar[str]

    @abstractmethod
    def matches(self, model: nn.Module) -> bool:
        """Return whether ``model`` has this family's structure."""

    @abstractmethod
    def facts(self, model: nn.Module) -> FamilyFacts:
        """Return the sizes of ``model``, from its config."""

    @abstractmethod
    def vision_blocks(self, model: nn.Module) -> nn.ModuleList:
        """Return the vision encoder's blocks; block l - 1 puts out layer l, block 0 takes in layer 0."""

    @abstractmethod
    def encode(self, model: nn.Module, pixel_values: Tensor) -> None:
        """Run the vision encoder on (B, 3, H, W) pixels, so that hooks on its blocks see every layer."""

    @abstractmethod
    def patch_tokens(self, model: nn.Module, hidden: Tensor) -> Tensor:
        """Split the special tokens off one vision layer: (B, special + N, D) -> (B, N, D)."""

    @abstractmethod
    def projector(self, model: nn.Module) -> nn.Module:
        """Return the module that maps (B, N, D) patch tokens into the decoder's space."""

    @abstractmethod
    def trunk(self, model: nn.Module) -> nn.Module:
        """Return the module whose forward takes ``input_ids`` and ``pixel_values`` and calls the decoder."""

    @abstractmethod
    def decoder(self, model: nn.Module) -> nn.Module:
        """Return the decoder: it takes ``inputs_embeds`` and runs :meth:`decoder_layers`."""

    @abstractmethod
    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the decoder's layers, each with a ``self_attn`` that has ``q_proj`` and ``k_proj``."""

    @abstractmethod
    def image_token_id(self, model: nn.Module) -> int:
        """Return the id of the placeholder token that a visual token replaces."""

    def vision_layers(self, model: nn.Module, pixel_values: Tensor) -> Tensor:
        """Return every vision layer of a batch of pictures.

        Args:
            model: the model, in eval mode.
            pixel_values: (B, 3, H, W) from the model's own image processor.

        Returns:
            (L + 1, B, N, D) patch tokens in the model's dtype; entry 0 is the embedding output.
        """
        depth = self.facts(model).vision_depth
        with torch.inference_mode(), self.capture(model, range(depth + 1)) as seen:
            self.encode(model, pixel_values)
            return torch.stack([self.patch_tokens(model, seen[layer]) for layer in range(depth + 1)])

    def project(self, model: nn.Module, fused: Tensor) -> Tensor:
        """Map fused patch tokens (B, N, D) to decoder-input visual tokens (B, N, decoder width)."""
        projected: Tensor = self.projector(model)(fused)
        return projected

    @contextmanager
    def capture(self, model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        """Keep the output of some vision layers of the next encoder pass, by hooks that go away with the block.

        Yields a dict that fills with layer index -> (B, special + N, D) while the encoder runs.
        """
        blocks = self.vision_blocks(model)
        seen: dict[int, Tensor] = {}
        handles = []

        def keep_input(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            value = args[0] if args else kwargs["hidden_states"]
            assert isinstance(value, Tensor)
            seen[0] = value

        def keep_output(layer: int) -> object:
            def hook(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
                seen[layer] = output if isinstance(output, Tensor) else output[0]

            return hook

        try:
            for layer in layers:
                if layer == 0:
                    handles.append(blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True))
                else:
                    handles.append(blocks[layer - 1].register_forward_hook(keep_output(layer)))  # type: ignore[arg-type]
            yield seen
        finally:
            for handle in handles:
                handle.remove()
