"""What a calibration would cost and what a budget means, from a model's config alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claspkit.profiles.budget import Stage, mean_tokens, prefill_flops
from claspkit.profiles.intents import INTENT_IDS
from claspkit.runtime.families import FamilyFacts
from claspkit.runtime.models import config_facts, resolve_model

from .schedule import run_budget
from .space import make_space

TEXT_TOKENS = 60
"""Prompt tokens the FLOPs are counted with: LLaVA-1.5's system text and a question of usual length."""


def make_plan(
    model: str, per_class: int, budget: str, schedule: str, stages: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Return named facts about a run that has not started; no weights are loaded.

    Raises:
        UsageError: unknown model, or one whose config cannot be had.
    """
    source = resolve_model(model)
    facts = config_facts(source)
    chosen = run_budget(budget, schedule, stages, facts.visual_tokens, facts.decoder_depth)
    space = make_space(facts.default_layer)
    samples = per_class * len(INTENT_IDS)
    record = (facts.vision_depth + 1) * facts.visual_tokens * facts.vision_width * 2

    full, pruned = decoder_flops((), facts), decoder_flops(chosen.stages, facts)
    return {
        "model": source.id,
        "visual tokens": facts.visual_tokens,
        "nominal budget": chosen.nominal,
        "stages": ", ".join(f"after layer {s.after_layer}: {s.keep}" for s in chosen.stages),
        "mean tokens leaving a layer": round(mean_tokens(chosen.stages, facts.visual_tokens, facts.decoder_depth), 1),
        "mean tokens entering a layer": round(
            mean_tokens(chosen.stages, facts.visual_tokens, facts.decoder_depth, "entering"), 1
        ),
        "prefill TFLOP, all tokens": round(full / 1e12, 6),
        "prefill TFLOP, pruned": round(pruned / 1e12, 6),
        "candidates": len(space.candidates),
        "samples": samples,
        "evaluations, exhaustive": samples * len(space.candidates),
        "cache bytes a picture": record,
        "cache GB, one picture a sample": round(record * samples / 1e9, 3),
    }


def decoder_flops(stages: Sequence[Stage], facts: FamilyFacts) -> int:
    """FLOPs of one prefill with :data:`TEXT_TOKENS` of text; empty stages prune nothing."""
    return prefill_flops(
        stages,
        visual_tokens=facts.visual_tokens,
        text_tokens=TEXT_TOKENS,
        depth=facts.decoder_depth,
        width=facts.decoder_width,
        ffn=facts.ffn_width,
        heads=facts.heads,
        kv_heads=facts.kv_heads,
    )
