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
        layers: (L, B, N, D), any floating dtype.
        weights: (B, L), rows on the simplex.

    Returns:
        (B, N, D) in the dtype of ``layers``. The sum runs in float32 (float64 for float64 input), layer by
        layer, so that a one-hot row returns its layer bit for bit.
    """
    if layers.shape[:2] != (weights.shape[1], weights.shape[0]):
        raise ValueError(
            f"fuse: layers are (L, B, N, D) = {tuple(layers.shape)}, weights are (B, L) = {tuple(weights.shape)}"
        )
    working = torch.float64 if layers.dtype == torch.float64 else torch.float32
    shares = weights.to(device=layers.device, dtype=working)
    fused = torch.zeros(layers.shape[1:], dtype=working, device=layers.device)
    for layer, share in zip(layers, shares.T, strict=True):
        fused = fused + share[:, None, None] * layer.to(working)
    return fused.to(layers.dtype)
