"""A tiny random-weight model of the real architecture per row of ``FAMILIES``, and the oracle of removal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import tiny_internvl
import tiny_llava
import tiny_llava_next
import tiny_qwen2_5_vl
import tiny_video_llava
import torch

from claspkit.runtime.families import Family

FAMILY_MODELS: dict[str, ModuleType] = {
    "llava": tiny_llava,
    "llava-next": tiny_llava_next,
    "video-llava": tiny_video_llava,
    "qwen2.5-vl": tiny_qwen2_5_vl,
    "internvl": tiny_internvl,
}
KINDS = ("single", "padded", "several", "mixed")
MORE_KINDS = {"video-llava": ("video", "both"), "qwen2.5-vl": ("video", "both")}
CASES = [(family, kind) for family in FAMILY_MODELS for kind in (*KINDS, *MORE_KINDS.get(family, ()))]


def visual_mask(model: Any, family: Family, ids: torch.Tensor) -> torch.Tensor:
    """Where the visual tokens are, (B, S) bool."""
    return torch.isin(ids, torch.tensor(family.placeholder_ids(model)))


@contextmanager
def dropped_tokens_masked(
    model: Any, family: Family, visual: torch.Tensor, real: torch.Tensor, kept: dict[int, list[list[int]]]
) -> Iterator[None]:
    """Keep every token but hide the dropped ones as keys from the layer after their stage on.

    Written apart from the pruner's hooks. ``visual`` and ``real`` are (B, S) over the prompt; ``kept`` gives per stage
    and row the surviving visual tokens. Later tokens are always visible.
    """
    rows, prompt = visual.shape
    allowed: dict[int, torch.Tensor] = {}
    for stage, survivors in kept.items():
        alive = real.bool().clone()
        for row in range(rows):
            places = visual[row].nonzero()[:, 0].tolist()
            for index, place in enumerate(places):
                alive[row, place] = index in set(survivors[row])
        allowed[stage] = alive
    handles = []
    for index, layer in enumerate(family.decoder_layers(model)):
        below = [stage for stage in kept if stage < index]
        keys = allowed[max(below)] if below else real.bool()

        def hide(_: Any, args: Any, kwargs: Any, keys: torch.Tensor = keys) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            cache = kwargs.get("past_key_values")
            past = cache.get_seq_length(0) if cache is not None else 0
            new = hidden.shape[1]
            # Layer 0 has stored this step's keys before any later layer is asked.
            width = max(past, new)
            grown = torch.cat((keys, torch.ones(rows, width - prompt, dtype=torch.bool)), dim=1)
            causal = torch.ones(new, width, dtype=torch.bool).tril(width - new)
            visible = causal[None] & grown[:, None]
            visible = visible | (torch.eye(new, width, dtype=torch.bool)[None] if new == width else False)
            bias = torch.zeros(rows, 1, new, width, dtype=hidden.dtype)
            return args, {
                **kwargs,
                "attention_mask": bias.masked_fill(~visible[:, None], torch.finfo(hidden.dtype).min),
            }

        if index > min(kept):
            handles.append(layer.register_forward_pre_hook(hide, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
