"""The two oracles that need no trained weights: nothing pruned is the stock model, and removal is masking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from family_models import dropped_tokens_masked, visual_mask

from claspkit.runtime.families import find_family
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan

NEW_TOKENS = 16
ALL = 10**6  # more than any prompt has


def plan_for(model: Any, rows: int, stages: tuple[tuple[int, int], ...], **options: Any) -> PrunePlan:
    """The model's own layer; every row another split, and in turn the ``keeps`` where they are given."""
    layer = find_family(model).facts(model).default_layer
    keeps: Sequence[tuple[int, ...] | None] = options.pop("keeps", (None,))
    return PrunePlan(
        stages,
        tuple(
            RowPlan((layer,), (1.0,), (0.6, 0.0, 1.0)[row % 3], keeps[row % len(keeps)]) for row in range(rows)
        ),
        **options,
    )


def generate(model: Any, batch: Mapping[str, Any], **options: Any) -> Any:
    """Greedy answer with the logits of every step."""
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, **options}
    return model.generate(**batch, output_logits=True, return_dict_in_generate=True, **options)


def identity_difference(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """Largest difference of logits over prompt and decode steps when every token is kept; inf where ids differ."""
    stock = generate(model, batch)
    with apply_plan(model, find_family(model), plan_for(model, len(batch["input_ids"]), ((1, ALL), (3, ALL)))):
        pruned = generate(model, batch)
    if not torch.equal(stock.sequences, pruned.sequences):
        return float("inf")
    return max(float((a - b).abs().max()) for a, b in zip(stock.logits, pruned.logits, strict=True))


def removal_difference(
    model: Any, batch: dict[str, torch.Tensor], tiny: Any, stages: tuple[tuple[int, int], ...], **options: Any
) -> float:
    """Largest difference between the logits of a pruned generation and of the masked model, relative to theirs."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    rows, full = ids.shape
    chosen = find_family(model)
    with apply_plan(model, chosen, plan_for(model, rows, stages, **options)) as surgery:
        answer = generate(model, batch)
        kept = {stage.after_layer: [[i for i, _ in stage.row(row)] for row in range(rows)] for stage in surgery.last}
    visual = visual_mask(model, chosen, ids)
    for (layer, keep), (after, survivors) in zip(stages, kept.items(), strict=True):
        assert layer == after
        for row, alive in enumerate(survivors):
            assert alive == sorted(set(alive))
            assert 0 < len(alive) <= int(visual[row].sum()) or not visual[row].any()
        assert any(len(alive) < n for alive, n in zip(survivors, visual.sum(dim=1).tolist(), strict=True)), keep
    sequence = torch.cat((ids, answer.sequences[:, full:-1]), dim=1)
    longer = torch.cat((mask, torch.ones(rows, NEW_TOKENS - 1, dtype=mask.dtype)), dim=1)
    with torch.no_grad(), dropped_tokens_masked(model, chosen, visual, mask, kept):
        want = model(**{**tiny.full_inputs(batch, sequence, longer), "use_cache": False}).logits[:, full - 1 :]
    got = torch.stack(answer.logits, dim=1)
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max().clamp_min(1.0))
