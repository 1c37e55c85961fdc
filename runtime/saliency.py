"""Saliency of visual tokens from a few attention rows (CLASP Eq. 3-4, 32-33).

Only the reference rows are computed, from the layer's own rotary-embedded queries and keys: the full attention
map is never asked for, so the model's attention backend stays what it is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding in the half-split layout of the Llama family.

    Args:
        states: (B, H, S, C) with C even.
        cos: (B or 1, S, C).
        sin: (B or 1, S, C).

    Returns:
        (B, H, S, C), the dtype of ``states``.
    """
    half = states.shape[-1] // 2
    turned = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
    return states * cos[:, None] + turned * sin[:, None]


def mean_attention(query: Tensor, key: Tensor, visible: Tensor, reference: Tensor, scaling: float) -> Tensor:
    """Average the attention of reference rows over heads and rows: ``a_j = mean_q mean_h A[h, q, j]``.

    Args:
        query: (B, H, T, C), rotary-embedded queries of the T candidate rows.
        key: (B, G, S, C), rotary-embedded keys of all positions; G divides H (grouped heads).
        visible: (B, T, S) bool, True where a row may attend (causal and not padding).
        reference: (B, T) bool, True for rows that belong to the reference set.
        scaling: the layer's own factor on the dot product, usually ``1 / sqrt(C)``.

    Returns:
        (B, S) float32 saliency of every position; 0 where no row attends.
    """
    groups = query.shape[1] // key.shape[1]
    keys = key.repeat_interleave(groups, dim=1) if groups > 1 else key
    logits = torch.matmul(query.float(), keys.float().transpose(-1, -2)) * scaling
    logits = logits.masked_fill(~visible[:, None], torch.finfo(logits.dtype).min)
    rows = torch.softmax(logits, dim=-1).mean(dim=1) * visible
    share = reference.to(rows.dtype) / reference.sum(dim=1, keepdim=True).clamp_min(1)
    return torch.einsum("bts,bt->bs", rows, share)
