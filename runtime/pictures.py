"""What a picture must be like before any model's image processor sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from claspkit.profiles.errors import BadDataError

if TYPE_CHECKING:  # the runtime also runs where Pillow is not installed
    from PIL import Image

MAX_RATIO: Final = 200
"""Longer side over shorter side, at most; the bound that Qwen2.5-VL's own processor has.

Processors that scale the shorter side up to the model's before they crop need memory in proportion to it.
"""


def check_sides(size: tuple[int, int]) -> None:
    """Refuse a size, in pixels, that is far too long and thin.

    Raises:
        BadDataError: the longer side is more than MAX_RATIO times the shorter one.
    """
    if max(size) > MAX_RATIO * min(size):
        raise BadDataError(
            f"{size[0]} x {size[1]} pixels are too long and thin; the longer side may be {MAX_RATIO} times the shorter "
            "one. Crop it or cut it into several pictures"
        )


def check_pictures(pictures: Iterable[Image.Image]) -> None:
    """Check the sides of every picture; errors as of :func:`check_sides`."""
    for picture in pictures:
        check_sides(picture.size)
