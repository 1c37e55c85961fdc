"""Eight-bit features: whole numbers from -127 to 127, and a scale per layer and channel of an image.

x is stored as q = round(x / s) with s = max |x| / 127 over the image's tokens, so that no channel with large values
takes the others' precision away; x~ = q s differs from x by s / 2 at most, and by nothing where |x| is the largest.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LEVELS: Final = 127

_ROWS = 64  # at a time: their products in float32 stay in the processor's cache
_LARGEST = float(np.finfo(np.float16).max) / LEVELS * (1 + 2.0**-20)


def quantise(features: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round finite features to whole multiples of their channels' scales.

    Args:
        features: (layers, tokens, width) float16, without NaN or infinity.

    Returns:
        (layers, tokens, width) int8 values from -127 to 127, and (layers, width) float32 scales, 1 for a channel that
        is zero everywhere.
    """
    values = np.empty(features.shape, np.int8)
    scales = np.empty((features.shape[0], features.shape[2]), np.float32)
    work = np.empty(features.shape[1:], np.float32)
    for layer, source in enumerate(features):
        # Without their sign bits, the patterns of finite numbers are ordered as the numbers' magnitudes are.
        patterns = (source.view(np.uint16) & np.uint16(0x7FFF)).max(axis=0)
        largest = patterns.view(np.float16).astype(np.float32)
        scales[layer] = np.where(largest > 0, largest / np.float32(LEVELS), np.float32(1))
        np.divide(source, scales[layer], out=work)
        np.copyto(values[layer], np.rint(work, out=work), casting="unsafe")
    return values, scales


def restore(values: NDArray[np.int8], scales: NDArray[np.float32], out: NDArray[np.float16]) -> None:
    """Multiply (tokens, width) whole numbers with (width,) scales into ``out``, float16, rounding once."""
    work = np.empty((min(_ROWS, len(values)), values.shape[1]), np.float32)
    for start in range(0, len(values), _ROWS):
        block = values[start : start + _ROWS]
        out[start : start + _ROWS] = np.multiply(block, scales, out=work[: len(block)])


def are_scales(scales: NDArray[np.float32]) -> bool:
    """Whether scales can be what :func:`quantise` makes: positive, and within float16 when multiplied with 127."""
    return bool(((scales > 0) & (scales <= _LARGEST)).all())  # a NaN is neither
