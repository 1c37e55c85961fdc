"""What extraction asks of an encoder: all images at once where they are alike, one by one where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

Picture = Image.Image | Sequence[Image.Image]
"""A still picture, or a clip: frames that are sampled already, all of one size."""


@runtime_checkable
class VisionEncoder(Protocol):
    """Whatever turns images into vision layers, equally many tokens each."""

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Return all layers: (B, layers + 1, N, d_v), entry 0 the embeddings, any float dtype and device."""


@dataclass(frozen=True)
class EncodedPicture:
    """The vision layers of one image.

    Attributes:
        layers: (layers + 1, tokens, d_v), entry 0 the embeddings, any float dtype and device.
        grid: how the tokens lie, in the words of the model family: a few positive integers.
    """

    layers: Tensor
    grid: tuple[int, ...]


@runtime_checkable
class PictureEncoder(Protocol):
    """Whatever turns one image at a time into vision layers, as many tokens as it takes."""

    def tokens(self, image: Image.Image) -> int:
        """Say how many tokens an image is going to have, without encoding it.

        Extraction orders images by this and asks for disk space; a wrong number costs smaller shards, nothing else.
        """

    def encode_picture(self, image: Image.Image) -> EncodedPicture:
        """Return all layers of an image, and how its tokens lie."""


@runtime_checkable
class ClipEncoder(PictureEncoder, Protocol):
    """A picture encoder that takes clips too."""

    def clip_tokens(self, frames: Sequence[Image.Image]) -> int:
        """Say how many tokens a clip is going to have, as :meth:`tokens` does of an image."""

    def encode_clip(self, frames: Sequence[Image.Image]) -> EncodedPicture:
        """Return all layers of a clip, and how its tokens lie."""
