"""Fusion, batches, refusals, and that nothing is left on the model; the oracles are in test_runtime_families.py."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from family_models import FAMILY_MODELS
from tiny_llava import GRID, IMAGE_TOKEN, tiny_batch, tiny_llava

from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.runtime.families import find_family
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan

VISUAL = GRID * GRID
STAGES = ((1, 20), (2, 11), (3, 4))
NEW_TOKENS = 16


def plan_for(rows: int, stages: tuple[tuple[int, int], ...] = STAGES, layers: tuple[int, ...] = (3,)) -> PrunePlan:
    """Every row another split; layers with equal weight."""
    weights = tuple(1 / len(layers) for _ in layers)
    return PrunePlan(stages, tuple(RowPlan(layers, weights, (0.6, 0.0, 1.0)[row % 3]) for row in range(rows)))


def generate(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    """Greedy answer with the logits of every step."""
    return model.generate(
        **batch, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )


def test_rows_of_a_batch_answer_as_alone() -> None:
    """Mixed splits and lengths in one left-padded batch: every row as if it were alone."""
    model, batch = tiny_llava(), tiny_batch([3, 8, 5])
    plan, family = plan_for(3, layers=(1, 3)), find_family(model)
    with apply_plan(model, family, plan) as stages:
        together = generate(model, batch)
        trace = stages.last
    for row in range(3):
        real = batch["attention_mask"][row].bool()
        single = {
            "input_ids": batch["input_ids"][row : row + 1, real],
            "attention_mask": batch["attention_mask"][row : row + 1, real],
            "pixel_values": batch["pixel_values"][row : row + 1],
        }
        with apply_plan(model, family, PrunePlan(STAGES, (plan.rows[row],))) as stages:
            alone = generate(model, single)
            assert all(torch.equal(a.kept[0], b.kept[row]) for a, b in zip(stages.last, trace, strict=True))
        assert torch.equal(alone.sequences[0, -NEW_TOKENS:], together.sequences[row, -NEW_TOKENS:])


def test_fusion_equals_a_projector_call_on_the_mean() -> None:
    """Half layer 1, half layer 3, nothing pruned: the model fed with projected means by hand."""
    model, batch = tiny_llava(), tiny_batch([5])
    family = find_family(model)
    layers = family.vision_layers(model, batch["pixel_values"])
    assert layers.shape == (5, 1, VISUAL, 32)
    with torch.no_grad():
        tower = model.model.vision_tower(batch["pixel_values"], output_hidden_states=True).hidden_states
        assert all(torch.equal(a[:, 1:], b) for a, b in zip(tower, layers, strict=True))
        tokens = family.project(model, (layers[1] + layers[3]) / 2)
        ids = batch["input_ids"]
        embeds = model.get_input_embeddings()(ids).masked_scatter((ids == IMAGE_TOKEN)[:, :, None], tokens)
        want = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
        with apply_plan(model, family, plan_for(1, ((1, VISUAL),), (1, 3))):
            got = model(**batch).logits
    assert torch.allclose(got, want, atol=1e-5)


def hooks_on(model: Any) -> int:
    """Number of hooks on any module."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_nothing_is_left_also_after_an_exception() -> None:
    """Hooks go away and the stock answer is back, bit for bit."""
    model, batch = tiny_llava(), tiny_batch([5])
    stock = generate(model, batch)
    before = hooks_on(model)  # transformers leaves some of its own at the first forward
    with pytest.raises(BadDataError), apply_plan(model, find_family(model), plan_for(1)):
        generate(model, {**batch, "pixel_values": batch["pixel_values"] * float("inf")})
    with pytest.raises(UsageError), apply_plan(model, find_family(model), plan_for(2)):
        generate(model, batch)
    assert hooks_on(model) == before
    assert all(torch.equal(a, b) for a, b in zip(stock.logits, generate(model, batch).logits, strict=True))


def test_a_prompt_without_picture_passes_through() -> None:
    """Text only: the stock model's answer inside the block too."""
    model = tiny_llava()
    batch = {"input_ids": torch.tensor([[1, 20, 30]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    stock = generate(model, batch)
    with apply_plan(model, find_family(model), plan_for(1)):
        assert torch.equal(stock.sequences, generate(model, batch).sequences)


def test_a_second_turn_on_the_pruned_cache() -> None:
    """More text after a pruned prefill, several tokens at once, equals the same tokens one by one."""
    model, batch = tiny_llava(), tiny_batch([3, 6])
    extra = torch.tensor([[11, 12, 13], [21, 22, 23]])
    mask = torch.cat((batch["attention_mask"], torch.ones(2, 3, dtype=torch.long)), dim=1)
    with torch.no_grad(), apply_plan(model, find_family(model), plan_for(2)):
        cache = model(**batch, use_cache=True).past_key_values
        together = model(input_ids=extra, attention_mask=mask, past_key_values=cache).logits
        cache = model(**batch, use_cache=True).past_key_values
        full = batch["input_ids"].shape[1]
        steps = [
            model(input_ids=extra[:, i : i + 1], attention_mask=mask[:, : full + i + 1], past_key_values=cache).logits
            for i in range(3)
        ]
    assert torch.allclose(together, torch.cat(steps, dim=1), atol=1e-4)


def test_refusals() -> None:
    """What is not supported says so instead of answering wrongly."""
    model, family = tiny_llava(), None
    family = find_family(model)
    batch = tiny_batch([4])
    with pytest.raises(UsageError, match="2 intents were given"), apply_plan(model, family, plan_for(2)):
        model.generate(**batch, max_new_tokens=2)
    with pytest.raises(UsageError, match="2 rows but 3"), apply_plan(model, family, plan_for(3)):
        model(**tiny_batch([4, 4]))
    bad = {**batch, "pixel_values": batch["pixel_values"] * float("nan")}
    with pytest.raises(BadDataError, match="NaN"), apply_plan(model, family, plan_for(1)):
        model.generate(**bad, max_new_tokens=2)
    ends_with_picture = {key: value[:, : 2 + VISUAL] for key, value in batch.items() if key != "pixel_values"}
    with pytest.raises(UsageError, match="text after"), apply_plan(model, family, plan_for(1)):
        model.generate(**ends_with_picture, pixel_values=batch["pixel_values"], max_new_tokens=2)
    right = {key: value.flip(1) if key != "pixel_values" else value for key, value in tiny_batch([3, 6]).items()}
    with pytest.raises(UsageError, match="padded on the left"), apply_plan(model, family, plan_for(2)):
        model(**right)
    two = {**batch, "pixel_values": torch.cat((batch["pixel_values"], batch["pixel_values"]))}
    with pytest.raises(UsageError, match="placeholders"), apply_plan(model, family, plan_for(1)):
        model.generate(**two, max_new_tokens=2)
    with apply_plan(model, family, plan_for(1)):
        with pytest.raises(UsageError, match="pruned already"), apply_plan(model, family, plan_for(1)):
            pass
        assert model.generate(**batch, max_new_tokens=2).shape == (1, batch["input_ids"].shape[1] + 2)


def test_ready_made_features_are_not_fused_silently() -> None:
    """Features computed outside of the call pass where the plan is the stock model's layer, else they are refused."""
    model, batch = tiny_llava(), tiny_batch([4])
    family = find_family(model)
    with torch.no_grad():
        features = model.get_image_features(batch["pixel_values"], return_dict=True)
    given = {key: value for key, value in batch.items() if key != "pixel_values"}
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("this release of transformers takes no features")
    with torch.no_grad(), apply_plan(model, family, plan_for(1)) as surgery:
        want = model(**batch).logits
        kept = [stage.kept for stage in surgery.last]
        assert torch.equal(model(**given, mm_encoder_outputs={"image": features}).logits, want)
        assert all(torch.equal(a, b.kept) for a, b in zip(kept, surgery.last, strict=True))
    with pytest.raises(UsageError, match="ready-made"), apply_plan(model, family, plan_for(1, layers=(1, 3))):
        model(**given, mm_encoder_outputs={"image": features})


@pytest.mark.parametrize("call", ["generate", "forward"])
@pytest.mark.parametrize("name", list(FAMILY_MODELS))
def test_every_picture_gets_its_prompts_fusion(name: str, call: str) -> None:
    """Two prompts of different classes, one with two pictures: visual tokens as with each class for the whole batch."""
    tiny = FAMILY_MODELS[name]
    model, batch = tiny.build(), tiny.batch("several")
    family = find_family(model)
    fusions = (RowPlan((1, 3), (0.25, 0.75), 0.5), RowPlan((2,), (1.0,), 0.5))

    def entrance(*rows: int) -> torch.Tensor:
        plan = PrunePlan((), tuple(fusions[row] for row in rows))
        seen: list[torch.Tensor] = []
        handle = family.decoder(model).register_forward_pre_hook(
            lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
        )
        with torch.no_grad(), apply_plan(model, family, plan):
            model(**batch) if call == "forward" else model.generate(**batch, max_new_tokens=1)
        handle.remove()
        return seen[0]

    mixed, first, second = entrance(0, 1), entrance(0, 0), entrance(1, 1)
    assert not torch.equal(first, second)
    assert torch.equal(mixed[0], first[0])
    assert torch.equal(mixed[1], second[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(FAMILY_MODELS))
def test_half_precision_runs(name: str, dtype: torch.dtype) -> None:
    """Left-padded prompts in half precision, fused and pruned: finite logits, and exactly the budget kept."""
    tiny = FAMILY_MODELS[name]
    model, batch = tiny.build(dtype=dtype), tiny.batch("padded")
    batch = {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch.items()}
    with apply_plan(model, find_family(model), plan_for(3, ((1, 9), (2, 5), (3, 2)), (1, 3))) as surgery:
        answer = model.generate(**batch, max_new_tokens=4, output_logits=True, return_dict_in_generate=True)
    assert all(bool(torch.isfinite(logits).all()) for logits in answer.logits)
    pictures = {"internvl": (1, 3, 2)}.get(name, (1, 1, 1))  # every tile is a picture there
    kept = [[len(stage.row(row)) for row in range(3)] for stage in surgery.last]
    assert kept == [[keep * count for count in pictures] for keep in (9, 5, 2)]
