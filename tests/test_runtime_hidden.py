"""Cosines of the stage's own hidden states, and saliency from outside: options of a plan that no profile has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from family_models import CASES, FAMILY_MODELS, visual_mask
from family_oracles import generate, plan_for, removal_difference

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families import find_family
from claspkit.runtime.gram import cosine_gram, repeat_rows
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.selection import select
from claspkit.runtime.shared_start import share_start

STAGES = ((1, 12), (2, 7), (3, 3))


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize(("family", "kind"), [case for case in CASES if case[1] in ("padded", "several", "mixed")])
def test_removal_equals_masking(family: str, kind: str, backend: str) -> None:
    """Whatever the features, what was dropped is gone for every later layer and decode step."""
    tiny = FAMILY_MODELS[family]
    assert removal_difference(tiny.build(backend), tiny.batch(kind), tiny, STAGES, features="hidden") <= 1e-5


@pytest.mark.parametrize("family", ["llava", "qwen2.5-vl"])
def test_the_kept_tokens_follow_from_the_layers_output(family: str) -> None:
    """What the first stage kept is what selection makes of the hidden states that a probe saw leave its layer."""
    tiny = FAMILY_MODELS[family]
    model, batch = tiny.build(), tiny.batch("single")
    chosen = find_family(model)
    seen: list[torch.Tensor] = []
    layer: Any = chosen.decoder_layers(model)[1]
    probe = layer.register_forward_hook(
        lambda _, __, output: seen.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    plan = replace(plan_for(model, 1, ((1, 6), (3, 3))), features="hidden")
    with apply_plan(model, chosen, replace(plan, stages=((1, 10**6), (3, 10**6)))) as surgery:
        generate(model, batch, max_new_tokens=1)
        assert surgery.last == ()  # nothing to drop, so nothing is kept for later either
    seen.clear()
    with apply_plan(model, chosen, plan) as surgery:
        generate(model, batch, max_new_tokens=1)
        stage = surgery.last[0]
    probe.remove()
    with apply_plan(model, chosen, replace(plan, stages=((1, 6),), rows=(replace(plan.rows[0], rho=1.0),))) as surgery:
        generate(model, batch, max_new_tokens=1)
        pivots = surgery.last[0].kept[0].tolist()  # attention alone: which tokens are most salient
    visual = visual_mask(model, chosen, batch["input_ids"])[0]
    hidden = seen[0][:, visual]
    assert hidden.shape[1] == int(visual.sum())
    salient = torch.full((1, hidden.shape[1]), -1.0)
    order = stage.saliency[0]
    salient[0, stage.kept[0]] = order
    head = [token for token, why in stage.row(0) if why == "pivot"]
    assert set(head) <= set(pivots)
    found = select(salient, cosine_gram(hidden), 6, [len(head)])
    assert torch.equal(found.kept[0], stage.kept[0])


def test_the_features_matter() -> None:
    """On hidden states another set is kept than on the decoder's inputs, and by attention alone the same."""
    tiny = FAMILY_MODELS["llava"]
    model, batch = tiny.build(), tiny.batch("padded")
    rows, kept = len(batch["input_ids"]), {}
    for rho in (0.0, 1.0):
        for features in ("aligned", "hidden"):
            plan = plan_for(model, rows, STAGES, features=features)
            plan = replace(plan, rows=tuple(replace(row, rho=rho) for row in plan.rows))
            with apply_plan(model, find_family(model), plan) as surgery:
                generate(model, batch, max_new_tokens=1)
                kept[rho, features] = [stage.row(row) for stage in surgery.last for row in range(rows)]
    assert kept[1.0, "aligned"] == kept[1.0, "hidden"]
    assert kept[0.0, "aligned"] != kept[0.0, "hidden"]


@pytest.mark.parametrize("family", ["llava", "qwen2.5-vl"])
def test_rows_are_what_each_is_alone(family: str) -> None:
    """Copies that share the layers before the first stage, left-padded, answer as each plan does by itself."""
    tiny = FAMILY_MODELS[family]
    model, batch = tiny.build(), tiny.batch("padded")
    rows, chosen = len(batch["input_ids"]), find_family(model)
    base = plan_for(model, rows, ((1, 6), (3, 3)), features="hidden")
    plans = [replace(base, rows=tuple(replace(row, rho=rho) for row in base.rows)) for rho in (0.0, 0.5)]
    whole = replace(base, rows=(*plans[0].rows, *plans[1].rows))
    copies = {name: repeat_rows(value, 2) for name, value in batch.items()}
    with share_start(model, chosen, 1, 2), apply_plan(model, chosen, whole):
        together = generate(model, copies)
    for number, plan in enumerate(plans):
        with apply_plan(model, chosen, plan):
            alone = generate(model, batch)
        part = slice(number * rows, (number + 1) * rows)
        assert torch.equal(together.sequences[part], alone.sequences)


def test_a_stage_before_the_decoder_has_its_inputs_as_hidden_states() -> None:
    """There both features are the same thing; later stages differ."""
    tiny = FAMILY_MODELS["llava"]
    model, batch = tiny.build(), tiny.batch("single")
    kept = []
    for features in ("aligned", "hidden"):
        plan = plan_for(model, 1, ((-1, 9), (2, 4)), features=features, saliency="cls")
        with apply_plan(model, find_family(model), plan) as surgery:
            generate(model, batch, max_new_tokens=1)
            kept.append([stage.kept.tolist() for stage in surgery.last])
    assert kept[0][0] == kept[1][0]
    assert [len(stage[0]) for stage in kept[1]] == [9, 4]


def test_unknown_features_are_refused() -> None:
    """The error lists those that exist."""
    with pytest.raises(UsageError, match="features 'pixels' do not exist; there are: aligned, hidden"):
        PrunePlan(((1, 6),), (RowPlan((1,), (1.0,), 0.5),), features="pixels")


def test_saliency_from_outside_decides_what_is_kept() -> None:
    """With scores that are announced, and attention alone, the kept tokens are the highest scored ones of every row."""
    tiny = FAMILY_MODELS["llava"]
    model, batch = tiny.build(), tiny.batch("padded")
    chosen, ids = find_family(model), batch["input_ids"]
    visual = visual_mask(model, chosen, ids)
    tokens = int(visual.sum(dim=1).max())
    scores = torch.rand(len(ids), tokens, generator=torch.Generator().manual_seed(3))
    plan = plan_for(model, len(ids), ((1, 6), (3, 3)), saliency="cls")
    plan = replace(plan, rows=tuple(replace(row, rho=1.0) for row in plan.rows))
    with torch.inference_mode(), apply_plan(model, chosen, plan) as surgery:
        surgery.expect(visual, scores=scores)
        embeds = model.get_input_embeddings()(ids)
        model.generate(inputs_embeds=embeds, attention_mask=batch["attention_mask"], max_new_tokens=2, do_sample=False)
        kept = [stage.kept.tolist() for stage in surgery.last]
    for stage, count in zip(kept, (6, 3), strict=True):
        for row, (found, places) in enumerate(zip(stage, visual.sum(dim=1).tolist(), strict=True)):
            best = scores[row, :places].topk(count).indices.sort().values
            assert found == best.tolist()
    with apply_plan(model, chosen, plan) as surgery, torch.inference_mode():
        surgery.expect(visual)
        with pytest.raises(UsageError, match="comes from the vision encoder"):
            model.generate(inputs_embeds=embeds, attention_mask=batch["attention_mask"], max_new_tokens=1)
