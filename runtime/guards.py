"""What the pruner refuses, and why: better a reason than a wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from claspkit.profiles.errors import UsageError

from .prefill import Prefill

_ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
_HALF_SPLIT = ("llama", "mistral", "qwen2", "qwen3", "qwen2_5_vl_text", "gemma")  # how their rotary halves lie
_PREFILL = "_claspkit_prefill"  # on the cache: it goes where the cache goes, copies included


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
    check_attention(decoder)
    if config.model_type not in _HALF_SPLIT:
        raise UsageError(
            f"the decoder is a {config.model_type!r}, and how it lays out its rotary embeddings is not known here; "
            f"known are {', '.join(_HALF_SPLIT)}"
        )
    devices = {str(parameter.device) for layer in layers for parameter in layer.parameters()}
    if len(devices) > 1:
        raise UsageError(f"the decoder lies on {', '.join(sorted(devices))}; pruning needs its layers on one device")
    if max(stages) >= len(layers) - 1:
        raise UsageError(f"a stage after layer {max(stages)} does nothing in a decoder of {len(layers)} layers")
    for index in stages:
        if index < 0:
            continue
        module: Any = layers[index].self_attn
        missing = [name for name in ("q_proj", "k_proj", "head_dim", "scaling") if not hasattr(module, name)]
        if missing:
            raise UsageError(f"{type(module).__name__} has no {', '.join(missing)}; saliency cannot be read from it")


def check_attention(decoder: Any) -> None:
    """Refuse an attention implementation whose masks we do not know how to cut.

    Raises:
        UsageError: names it and those that are known.
    """
    attention = decoder.config._attn_implementation
    if attention not in _ATTENTION:
        raise UsageError(
            f"the attention implementation {attention!r} is not supported for pruning; load the model with one of "
            f"{', '.join(_ATTENTION)} (attn_implementation=...)"
        )


def remember(cache: Any, prefill: Prefill) -> None:
    """Keep a prompt's state with its cache."""
    setattr(cache, _PREFILL, prefill)


def select_rows(cache: Any, rows: Tensor) -> None:
    """Go on with some rows (b,) int64 of a cache alone, pruned or not."""
    cache.batch_select_indices(rows)
    prefill: Prefill | None = getattr(cache, _PREFILL, None)
    if prefill is not None:
        prefill.segments = {first: segment.take(rows) for first, segment in prefill.segments.items()}


def check_continued(cache: Any, stages: tuple[tuple[int, int], ...], rows: int) -> Prefill | None:
    """Return the state of the prompt that a cache begins with, None where it was not pruned.

    Raises:
        UsageError: the cache is no longer what the prompt left, or was made by another schedule.
    """
    prefill: Prefill | None = getattr(cache, _PREFILL, None)
    past, deep = int(cache.get_seq_length()), int(cache.get_seq_length(len(cache.layers) - 1))
    if prefill is None:
        if deep != past:
            raise UsageError("the layers of this cache differ in length, and nothing says why; start anew")
        return None
    if prefill.plan.stages != stages:
        raise UsageError(f"this cache was pruned by the stages {prefill.plan.stages}, now {stages} are set; start anew")
    base = prefill.segments[0]
    if rows != base.positions.shape[0]:
        raise UsageError(f"this cache was made for {base.positions.shape[0]} rows, now it has {rows}; start anew")
    if past < base.size - prefill.layout.trailing or deep != past - base.size + prefill.current.size:
        raise UsageError(
            "the cache was cut back into its pictures, or by a call that takes all layers to be equally long; it "
            "cannot be continued. Start the conversation anew"
        )
    return prefill


def check_resumable(cache: Any) -> None:
    """Refuse to ``generate`` on from a cache whose first layer does not tell how long the conversation is.

    Raises:
        UsageError: the prompt was pruned before the decoder.
    """
    prefill: Prefill | None = getattr(cache, _PREFILL, None)
    if prefill is not None and prefill.entrance is not None:
        raise UsageError(
            "generate() reads the length of a conversation from the cache's first layer, which a stage before the "
            "decoder has shortened; continue it by model(...), or send it anew without the cache"
        )


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
