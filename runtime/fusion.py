"""Layer fusion: a convex combination of vision-layer outputs (CLASP Eq. 8-10).

Shape alphabet of the project: B samples, L vision layers given, N visual tokens, D channels, R tokens kept,
K cluster slots, T reference rows, H heads, S sequence positions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fuse(layers: Tensor, weights: Tensor) -> Tensor:
    """Fuse vision layers with one weight row per sample (Eq. 9): ``F_i = sum_l alpha_l V^(l)_i``.

    Args:
        layers: (L, B, N, D), L >= 1, finite, any floating dtype and strides.
        weights: (B, L), rows on the simplex.

    Returns:
        (B, N, D) in the dtype of ``layers``. The sum runs in float32 (float64 for float64 input), layer by
        layer, so that a one-hot row returns its layer bit for bit.

    Raises:
        ValueError: shapes that do not fit.
    """
    if layers.dim() != 4 or not layers.shape[0] or weights.shape != (layers.shape[1], layers.shape[0]):
        raise ValueError(
            f"fuse: layers are (L, B, N, D) = {tuple(layers.shape)}, weights are (B, L) = {tuple(weights.shape)}"
        )
    working = torch.float64 if layers.dtype == torch.float64 else torch.float32
    shares = weights.to(device=layers.device, dtype=working, non_blocking=True).T[:, :, None, None]
    fused = layers[0].to(working) * shares[0]
    # Not a matrix product, although it is one: an accelerator may shorten its factors (TF32), and the layer picked by a
    # one-hot row would come back rounded.
    for layer, share in zip(layers[1:], shares[1:], strict=True):
        fused = fused.addcmul_(layer.to(working), share)
    return fused.to(layers.dtype)
