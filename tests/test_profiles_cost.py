"""What a schedule costs: operations of a prefill and bytes of its key-value cache, by hand and as published."""

from collections.abc import Callable
from functools import partial

import pytest

from claspkit.profiles.budget import BEFORE_DECODER, LIST_LAYERS, Stage
from claspkit.profiles.cost import kv_bytes, prefill_flops

Cost = Callable[..., int]
LLAMA_SIZES = partial(prefill_flops, visual_tokens=576, text_tokens=60, depth=32, width=4096, ffn=11008)
LLAMA_FLOPS: Cost = partial(LLAMA_SIZES, heads=32, kv_heads=32, vocab=32000)
LLAMA_CACHE: Cost = partial(kv_bytes, visual_tokens=576, text_tokens=60, depth=32, kv_heads=32, head_width=128)
QWEN_SIZES = partial(prefill_flops, visual_tokens=1296, text_tokens=60, depth=28, width=3584, ffn=18944)
QWEN_FLOPS: Cost = partial(QWEN_SIZES, heads=28, kv_heads=4, vocab=152064)
QWEN_CACHE: Cost = partial(kv_bytes, visual_tokens=1296, text_tokens=60, depth=28, kv_heads=4, head_width=128)


@pytest.mark.parametrize(
    ("flops", "cache", "kept", "entering", "leaving", "stored", "quoted"),
    [
        (LLAMA_FLOPS, LLAMA_CACHE, (300, 200, 110), 3.43, 3.23, 41.3, 39.0),
        (LLAMA_FLOPS, LLAMA_CACHE, (303, 110, 36), 2.62, 2.40, 31.6, 28.9),
        (LLAMA_FLOPS, LLAMA_CACHE, (66, 30, 17), 1.81, 1.59, 21.9, 19.1),
        (QWEN_FLOPS, QWEN_CACHE, (675, 450, 248), 7.21, 6.71, 40.3, 37.5),
        (QWEN_FLOPS, QWEN_CACHE, (682, 248, 81), 5.42, 4.85, 30.3, 27.1),
        (QWEN_FLOPS, QWEN_CACHE, (148, 68, 38), 3.41, 2.81, 19.0, 15.7),
    ],
)
def test_costs_in_both_ways_of_counting(
    flops: Cost, cache: Cost, kept: tuple[int, ...], entering: float, leaving: float, stored: float, quoted: float
) -> None:
    """TFLOP of a prefill and percent of the cache of LLaVA-1.5-7B and Qwen2.5-VL-7B, calculated independently."""
    stages = [Stage(layer, keep) for layer, keep in zip(LIST_LAYERS, kept, strict=True)]
    assert flops(stages) / 1e12 == pytest.approx(entering, abs=0.0051)
    assert flops(stages, convention="leaving") / 1e12 == pytest.approx(leaving, abs=0.0051)
    assert 100 * cache(stages) / cache(()) == pytest.approx(stored, abs=0.051)
    assert 100 * cache(stages, convention="leaving") / cache(()) == pytest.approx(quoted, abs=0.051)


def test_costs_without_pruning() -> None:
    """8.34 and 18.07 TFLOP, 318 and 74 MiB."""
    assert LLAMA_FLOPS(()) / 1e12 == pytest.approx(8.34, abs=0.005)
    assert QWEN_FLOPS(()) / 1e12 == pytest.approx(18.07, abs=0.005)
    assert LLAMA_CACHE(()) == 636 * 32 * 2 * 4096 * 2 == 318 * 2**20
    assert QWEN_CACHE(()) / 2**20 == pytest.approx(74, abs=0.5)


def test_conventions_agree_where_no_layer_prunes() -> None:
    """Without stages, or with one before the decoder, what leaves a layer is what entered it."""
    for stages in ((), [Stage(BEFORE_DECODER, 192)]):
        assert LLAMA_FLOPS(stages) == LLAMA_FLOPS(stages, convention="leaving")
        assert LLAMA_CACHE(stages) == LLAMA_CACHE(stages, convention="leaving")


def test_flops_of_one_small_layer_by_hand() -> None:
    """3 tokens, width 4, 2 heads of 2, 1 key-value head, FFN 5."""
    # q and o 2*4*4, k and v 2*4*2, FFN 3*4*5; 6 pairs of query and key; the output head.
    by_hand = 2 * 3 * (32 + 16 + 60) + 2 * 2 * 6 * 4 + 2 * 4 * 7
    assert prefill_flops((), 2, 1, 1, 4, 5, 2, 1, 7) == by_hand
    assert prefill_flops((), 2, 1, 1, 4, 5, 2, 1, 7, head_width=4) > by_hand


def test_cache_of_a_small_decoder_by_hand() -> None:
    """Three layers, 5 visual tokens of which the last one sees 2, 3 of text, 1 head of 4, 4 bytes a value."""
    stages = [Stage(1, 2)]
    assert kv_bytes(stages, 5, 3, 3, 1, 4, 4) == 2 * (8 + 8 + 5) * 4 * 4
    assert kv_bytes(stages, 5, 3, 3, 1, 4, 4, convention="leaving") == 2 * (8 + 5 + 5) * 4 * 4
    assert kv_bytes([Stage(BEFORE_DECODER, 2)], 5, 3, 3, 1, 4, 4) == 2 * 15 * 4 * 4
