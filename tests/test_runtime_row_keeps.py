"""Rows of one batch that keep different numbers of tokens at the same layers, against the oracles of every family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from family_models import FAMILY_MODELS
from family_oracles import generate, plan_for, removal_difference
from hypothesis import given, settings
from hypothesis import strategies as st
from test_runtime_generation import masked_generate
from test_runtime_shared_start import copied
from tiny_llava import batch, build

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families import find_family
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.shared_start import share_start

STAGES = ((1, 12), (2, 7), (3, 3))
ALL = 10**6
KEEPS = ((9, 9, 2), None, (ALL, 5, 1))
"""One that skips a stage, the plan's own numbers, and one that starts to drop where the others have dropped already."""

BACKENDS = ("sdpa", "eager")
FAMILIES = ("llava", "qwen2.5-vl", "internvl")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["padded", "several", "mixed"])
@pytest.mark.parametrize("name", FAMILIES)
def test_removal_equals_masking(name: str, kind: str, backend: str) -> None:
    """Physical removal equals masking, row by row with its own numbers, in prefill and 16 decode steps."""
    tiny = FAMILY_MODELS[name]
    assert removal_difference(tiny.build(backend), tiny.batch(kind), tiny, STAGES, keeps=KEEPS) <= 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FAMILY_MODELS)
def test_a_row_is_what_it_is_in_a_batch_of_its_own_budget(name: str, backend: str) -> None:
    """Kept tokens, ids and the logits of every step of a row do not depend on what its neighbours keep."""
    tiny = FAMILY_MODELS[name]
    model, inputs = tiny.build(backend), tiny.batch("padded")
    family, rows = find_family(model), len(inputs["input_ids"])
    whole = plan_for(model, rows, STAGES, keeps=KEEPS)
    with apply_plan(model, family, whole) as surgery:
        mixed = generate(model, inputs)
        kept = [[stage.row(row) for stage in surgery.last] for row in range(rows)]
    assert len({tuple(map(len, stages)) for stages in kept}) == min(rows, 3)
    for row, own in enumerate(whole.rows):
        alike = replace(whole, rows=tuple(replace(other, keeps=own.keeps) for other in whole.rows))
        with apply_plan(model, family, alike) as surgery:
            same = generate(model, inputs)
            assert [stage.row(row) for stage in surgery.last] == kept[row]
        assert torch.equal(same.sequences[row], mixed.sequences[row])
        for mine, its in zip(mixed.logits, same.logits, strict=True):
            assert torch.allclose(mine[row], its[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_is_what_it_is_alone(backend: str) -> None:
    """One prompt without padding and without neighbours, under a plan whose stages have its numbers."""
    model, inputs = build(backend), batch("padded")
    family, whole = find_family(model), plan_for(model, 3, STAGES, keeps=KEEPS)
    with apply_plan(model, family, whole):
        mixed = generate(model, inputs)
    for row, own in enumerate(whole.rows):
        real = inputs["attention_mask"][row].bool()
        one = {
            "input_ids": inputs["input_ids"][row : row + 1, real],
            "attention_mask": inputs["attention_mask"][row : row + 1, real],
            "pixel_values": inputs["pixel_values"][row : row + 1],
        }
        keeps = own.keeps or tuple(keep for _, keep in STAGES)
        stages = tuple((layer, keep) for (layer, _), keep in zip(STAGES, keeps, strict=True))
        with apply_plan(model, family, PrunePlan(stages, (replace(own, keeps=None),))):
            alone = generate(model, one)
        for mine, its in zip(mixed.logits, alone.logits, strict=True):
            assert torch.allclose(mine[row], its[0], atol=1e-5, rtol=1e-5)


def test_one_of_several_plans_that_share_the_first_layers() -> None:
    """Copies of prompts that keep different numbers are run once up to the first stage, and answer as alone."""
    model, inputs = build(), batch("padded")
    family, rows = find_family(model), len(inputs["input_ids"])
    base = plan_for(model, rows, STAGES)
    plans = [replace(base, rows=tuple(replace(row, keeps=keeps) for row in base.rows)) for keeps in KEEPS]
    whole = replace(base, rows=tuple(row for plan in plans for row in plan.rows))
    seen: list[int] = []
    layer: Any = family.decoder_layers(model)[0]
    probe = layer.self_attn.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"]).shape[0]), with_kwargs=True
    )
    with share_start(model, family, STAGES[0][0], len(plans)), apply_plan(model, family, whole):
        shared = generate(model, copied(inputs, len(plans)))
    probe.remove()
    assert seen[0] == rows
    for number, plan in enumerate(plans):
        with apply_plan(model, family, plan):
            alone = generate(model, inputs)
        part = slice(number * rows, (number + 1) * rows)
        assert torch.equal(shared.sequences[part], alone.sequences)
        for mine, its in zip(shared.logits, alone.logits, strict=True):
            assert torch.allclose(mine[part], its, atol=1e-5, rtol=1e-5)


def test_beams_equal_the_masked_model() -> None:
    """Rows repeated for beams keep what their prompt keeps."""
    model, inputs = build(), batch("padded")
    how: dict[str, Any] = {"num_beams": 3, "do_sample": False, "max_new_tokens": 8}
    with apply_plan(model, find_family(model), plan_for(model, 3, STAGES, keeps=KEEPS)) as surgery:
        got = model.generate(**inputs, **how)
        kept = {stage.after_layer: [[i for i, _ in stage.row(row)] for row in range(3)] for stage in surgery.last}
    assert torch.equal(got, masked_generate(model, inputs, kept, 3, **how))


@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_before_the_decoder_and_renumbered(positions: str) -> None:
    """A stage at the entrance and closed-up positions: a row equals the one in a batch of its own numbers."""
    model, inputs = build(), batch("padded")
    family, stages = find_family(model), ((-1, 14), (2, 5))
    keeps = ((20, 2), None, (ALL, 9))
    whole = plan_for(model, 3, stages, keeps=keeps, saliency="cls", positions=positions)
    with apply_plan(model, family, whole):
        mixed = generate(model, inputs)
    for row, own in enumerate(whole.rows):
        alike = replace(whole, rows=tuple(replace(other, keeps=own.keeps) for other in whole.rows))
        with apply_plan(model, family, alike):
            same = generate(model, inputs)
        for mine, its in zip(mixed.logits, same.logits, strict=True):
            assert torch.allclose(mine[row], its[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("keeps", "says"),
    [
        ((9, 5), "one number per stage is needed, and there are 3 stages"),
        ((9, 5, 2, 1), "one number per stage"),
        ((), "one number per stage"),
        ((9, 5, 0), "at least one token"),
        ((9, 10, 2), "more tokens than the one before"),
    ],
)
def test_numbers_that_cannot_be_kept_are_refused(keeps: tuple[int, ...], says: str) -> None:
    """Length, minimum and order; the text names the row."""
    row = RowPlan((3,), (1.0,), 0.5)
    with pytest.raises(UsageError, match=f"row 1 of the plan keeps .*{says}"):
        PrunePlan(STAGES, (row, replace(row, keeps=keeps)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=5),
    st.sampled_from(["absolute", "share"]),
    st.lists(st.integers(1, 100), min_size=3, max_size=3).map(lambda found: tuple(sorted(found, reverse=True))),
)
def test_numbers_scale_like_those_of_the_stages(tokens: list[int], scaling: str, keeps: tuple[int, ...]) -> None:
    """A row's own numbers mean what the stages' numbers would mean, for pictures of any size, in either scaling."""
    pictures = [1] * len(tokens)
    bare = RowPlan((3,), (1.0,), 0.5)
    own = PrunePlan(STAGES, (replace(bare, keeps=keeps),) * len(tokens), scaling=scaling, visual_tokens=100)
    stages = tuple((layer, keep) for (layer, _), keep in zip(STAGES, keeps, strict=True))
    wanted = PrunePlan(stages, (bare,) * len(tokens), scaling=scaling, visual_tokens=100)
    assert own.keeps(tokens, pictures) == wanted.keeps(tokens, pictures)
    half = PrunePlan(STAGES, (replace(bare, keeps=keeps), bare) * len(tokens), scaling=scaling, visual_tokens=100)
    doubled = [count for count in tokens for _ in range(2)]
    mine, plain = half.keeps(doubled, [1] * len(doubled)), replace(wanted, stages=STAGES).keeps(tokens, pictures)
    assert [row[::2] for row in mine] == wanted.keeps(tokens, pictures)
    assert [row[1::2] for row in mine] == plain
