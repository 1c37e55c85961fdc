"""What works with pruning beside greedy decoding, against the masked model; what is refused, and its reason."""

from __future__ import annotations

import threading
from inspect import signature
from typing import Any

import pytest
import torch
from family_models import FAMILY_MODELS, dropped_tokens_masked, visual_mask
from family_oracles import generate, plan_for, removal_difference
from tiny_llava import GRID, batch, build, full_inputs, tiny_batch
from transformers import DynamicCache

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families import find_family
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan

VISUAL = GRID * GRID
STAGES = ((1, 20), (2, 11), (3, 4))


def masked_generate(model: Any, inputs: dict[str, torch.Tensor], kept: dict[int, Any], repeats: int, **how: Any) -> Any:
    """The stock model generating with the dropped tokens masked; rows of one prompt repeated ``repeats`` times."""
    family = find_family(model)
    visual = visual_mask(model, family, inputs["input_ids"]).repeat_interleave(repeats, dim=0)
    real = inputs["attention_mask"].repeat_interleave(repeats, dim=0)
    rows = {layer: [row for row in alive for _ in range(repeats)] for layer, alive in kept.items()}
    with dropped_tokens_masked(model, family, visual, real, rows):
        return model.generate(**inputs, **how)


@pytest.mark.parametrize("how", [{"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True, "top_k": 20}])
def test_repeated_prompts_with_several_pictures(how: dict[str, Any]) -> None:
    """Right where transformers repeats pictures prompt by prompt; refused where it mixes them up."""
    model, inputs = build(), batch("several")
    with apply_plan(model, find_family(model), plan_for(model, 2, STAGES)) as surgery:
        torch.manual_seed(3)
        if "mm_encoder_outputs" not in signature(model.forward).parameters:
            with pytest.raises(UsageError, match="mixes up"):
                model.generate(**inputs, max_new_tokens=6, **how)
            return
        got = model.generate(**inputs, max_new_tokens=6, **how)
        kept = {stage.after_layer: [[i for i, _ in stage.row(row)] for row in range(2)] for stage in surgery.last}
    torch.manual_seed(3)
    repeats = how.get("num_beams", 1) * how.get("num_return_sequences", 1)
    assert torch.equal(got, masked_generate(model, inputs, kept, repeats, max_new_tokens=6, **how))


@pytest.mark.parametrize(
    ("repeats", "how"),
    [
        (3, {"num_beams": 3, "do_sample": False}),
        (3, {"num_beams": 3, "num_return_sequences": 2, "do_sample": False}),
        (2, {"num_return_sequences": 2, "do_sample": True, "top_k": 20}),
        (1, {"do_sample": True, "top_k": 20}),
        (1, {"prompt_lookup_num_tokens": 3, "do_sample": False}),
        (1, {"use_cache": False, "do_sample": False}),
    ],
    ids=["beams", "beams-returned", "sampled-returned", "sampled", "prompt-lookup", "no-cache"],
)
def test_ways_of_generating_equal_the_masked_model(repeats: int, how: dict[str, Any]) -> None:
    """The same sequences as the stock model with the dropped tokens masked, prompt by prompt."""
    model = build()
    inputs = batch("single" if "prompt_lookup_num_tokens" in how else "padded")
    rows, how = len(inputs["input_ids"]), {"max_new_tokens": 12, **how}
    torch.manual_seed(3)
    with apply_plan(model, find_family(model), plan_for(model, rows, STAGES)) as surgery:
        got = model.generate(**inputs, **how)
        kept = {stage.after_layer: [[i for i, _ in stage.row(row)] for row in range(rows)] for stage in surgery.last}
    assert [len(alive[0]) for alive in kept.values()] == [20, 11, 4]
    torch.manual_seed(3)
    if how.get("use_cache") is False:  # the reference masks a prompt and what follows it, not prompts that grow
        how = {**how, "use_cache": True}
    assert torch.equal(got, masked_generate(model, inputs, kept, repeats, **how))


def test_an_assistant_model_drafts_for_the_pruned_one() -> None:
    """Assisted decoding gives the pruned model's own greedy answer; drafts never count as prompt."""
    model, helper, inputs = build(), build(seed=5), batch("single")
    with apply_plan(model, find_family(model), plan_for(model, 1, STAGES)) as surgery:
        alone = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        kept = [stage.kept for stage in surgery.last]
        assisted = model.generate(**inputs, max_new_tokens=12, do_sample=False, assistant_model=helper)
        assert all(torch.equal(a, b.kept) for a, b in zip(kept, surgery.last, strict=True))
    assert torch.equal(alone, assisted)


@pytest.mark.parametrize("kind", ["padded", "several", "mixed"])
def test_renumbered_positions(kind: str) -> None:
    """``renumber`` equals the masked model whose layers turn by the closed-up position ids."""
    model, inputs = build(), batch(kind)
    family = find_family(model)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    rows, full = ids.shape
    with apply_plan(model, family, plan_for(model, rows, STAGES, positions="renumber")) as surgery:
        answer = generate(model, inputs)
        kept = {stage.after_layer: [[i for i, _ in stage.row(row)] for row in range(rows)] for stage in surgery.last}
    visual = visual_mask(model, family, ids)
    sequence = torch.cat((ids, answer.sequences[:, full:-1]), dim=1)
    longer = torch.cat((mask, torch.ones(rows, sequence.shape[1] - full, dtype=mask.dtype)), dim=1)
    handles, decoder = [], family.decoder(model)
    inner: Any = decoder
    for index, layer in enumerate(family.decoder_layers(model)):
        below = [stage for stage in kept if stage < index]
        if not below:
            continue
        alive = longer.bool().clone()
        for row in range(rows):
            for number, place in enumerate(visual[row].nonzero()[:, 0].tolist()):
                alive[row, place] = number in kept[max(below)][row]
        closed = (alive.cumsum(dim=1) - 1).clamp_min(0)

        def turn(_: Any, args: Any, kwargs: Any, closed: torch.Tensor = closed) -> Any:
            return args, {**kwargs, "position_embeddings": inner.rotary_emb(args[0], position_ids=closed)}

        handles.append(layer.register_forward_pre_hook(turn, with_kwargs=True))
    with torch.no_grad(), dropped_tokens_masked(model, family, visual, mask, kept):
        want = model(**full_inputs(inputs, sequence, longer)).logits[:, full - 1 :]
    for handle in handles:
        handle.remove()
    assert (torch.stack(answer.logits, dim=1) - want).abs().max() <= 1e-5 * want.abs().max()


def test_renumber_is_refused_for_positions_of_several_axes() -> None:
    """M-RoPE has no order of its positions that could be closed up."""
    tiny = FAMILY_MODELS["qwen2.5-vl"]
    model, inputs = tiny.build(), tiny.batch("single")
    plan = plan_for(model, 1, ((1, 5),), positions="renumber")
    with pytest.raises(UsageError, match="several axes"), apply_plan(model, find_family(model), plan):
        generate(model, inputs)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["single", "padded", "several", "mixed"])
def test_a_stage_before_the_decoder(kind: str, backend: str) -> None:
    """[CLS] saliency, pruned before layer 0: the stock decoder on the shortened prompt with its position ids."""
    model, inputs = build(backend), batch(kind)
    family, rows = find_family(model), len(inputs["input_ids"])
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    full = ids.shape[1]
    with apply_plan(model, family, plan_for(model, rows, ((-1, 14), (2, 5)), saliency="cls")) as surgery:
        answer = generate(model, inputs)
        first, second = surgery.last
    assert answer.past_key_values.layers[0].keys.shape[2] < full
    visual = visual_mask(model, family, ids)
    want = []
    for row in range(rows):
        keep = mask[row].bool().clone()
        alive = [token for token, _ in first.row(row)]
        for number, place in enumerate(visual[row].nonzero()[:, 0].tolist()):
            keep[place] = number in alive
        with torch.no_grad():
            embeds = entrance(model, inputs)[row : row + 1, keep]
            steps = model.get_input_embeddings()(answer.sequences[row : row + 1, full:-1])
            places = (mask[row].cumsum(0) - 1)[keep]
            places = torch.cat((places, places[-1] + 1 + torch.arange(steps.shape[1])))[None]
            later = [token for token, _ in second.row(row)]
            shown = visual[row, keep][None]
            rest = [number for number, token in enumerate(alive) if token in later]
            ones = torch.ones_like(shown, dtype=torch.long)
            with dropped_tokens_masked(model, family, shown, ones, {2: [rest]}):
                hidden = model.model.language_model(
                    inputs_embeds=torch.cat((embeds, steps), dim=1),
                    attention_mask=torch.ones(1, places.shape[1], dtype=torch.long),
                    position_ids=places,
                    use_cache=False,
                ).last_hidden_state
            want.append(model.lm_head(hidden)[0, -steps.shape[1] - 1 :])
    got = torch.stack(answer.logits, dim=1)
    assert (got - torch.stack(want)).abs().max() <= 1e-5 * got.abs().max()


def entrance(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Decoder inputs of the stock model, (B, S, D)."""
    seen: list[torch.Tensor] = []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen[0]


def test_cls_saliency_is_the_encoders_own_attention() -> None:
    """With rho 1 the most attended patches are kept, by the eager attention map of the layer the model reads."""
    model, inputs = build("eager"), batch("padded")
    family = find_family(model)
    plan = PrunePlan(((1, 9),), (RowPlan((3,), (1.0,), 1.0),) * 3, "cls")
    with apply_plan(model, family, plan) as surgery:
        generate(model, inputs)
    tower = model.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    scores = tower.attentions[2].mean(dim=1)[:, 0, 1:]
    want = scores.topk(9, dim=1).indices.sort(dim=1).values
    assert torch.equal(surgery.last[0].kept, want)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"cache_implementation": "static"}, "static cache"),
        ({"cache_implementation": "offloaded_static"}, "static"),
        ({"past_key_values": "quantized"}, "plain dynamic cache"),
        ({"prefill_chunk_size": 7}, "chunk"),
    ],
)
def test_refused_ways_of_generating(how: dict[str, Any], reason: str) -> None:
    """Caches of one length, quantized caches and prompts in pieces: a reason instead of a wrong answer."""
    model, inputs = build(), batch("single")
    if how.get("past_key_values") == "quantized":
        cache = DynamicCache(config=model.config.get_text_config())
        kind = type("QuantizedLayer", (type(cache.layers[0]),), {})
        cache.layers = [kind() for _ in cache.layers]
        how = {"past_key_values": cache}
    with (
        pytest.raises(UsageError, match=reason),
        apply_plan(model, find_family(model), plan_for(model, 1, STAGES)),
    ):
        model.generate(**inputs, max_new_tokens=2, **how)


def test_compiled_models_are_refused() -> None:
    """A compiled graph does not see hooks: nothing would be pruned, and nothing would say so."""
    model = build()
    family, plan = find_family(model), plan_for(model, 1, STAGES)
    wrapped: Any = torch.compile(model, backend="eager")
    with pytest.raises(UsageError, match="compiled"), apply_plan(wrapped, family, plan):
        pass
    model.forward = torch.compile(model.forward, backend="eager")
    with pytest.raises(UsageError, match="compiled"), apply_plan(model, family, plan):
        pass
    del model.forward
    model.model.language_model.compile(backend="eager")
    with pytest.raises(UsageError, match="compiled"), apply_plan(model, family, plan):
        pass


def test_a_conversation_keeps_what_its_first_turn_kept() -> None:
    """On one cache the class of a later turn changes nothing; sent anew, the conversation is selected anew."""
    model, inputs = build(), batch("single")
    family = find_family(model)
    extra = torch.tensor([[11, 12, 13]])
    mask = torch.cat((inputs["attention_mask"], torch.ones(1, 3, dtype=torch.long)), dim=1)
    rows = {rho: PrunePlan(STAGES, (RowPlan((3,), (1.0,), rho),)) for rho in (1.0, 0.0)}
    current = rows[1.0]
    from claspkit.runtime.surgery import Surgery, needs_of

    surgery = Surgery(model, family, lambda *_: current, needs_of(current))
    surgery.attach()
    try:
        with torch.no_grad():
            cache = model(**inputs, use_cache=True).past_key_values
            first = [stage.kept for stage in surgery.last]
            same = model(input_ids=extra, attention_mask=mask, past_key_values=cache).logits
            cache = model(**inputs, use_cache=True).past_key_values
            current = rows[0.0]
            changed = model(input_ids=extra, attention_mask=mask, past_key_values=cache).logits
            assert torch.equal(same, changed)
            ids = torch.cat((inputs["input_ids"], extra), dim=1)
            model(input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"])
            assert not all(torch.equal(a, b.kept) for a, b in zip(first, surgery.last, strict=True))
            with pytest.raises(UsageError, match="new picture"):
                model(**{**inputs, "attention_mask": mask[:, :-2]}, past_key_values=cache)
    finally:
        surgery.remove()


def test_two_conversations_on_one_model_do_not_meet() -> None:
    """Turns of two caches in turn: each as if it were alone."""
    model = build()
    family, plan = find_family(model), plan_for(model, 1, STAGES)
    prompts = [tiny_batch([4], seed=seed) for seed in (1, 2)]
    extra = torch.tensor([[11, 12, 13]])
    mask = torch.ones(1, prompts[0]["input_ids"].shape[1] + 3, dtype=torch.long)
    with torch.no_grad(), apply_plan(model, family, plan):
        alone = []
        for inputs in prompts:
            cache = model(**inputs, use_cache=True).past_key_values
            alone.append(model(input_ids=extra, attention_mask=mask, past_key_values=cache).logits)
        caches = [model(**inputs, use_cache=True).past_key_values for inputs in prompts]
        for want, cache in zip(alone, caches, strict=True):
            assert torch.equal(want, model(input_ids=extra, attention_mask=mask, past_key_values=cache).logits)
        prompt = prompts[0]["input_ids"]
        caches[0].crop(-5)  # the turn of three tokens, and two of the prompt's own after its picture
        again = torch.cat((prompt[:, -2:], extra), dim=1)
        got = model(input_ids=again, attention_mask=mask, past_key_values=caches[0]).logits
        assert torch.allclose(got[:, -3:], alone[0], atol=1e-5)
        caches[0].crop(-8)
        with pytest.raises(UsageError, match="cut back into its pictures"):
            model(input_ids=extra, attention_mask=mask[:, :-5], past_key_values=caches[0])


def test_threads_and_models_do_not_meet() -> None:
    """Two models, two threads each: every answer is the one it gives alone."""
    models = [build(seed=0), build(seed=1)]
    jobs = [(model, tiny_batch([3 + index, 5], seed=index)) for index in range(3) for model in models]
    plans = {id(model): plan_for(model, 2, STAGES) for model in models}
    alone = []
    for model, inputs in jobs:
        with apply_plan(model, find_family(model), plans[id(model)]):
            alone.append(model.generate(**inputs, max_new_tokens=6, do_sample=False))
    got: list[Any] = [None] * len(jobs)

    def work(index: int) -> None:
        model, inputs = jobs[index]
        got[index] = model.generate(**inputs, max_new_tokens=6, do_sample=False)

    with (
        apply_plan(models[0], find_family(models[0]), plans[id(models[0])]),
        apply_plan(models[1], find_family(models[1]), plans[id(models[1])]),
    ):
        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(a, b) for a, b in zip(alone, got, strict=True))


def test_a_share_scales_with_the_picture() -> None:
    """Qwen2.5-VL, rows of different sizes: each keeps its share, and removal is still masking."""
    tiny = FAMILY_MODELS["qwen2.5-vl"]
    model, inputs = tiny.build(), tiny.batch("padded")
    counts = visual_mask(model, find_family(model), inputs["input_ids"]).sum(dim=1).tolist()
    assert len(set(counts)) > 1
    share = {"scaling": "share", "visual_tokens": 40}
    assert removal_difference(model, inputs, tiny, ((1, 20), (3, 6)), **share) <= 1e-5
    with apply_plan(model, find_family(model), plan_for(model, 3, ((1, 20), (3, 6)), **share)) as surgery:
        generate(model, inputs)
        for stage, keep in zip(surgery.last, (20, 6), strict=True):
            assert [len(stage.row(row)) for row in range(3)] == [
                max(1, int(keep * count / 40 + 0.5)) for count in counts
            ]
