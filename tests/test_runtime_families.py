"""The two oracles of every family: nothing pruned is the stock model, and removal is masking."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family_models import CASES, FAMILY_MODELS, dropped_tokens_masked, visual_mask

from claspkit.runtime.families import FAMILIES, find_family
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan

BACKENDS = ("sdpa", "eager")
NEW_TOKENS = 16
ALL = 10**6  # more than any prompt has


def plan_for(model: Any, rows: int, stages: tuple[tuple[int, int], ...], **options: Any) -> PrunePlan:
    """The model's own layer; every row another split."""
    layer = find_family(model).facts(model).default_layer
    return PrunePlan(
        stages, tuple(RowPlan((layer,), (1.0,), (0.6, 0.0, 1.0)[row % 3]) for row in range(rows)), **options
    )


def generate(model: Any, batch: dict[str, torch.Tensor], **options: Any) -> Any:
    """Greedy answer with the logits of every step."""
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, **options}
    return model.generate(**batch, output_logits=True, return_dict_in_generate=True, **options)


def test_every_family_has_a_model() -> None:
    """A row of FAMILIES without a tiny model would go untested."""
    assert set(FAMILY_MODELS) == set(FAMILIES)
    for name, module in FAMILY_MODELS.items():
        assert find_family(module.build()).id == name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("family", "kind"), [*CASES, *((family, "text") for family in FAMILY_MODELS)])
def test_identity(family: str, kind: str, backend: str) -> None:
    """One-hot on the model's own layer and all tokens kept: the stock model, bit for bit, over 16 decode steps."""
    tiny = FAMILY_MODELS[family]
    model, batch = tiny.build(backend), tiny.batch(kind)
    stock = generate(model, batch)
    with apply_plan(model, find_family(model), plan_for(model, len(batch["input_ids"]), ((1, ALL), (3, ALL)))):
        pruned = generate(model, batch)
    assert torch.equal(stock.sequences, pruned.sequences)
    assert all(torch.equal(a, b) for a, b in zip(stock.logits, pruned.logits, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_removal_equals_masking(family: str, kind: str, backend: str) -> None:
    """Physical removal equals keeping every token and masking the dropped ones as keys from the stage on."""
    tiny = FAMILY_MODELS[family]
    model, batch = tiny.build(backend), tiny.batch(kind)
    assert removal_difference(model, batch, tiny, ((1, 12), (2, 7), (3, 3))) <= 1e-5


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
