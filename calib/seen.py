"""A picture as its visual tokens divide it: what to draw them on, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from claspkit.runtime.inputs import batch_inputs, picture_grid, picture_pixels
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.token_map import TokenMap

SHOWN_SIDE = 768
"""Pixels along the longer side, at most, of a picture that tokens are drawn on for the screen."""


def see(loaded: LoadedModel, picture: Image.Image, side: int = SHOWN_SIDE) -> tuple[Image.Image, TokenMap]:
    """The picture that a token map is of, and the map.

    Args:
        loaded: the model.
        picture: RGB, upright.
        side: as of :func:`shown`.

    Raises:
        BadDataError, ValueError: as of :func:`claspkit.runtime.inputs.batch_inputs`.
    """
    grid = picture_grid(loaded, batch_inputs(loaded, [picture], [""]))
    tokens = token_map(loaded, picture, grid)
    return shown(loaded, picture, tokens, side), tokens


def token_map(loaded: LoadedModel, picture: Image.Image, grid: Sequence[int]) -> TokenMap:
    """Where the visual tokens of a picture lie, whose cached record has this grid.

    Raises:
        MismatchError: the grid is not that of this picture.
    """
    size = (picture.height, picture.width)
    return loaded.family.token_map(loaded.model, grid, size, loaded.processor.image_processor)


def shown(loaded: LoadedModel, picture: Image.Image, tokens: TokenMap, side: int) -> Image.Image:
    """The picture that a token map is of: as the model sees it if it is cropped, else its sides ``side`` at most."""
    if tokens.cropped:
        return seen_picture(loaded, picture)
    smaller = picture.copy()
    smaller.thumbnail((side, side), Image.Resampling.BICUBIC)
    return smaller


def seen_picture(loaded: LoadedModel, picture: Image.Image) -> Image.Image:
    """The picture as a model that sees one square of it gets it: scaled, cropped, its normalisation undone."""
    processor = loaded.processor.image_processor
    values = picture_pixels(batch_inputs(loaded, [picture], [""]))[0].float().cpu()
    mean, std = (
        torch.tensor(processor.image_mean)[:, None, None],
        torch.tensor(processor.image_std)[:, None, None],
    )
    seen = ((values * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(seen)
