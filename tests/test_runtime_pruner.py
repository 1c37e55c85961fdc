"""The two oracles of design section 4, and that nothing is left on the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_llava import GRID, IMAGE_TOKEN, tiny_batch, tiny_llava

from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.runtime.families import FAMILIES, find_family
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan

VISUAL = GRID * GRID
BACKENDS = ("sdpa", "eager")
BATCHES = ([5], [5, 5], [3, 8, 5])
STAGES = ((1, 20), (2, 11), (3, 4))
NEW_TOKENS = 16
FAMILY_MODELS: dict[str, Callable[[str], Any]] = {"llava": tiny_llava}  # a tiny random model per row of FAMILIES


def plan_for(rows: int, stages: tuple[tuple[int, int], ...] = STAGES, layers: tuple[int, ...] = (3,)) -> PrunePlan:
    """Every row another split; layers with equal weight."""
    weights = tuple(1 / len(layers) for _ in layers)
    return PrunePlan(stages, tuple(RowPlan(layers, weights, (0.6, 0.0, 1.0)[row % 3]) for row in range(rows)))


def generate(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    """Greedy answer with the logits of every step."""
    return model.generate(
        **batch, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_identity(family: str, backend: str, lengths: list[int]) -> None:
    """One-hot on the model's own layer and all tokens kept: the stock model, bit for bit, over 16 decode steps."""
    model, batch = FAMILY_MODELS[family](backend), tiny_batch(lengths)
    stock = generate(model, batch)
    with apply_plan(model, find_family(model), plan_for(len(lengths), ((1, VISUAL), (3, VISUAL)))):
        pruned = generate(model, batch)
    assert torch.equal(stock.sequences, pruned.sequences)
    assert all(torch.equal(a, b) for a, b in zip(stock.logits, pruned.logits, strict=True))


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_removal_equals_masking(family: str, backend: str, lengths: list[int]) -> None:
    """Physical removal equals keeping every token and masking the dropped ones as keys from the stage on."""
    model, batch = FAMILY_MODELS[family](backend), tiny_batch(lengths)
    with apply_plan(model, find_family(model), plan_for(len(lengths))) as stages:
        answer = generate(model, batch)
        trace = stages.trace
        caches = [layer.keys.shape[2] for layer in answer.past_key_values.layers]
    kept = {stage.after_layer: stage.kept for stage in trace}
    full = batch["input_ids"].shape[1]
    assert caches == [full + NEW_TOKENS - 1 - (VISUAL - n) for n in (VISUAL, VISUAL, 20, 11, 4, 4)]

    sequence = torch.cat((batch["input_ids"], answer.sequences[:, full:-1]), dim=1)
    mask = torch.cat((batch["attention_mask"], torch.ones(len(lengths), NEW_TOKENS - 1, dtype=torch.long)), dim=1)
    want = masked_forward(model, sequence, mask, batch["pixel_values"], kept)
    got = torch.stack(answer.logits, dim=1)
    assert (got - want[:, full - 1 :]).abs().max() <= 1e-5 * want.abs().max().clamp_min(1.0)


def masked_forward(model: Any, ids: Any, mask: Any, pixels: Any, kept: dict[int, Any]) -> torch.Tensor:
    """One forward over the whole sequence with a mask per layer, written apart from the pruner's hooks."""
    rows, length = ids.shape
    visual = (ids == IMAGE_TOKEN).nonzero()[:, 1].view(rows, -1)
    handles = []
    for index, layer in enumerate(model.model.language_model.layers):
        allowed = torch.ones(rows, length, dtype=torch.bool) & mask.bool()
        for stage, indices in kept.items():
            if index > stage:
                gone = torch.ones(rows, VISUAL, dtype=torch.bool).scatter(1, indices, False)
                allowed = allowed & ~torch.zeros(rows, length, dtype=torch.bool).scatter(1, visual, gone)
        causal = torch.ones(length, length, dtype=torch.bool).tril()[None] & allowed[:, None]
        bias = torch.zeros(rows, 1, length, length).masked_fill(~causal[:, None], torch.finfo(torch.float32).min)

        def use(_: Any, args: Any, kwargs: Any, bias: torch.Tensor = bias) -> Any:
            return args, {**kwargs, "attention_mask": bias}

        handles.append(layer.register_forward_pre_hook(use, with_kwargs=True))
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    try:
        with torch.no_grad():
            logits: torch.Tensor = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, pixel_values=pixels
            ).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits


def test_rows_of_a_batch_answer_as_alone() -> None:
    """Mixed splits and lengths in one left-padded batch: every row as if it were alone."""
    model, batch = tiny_llava(), tiny_batch([3, 8, 5])
    plan, family = plan_for(3, layers=(1, 3)), find_family(model)
    with apply_plan(model, family, plan) as stages:
        together = generate(model, batch)
        trace = stages.trace
    for row in range(3):
        real = batch["attention_mask"][row].bool()
        single = {
            "input_ids": batch["input_ids"][row : row + 1, real],
            "attention_mask": batch["attention_mask"][row : row + 1, real],
            "pixel_values": batch["pixel_values"][row : row + 1],
        }
        with apply_plan(model, family, PrunePlan(STAGES, (plan.rows[row],))) as stages:
            alone = generate(model, single)
            assert all(torch.equal(a.kept[0], b.kept[row]) for a, b in zip(stages.trace, trace, strict=True))
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
    with apply_plan(model, family, plan_for(1)):
        with pytest.raises(UsageError, match="num_return_sequences"):
            model.generate(**batch, num_beams=2, max_new_tokens=2)
        with pytest.raises(UsageError, match="static cache"):
            model.generate(**batch, cache_implementation="static", max_new_tokens=2)
    bad = {**batch, "pixel_values": batch["pixel_values"] * float("nan")}
    with pytest.raises(BadDataError, match="NaN"), apply_plan(model, family, plan_for(1)):
        model.generate(**bad, max_new_tokens=2)
    ends_with_picture = {key: value[:, : 2 + VISUAL] for key, value in batch.items() if key != "pixel_values"}
    with pytest.raises(UsageError, match="text after"), apply_plan(model, family, plan_for(1)):
        model.generate(**ends_with_picture, pixel_values=batch["pixel_values"], max_new_tokens=2)


def test_half_precision_runs() -> None:
    """bfloat16: the budget holds and the trace is in range."""
    model, batch = tiny_llava(dtype=torch.bfloat16), tiny_batch([3, 8])
    batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
    with apply_plan(model, find_family(model), plan_for(2)) as stages:
        generate(model, batch)
        assert [stage.kept.shape for stage in stages.trace] == [(2, 20), (2, 11), (2, 4)]
