"""What a calibration would cost and what budgets mean, from a model's config alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claspkit.profiles.budget import Budget, Convention, Stage
from claspkit.profiles.cost import kv_bytes, prefill_flops
from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import INTENT_IDS
from claspkit.runtime.families import FamilyFacts
from claspkit.runtime.models import model_sizes, resolve_model

from .plan_cache import CacheChoice, cache_plan
from .probe import Machine
from .schedule import run_budget
from .space import Space, make_space
from .space_file import OwnSpace

TEXT_TOKENS = 60
"""Prompt tokens the FLOPs are counted with: LLaVA-1.5's system text and a question of usual length."""

DEFAULT_BUDGET = "1/3"
"""The budget of a run that names none."""


def make_plan(
    model: str,
    per_class: int,
    budgets: Sequence[str] = (),
    schedule: str = "plain",
    stages: Sequence[tuple[int, int]] = (),
    cache: CacheChoice | None = None,
    machine: Machine | None = None,
    classes: int = len(INTENT_IDS),
    own: OwnSpace | None = None,
) -> dict[str, Any]:
    """Return named facts about a run that has not started; no weights are loaded.

    Args:
        model: alias, hub id or folder.
        per_class: samples per class.
        budgets: as ``--budget`` takes them; :data:`DEFAULT_BUDGET` where there are neither these nor stages.
        schedule: named list the budgets are taken from.
        stages: explicit stages, one more budget.
        cache: what the feature cache would hold; None for all layers in float16 of the reference picture.
        machine: where it would lie; None leaves out what depends on it.
        classes: how many the prompts are sorted into.
        own: prototypes of a user's.

    Returns:
        ``model``: sizes; ``unpruned``: cost without pruning; ``budgets``: one object per budget, with ``refused`` for
        one that the model cannot have; ``calibration``: what a run computes; ``cache``: what it stores, see
        :func:`calib.plan_cache.cache_plan`.

    Raises:
        UsageError: unknown model, one whose config cannot be had, a cache that cannot be, or all budgets are refused.
        BadDataError: a prototype on a layer that the model does not have.
    """
    source, cache = resolve_model(model), cache or CacheChoice()
    sizes = model_sizes(source, cache.picture)
    facts = sizes.facts
    space = make_space(facts.default_layer, own=own, depth=facts.vision_depth)
    asked = [*budgets] if budgets or stages else [DEFAULT_BUDGET]
    rows = [_row(budget, schedule, (), facts) for budget in asked]
    if stages:
        rows.append(_row("stages", schedule, stages, facts))
    if all("refused" in row for row in rows):
        raise UsageError("\n".join(row["refused"] for row in rows))
    return {
        "model": {
            "id": source.id,
            "family": sizes.family,
            "sizes_from": sizes.origin,
            "visual_tokens": facts.visual_tokens,
            "scaling": facts.scaling,
            "decoder_layers": facts.decoder_depth,
            "text_tokens": TEXT_TOKENS,
        },
        "unpruned": _cost((), facts),
        "budgets": rows,
        "calibration": _calibration(space, per_class, classes),
        "cache": cache_plan(facts, per_class, cache, machine, classes, space),
    }


def _row(budget: str, schedule: str, stages: Sequence[tuple[int, int]], facts: FamilyFacts) -> dict[str, Any]:
    """One budget: its stages and cost, or why it is refused."""
    try:
        chosen = run_budget(budget, schedule, stages, facts.visual_tokens, facts.decoder_depth)
    except UsageError as error:
        return {"asked": budget, "refused": str(error)}
    full, pruned = _cost((), facts), _cost(chosen.stages, facts)
    return {
        "asked": budget,
        "nominal": chosen.nominal,
        "schedule": chosen.schedule,
        "stages": [{"after_layer": stage.after_layer, "keep": stage.keep} for stage in chosen.stages],
        **_means(chosen),
        **pruned,
        "flops_ratio": full["prefill_flops"] / pruned["prefill_flops"],
        "kv_share": pruned["kv_bytes"] / full["kv_bytes"],
    }


def _means(budget: Budget) -> dict[str, float]:
    return {"mean_tokens_leaving": budget.mean_leaving, "mean_tokens_entering": budget.mean_entering}


def _cost(stages: Sequence[Stage], facts: FamilyFacts) -> dict[str, int]:
    """Counted on the tokens entering a layer, and the FLOPs also on those leaving it, as published."""
    return {
        "prefill_flops": decoder_flops(stages, facts),
        "prefill_flops_leaving": decoder_flops(stages, facts, "leaving"),
        "kv_bytes": kv_bytes(
            stages,
            visual_tokens=facts.visual_tokens,
            text_tokens=TEXT_TOKENS,
            depth=facts.decoder_depth,
            kv_heads=facts.kv_heads,
            head_width=facts.head_width or facts.decoder_width // facts.heads,
        ),
    }


def _calibration(space: Space, per_class: int, classes: int) -> dict[str, Any]:
    candidates, samples = len(space.candidates), per_class * classes
    return {
        "per_class": per_class,
        "prototypes": len(space.prototypes),
        "space": space.sha256,
        "candidates": candidates,
        "samples": samples,
        "evaluations_exhaustive": samples * candidates,
    }


def decoder_flops(stages: Sequence[Stage], facts: FamilyFacts, convention: Convention = "entering") -> int:
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
        head_width=facts.head_width,
        convention=convention,
    )
