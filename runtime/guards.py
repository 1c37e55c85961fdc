"""What the pruner refuses, and why: better a reason than a wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from claspkit.profiles.errors import UsageError

_ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")


def check_decoder(decoder: Any, layers: nn.ModuleList, stages: Sequence[int]) -> None:
    """Refuse a decoder whose layers cannot be shortened one by one.

    Raises:
        UsageError: unknown projections, sliding-window layers, an attention implementation whose masks we do not
            know, or a stage beyond the decoder's depth.
    """
    config = decoder.config
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",)) - {"full_attention"}
    if kinds:
        raise UsageError(
            f"the decoder has layers of type {', '.join(sorted(kinds))}; only full attention can be pruned"
        )
    attention = config._attn_implementation
    if attention not in _ATTENTION:
        raise UsageError(
            f"the attention implementation {attention!r} is not supported for pruning; load the model with one of "
            f"{', '.join(_ATTENTION)} (attn_implementation=...)"
        )
    if max(stages) >= len(layers) - 1:
        raise UsageError(f"a stage after layer {max(stages)} does nothing in a decoder of {len(layers)} layers")
    for index in stages:
        if index < 0:
            continue
        module: Any = layers[index].self_attn
        missing = [name for name in ("q_proj", "k_proj", "head_dim", "scaling") if not hasattr(module, name)]
        if missing:
            raise UsageError(f"{type(module).__name__} has no {', '.join(missing)}; saliency cannot be read from it")


def check_cache(cache: Any) -> None:
    """Refuse a cache whose layers cannot have different lengths.

    Raises:
        UsageError: static, quantized, sliding-window or other special cache layers.
    """
    if cache is None:
        return
    from transformers.cache_utils import DynamicLayer

    if getattr(cache, "is_compileable", False):
        raise UsageError(
            "a static cache has one length for all layers and its masks are made beforehand; pruning needs the dynamic "
            "cache (the default: leave cache_implementation out)"
        )
    special = {type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer}
    if special:
        raise UsageError(
            f"the cache has layers of type {', '.join(sorted(special))}; pruning has been shown to be right with the "
            "plain dynamic cache alone (the default: leave cache_implementation out)"
        )


def check_not_compiled(model: nn.Module) -> None:
    """Refuse a compiled model: its graphs do not see hooks, so nothing would be pruned and nothing would say so.

    Raises:
        UsageError: the model or a part of it is compiled.
    """
    compiled = hasattr(model, "_orig_mod")
    for module in model.modules():
        compiled = compiled or getattr(module, "_compiled_call_impl", None) is not None
        compiled = compiled or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
    if compiled:
        raise UsageError(
            "this model is compiled (torch.compile): its graphs do not see the pruner's hooks. Prune the model as it "
            "was before compilation"
        )
