"""Saliency of visual tokens from a few attention rows (CLASP Eq. 3-4, 32-33).

Only the reference rows are computed, from the layer's own rotary-embedded queries and keys: the full attention
map is never asked for, so the model's attention backend stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

_MOST_LOGITS = 2**25
"""Attention logits held at once, float32: 128 MiB. Long prompts are worked through in blocks of rows."""


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding in the half-split layout of the Llama family.

    Args:
        states: (B, H, S, C); channels beyond those of ``cos`` are left as they are.
        cos: (B or 1, S, c) with c <= C even.
        sin: (B or 1, S, c).

    Returns:
        (B, H, S, C), the dtype of ``states``.
    """
    width = cos.shape[-1]
    turning, rest = states[..., :width], states[..., width:]
    half = width // 2
    sin = sin[:, None]
    result = turning * cos[:, None]
    result[..., :half].addcmul_(turning[..., half:], sin[..., :half], value=-1)
    result[..., half:].addcmul_(turning[..., :half], sin[..., half:])
    return torch.cat((result, rest), dim=-1) if rest.shape[-1] else result


def merge_axes(part: Tensor, sections: Sequence[int]) -> Tensor:
    """Rotary cos or sin with one plane per position axis -> one: (3, B, S, C) -> (B, S, C).

    Channels come in bands of ``sections`` widths, twice over; band i turns by axis i mod 3 (time, height, width).
    Newer releases of transformers hand over the merged form; a part of three dimensions is returned as it is.
    """
    if part.ndim == 3:
        return part
    bands = part.split([*sections, *sections], dim=-1)
    return torch.cat([band[index % part.shape[0]] for index, band in enumerate(bands)], dim=-1)


def reference_attention(
    query: Tensor,
    key: Tensor,
    *,
    rotary: tuple[Tensor, ...],
    reference: Tensor,
    real: Tensor,
    width: int,
    scaling: float,
    before: Tensor | None = None,
) -> Tensor:
    """Saliency of every position of a causal layer from its projections: :func:`mean_attention` of the last T rows.

    Args:
        query: (B, S, H * C) or (B, S, H, C), what the query projection put out.
        key: (B, S, G * C) or (B, S, G, C), what the key projection put out; G divides H.
        rotary: (cos, sin), each (B or 1, S, c).
        reference: (B, T) bool over the last T positions, True for reference rows.
        real: (B, S) bool, False for positions no row may attend to.
        width: C, channels of one head.
        scaling: the layer's own factor on the dot product, usually ``1 / sqrt(C)``.
        before: (B, G, p, C), rotary-embedded keys of real tokens that stand before these positions: a cached prefix.

    Returns:
        (B, S) float32; 0 where no row attends.
    """
    rows, size = real.shape
    tail = reference.shape[1]
    cos, sin = rotary
    queries = query[:, size - tail :].reshape(rows, tail, -1, width).transpose(1, 2)
    queries = rotate(queries, cos[:, size - tail :], sin[:, size - tail :])
    keys = rotate(key.reshape(rows, size, -1, width).transpose(1, 2), cos, sin)
    places = torch.arange(size, device=key.device)
    visible = (places <= places[size - tail :, None]) & real[:, None, :]
    if before is None:
        return mean_attention(queries, keys, visible, reference, scaling)
    cached = before.shape[2]
    visible = pad(visible, (cached, 0), value=True)
    return mean_attention(queries, torch.cat((before, keys), dim=2), visible, reference, scaling)[:, cached:]


def mean_attention(query: Tensor, key: Tensor, visible: Tensor, reference: Tensor, scaling: float) -> Tensor:
    """Average the attention of reference rows over heads and rows: ``a_j = mean_q mean_h A[h, q, j]``.

    Args:
        query: (B, H, T, C), rotary-embedded queries of the T candidate rows.
        key: (B, G, S, C), rotary-embedded keys of all positions; G divides H (grouped heads).
        visible: (B, T, S) bool, True where a row may attend (causal and not padding).
        reference: (B, T) bool, True for rows that belong to the reference set.
        scaling: the layer's own factor on the dot product, usually ``1 / sqrt(C)``.

    Returns:
        (B, S) float32 saliency of every position (float64 for float64 input); 0 where no row attends.
    """
    rows, heads, tail, _ = query.shape
    groups, size = key.shape[1], key.shape[2]
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    keys = key.to(wide).transpose(-1, -2)
    # Heads count alike, and so do reference rows; a row that attends to nothing counts for nothing.
    share = reference.to(wide) / (heads * reference.sum(dim=1, keepdim=True)).clamp_min(1)
    result: Tensor | None = None
    block = max(1, _MOST_LOGITS // (rows * heads * size))
    for start in range(0, tail, block):
        part = query[:, :, start : start + block].to(wide) * scaling
        seen = visible[:, None, start : start + block]
        # Heads that share a key are one longer matrix of rows: no copy of the keys per head.
        logits = (part.reshape(rows, groups, -1, part.shape[-1]) @ keys).view(rows, heads, -1, size)
        scores = torch.softmax(torch.where(seen, logits, torch.finfo(wide).min), dim=-1)
        weight = share[:, None, start : start + block, None] * seen.any(dim=-1, keepdim=True)
        weight = weight.expand(-1, heads, -1, -1).reshape(rows, 1, -1)
        summed = (weight @ scores.view(rows, -1, size))[:, 0]
        result = summed if result is None else result + summed
    assert result is not None  # a prompt has at least one candidate row
    return result
