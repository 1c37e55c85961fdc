"""What a schedule costs the decoder: floating-point operations of a prefill, and bytes of its key-value cache.

Both count what a layer computes on, the tokens *entering* it, unless asked for the tokens *leaving* it: published
figures take those, as if a layer's own pruning came before its work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from .budget import Convention, Stage, tokens_entering, tokens_leaving

Count = TypeVar("Count", int, float)


def prefill_flops(
    stages: Sequence[Stage],
    visual_tokens: int,
    text_tokens: int,
    depth: int,
    width: int,
    ffn: int,
    heads: int,
    kv_heads: int,
    vocab: int = 0,
    *,
    head_width: int | None = None,
    convention: Convention = "entering",
) -> int:
    """Floating-point operations of one prefill of the decoder, multiply + add = 2, batch 1.

    Per layer with S tokens: q, k, v, o projections, causal attention (S(S+1)/2 query-key pairs, scores and
    values), all three FFN matrices. ``vocab`` > 0 adds the output head for the last token. Norms, softmax,
    rotary embedding and the selection itself are left out.

    Args:
        stages: empty for the unpruned decoder.
        visual_tokens: N. text_tokens: all other tokens.
        depth: layers. width: hidden size. ffn: FFN inner size. heads, kv_heads: attention heads.
        vocab: rows of the output head, 0 to leave it out.
        head_width: width of one head, ``width // heads`` if not given.
        convention: tokens "entering" a layer, which is what is computed, or "leaving" it.
    """
    counts = [visual + text_tokens for visual in _tokens(stages, visual_tokens, depth, convention)]
    pairs = sum(tokens * (tokens + 1) // 2 for tokens in counts)
    return 2 * width * vocab + layer_flops(sum(counts), pairs, width, ffn, heads, kv_heads, head_width)


def layer_flops(
    token_layers: Count, pairs: Count, width: int, ffn: int, heads: int, kv_heads: int, head_width: int | None = None
) -> Count:
    """Floating-point operations of decoder layers, multiply + add = 2, counted as in :func:`prefill_flops`.

    Args:
        token_layers: tokens that go through a layer, summed over layers.
        pairs: query-key pairs of causal attention, summed over layers.
        width: hidden size. ffn: FFN inner size. heads, kv_heads: attention heads.
        head_width: width of one head, ``width // heads`` if not given.
    """
    head = head_width or width // heads
    per_token = 2 * (2 * width * heads * head + 2 * width * kv_heads * head + 3 * width * ffn)
    return per_token * token_layers + 4 * pairs * heads * head


def kv_bytes(
    stages: Sequence[Stage],
    visual_tokens: int,
    text_tokens: int,
    depth: int,
    kv_heads: int,
    head_width: int,
    bytes_per_value: int = 2,
    *,
    convention: Convention = "entering",
) -> int:
    """Bytes of keys and values that all decoder layers hold after a prefill, batch 1.

    Args:
        stages: empty for the unpruned decoder.
        visual_tokens: N. text_tokens: all other tokens.
        depth: layers. kv_heads: key/value heads. head_width: width of one head.
        bytes_per_value: 2 for float16 and bfloat16.
        convention: tokens "entering" a layer, which is what it stores, or "leaving" it.
    """
    tokens = sum(_tokens(stages, visual_tokens, depth, convention)) + depth * text_tokens
    return 2 * tokens * kv_heads * head_width * bytes_per_value


def _tokens(stages: Sequence[Stage], visual_tokens: int, depth: int, convention: Convention) -> list[int]:
    count = tokens_entering if convention == "entering" else tokens_leaving
    return count(stages, visual_tokens, depth)
