"""Copies of prompts that are pruned differently: run once as far as they are equal, the same answers as one by one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from family_models import FAMILY_MODELS
from family_oracles import generate, plan_for

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families import find_family
from claspkit.runtime.gram import repeat_rows
from claspkit.runtime.plan import PrunePlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.shared_start import share_start

STAGES = ((1, 6), (3, 3))
RHOS = (0.0, 0.4, 1.0)


def copied(batch: dict[str, torch.Tensor], copies: int) -> dict[str, torch.Tensor]:
    """A batch whose prompts and pictures come ``copies`` times, copy after copy."""
    return {name: repeat_rows(value, copies) for name, value in batch.items()}


def hooks(model: Any) -> int:
    """How many hooks the model's parts have; transformers has some of its own."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def plans(model: Any, rows: int) -> list[PrunePlan]:
    """One per split."""
    base = plan_for(model, rows, STAGES)
    return [replace(base, rows=tuple(replace(row, rho=rho) for row in base.rows)) for rho in RHOS]


def together(model: Any, batch: dict[str, torch.Tensor], share: bool) -> Any:
    """All splits in one batch."""
    family, each = find_family(model), plans(model, len(batch["input_ids"]))
    whole = replace(each[0], rows=tuple(row for plan in each for row in plan.rows))
    start = share_start(model, family, STAGES[0][0], len(RHOS)) if share else nullcontext()
    with start, apply_plan(model, family, whole):
        return generate(model, copied(batch, len(RHOS)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["single", "padded"])
@pytest.mark.parametrize("name", FAMILY_MODELS)
def test_answers_are_those_of_each_plan_alone(name: str, kind: str, attention: str) -> None:
    """Prefill and every later step to 1e-5, equal ids; and the shared layers have seen each prompt once."""
    model = FAMILY_MODELS[name].build(attention=attention)
    batch = FAMILY_MODELS[name].batch(kind)
    rows, family = len(batch["input_ids"]), find_family(model)
    seen: list[int] = []
    layer: Any = family.decoder_layers(model)[0]
    probe = layer.self_attn.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"]).shape[0]), with_kwargs=True
    )
    shared = together(model, batch, share=True)
    probe.remove()
    assert seen[0] == rows
    assert set(seen[1:]) == {rows * len(RHOS)}
    for number, plan in enumerate(plans(model, rows)):
        with apply_plan(model, family, plan):
            alone = generate(model, batch)
        part = slice(number * rows, (number + 1) * rows)
        assert torch.equal(shared.sequences[part], alone.sequences)
        for mine, its in zip(shared.logits, alone.logits, strict=True):
            assert torch.allclose(mine[part], its, atol=1e-5, rtol=1e-5)


def test_nothing_stays_behind() -> None:
    """After the block, also one left by an error, the model answers as before."""
    module = FAMILY_MODELS["llava"]
    model, batch = module.build(), module.batch("padded")
    family, before = find_family(model), generate(module.build(), batch)
    together(model, batch, share=False)
    own = hooks(model)
    together(model, batch, share=True)
    rows = len(batch["input_ids"])
    with pytest.raises(UsageError, match="rows is not made of"), share_start(model, family, 1, rows + 1):
        model(**batch)
    assert hooks(model) == own
    assert torch.equal(generate(model, batch).sequences, before.sequences)


def test_as_many_rows_as_tokens() -> None:
    """What counts tokens is not taken for rows, and the other way round."""
    model, batch = FAMILY_MODELS["llava"].build(), FAMILY_MODELS["llava"].batch("single")
    tokens, family = batch["input_ids"].shape[1], find_family(model)
    plan = plan_for(model, 1, STAGES)
    with apply_plan(model, family, plan):
        alone = generate(model, batch, max_new_tokens=3)
    whole = replace(plan, rows=plan.rows * tokens)
    with share_start(model, family, STAGES[0][0], tokens), apply_plan(model, family, whole):
        shared = generate(model, copied(batch, tokens), max_new_tokens=3)
    assert torch.equal(shared.sequences, alone.sequences.expand(tokens, -1))
    assert torch.allclose(shared.logits[0], alone.logits[0].expand(tokens, -1), atol=1e-5, rtol=1e-5)


def test_one_copy_shares_nothing() -> None:
    """Not a single hook."""
    model = FAMILY_MODELS["llava"].build()
    before = hooks(model)
    with share_start(model, find_family(model), 1, 1):
        assert hooks(model) == before
    with share_start(model, find_family(model), 1, 2):
        assert hooks(model) > before
