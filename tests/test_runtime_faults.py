"""Calls that fail, nest, race or come in an unusual form: never another prompt's pruning, never silence."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from family_oracles import generate, plan_for
from tiny_llava import batch, build, tiny_batch
from transformers import StoppingCriteria, StoppingCriteriaList

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families import find_family
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.surgery import Surgery, needs_of

STAGES = ((1, 20), (2, 11), (3, 4))
ROW = RowPlan((3,), (1.0,), 0.6)


def test_a_refused_call_leaves_nothing_for_the_next() -> None:
    """After a generate that was refused, and a pass whose encoder failed, the next batch is its own."""
    model, inputs = build(), batch("single")
    family, plan = find_family(model), PrunePlan(STAGES, (ROW,))
    three = tiny_batch([5, 5, 5])
    with torch.no_grad(), apply_plan(model, family, plan) as surgery:
        want = model(**three).logits
        with pytest.raises(UsageError, match="placeholders"):
            model.generate(**{**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}, max_new_tokens=2)
        assert torch.equal(model(**three).logits, want)
        assert surgery.last[0].kept.shape == (3, 20)

        def fail(*_: object) -> None:
            raise MemoryError

        handle = family.towers(model)["image"][0].register_forward_pre_hook(fail)
        with pytest.raises(MemoryError):
            model(**inputs)
        handle.remove()
        text = {"input_ids": torch.full_like(inputs["input_ids"], 21), "attention_mask": inputs["attention_mask"]}
        assert model(**text).logits.shape[1] == inputs["input_ids"].shape[1]
        assert surgery.last == ()


class Nested(StoppingCriteria):
    """Runs something between two steps of a generation."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Act, and go on."""
        self._act()
        return torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("layers", [(3,), (1, 3)])
def test_calls_inside_a_call(cached: bool, layers: tuple[int, ...]) -> None:
    """Other prompts, generated or passed through between two steps, change nothing, and are right themselves."""
    model, inputs, other = build(), batch("single"), tiny_batch([7], seed=9)
    row = RowPlan(layers, tuple(1 / len(layers) for _ in layers), 0.6)
    how: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "use_cache": cached}
    with torch.no_grad(), apply_plan(model, find_family(model), PrunePlan(STAGES, (row,))):
        want, other_want = model.generate(**inputs, **how), model.generate(**other, **how)
        logits_want, seen = model(**other).logits, []
        for act in (lambda: seen.append(model.generate(**other, **how)), lambda: seen.append(model(**other).logits)):
            got = model.generate(**inputs, **how, stopping_criteria=StoppingCriteriaList([Nested(act)]))
            assert torch.equal(got, want)
    assert all(torch.equal(found, other_want if found.ndim == 2 else logits_want) for found in seen)


def test_a_pruned_model_assists_itself() -> None:
    """The same pruned model as its own assistant: its own greedy answer."""
    model, inputs = build(), batch("single")
    with apply_plan(model, find_family(model), PrunePlan(STAGES, (ROW,))):
        alone = model.generate(**inputs, max_new_tokens=10, do_sample=False)
        assert torch.equal(alone, model.generate(**inputs, max_new_tokens=10, do_sample=False, assistant_model=model))


def continued(model: Any, inputs: dict[str, torch.Tensor], cache: Any) -> torch.Tensor:
    """Logits of three more tokens on a cache."""
    rows = len(inputs["input_ids"])
    mask = torch.cat((inputs["attention_mask"], torch.ones(rows, 3, dtype=torch.long)), dim=1)
    logits: torch.Tensor = model(
        input_ids=torch.tensor([[11, 12, 13]] * rows), attention_mask=mask, past_key_values=cache
    ).logits
    return logits


@pytest.mark.parametrize("stages", [STAGES, ((-1, 14), (2, 5))])
def test_a_cache_carries_its_prompt(stages: tuple[tuple[int, int], ...]) -> None:
    """A copy of a cache, and a cache met again in another block, go on as the original does."""
    model, inputs = build(), batch("padded")
    family = find_family(model)
    plan = PrunePlan(stages, (ROW,), "cls" if stages[0][0] < 0 else "text")
    with torch.no_grad():
        with apply_plan(model, family, plan):
            cache = model(**inputs, use_cache=True).past_key_values
            copies = [copy.deepcopy(cache) for _ in range(4)]
            want = continued(model, inputs, cache)
            assert torch.equal(continued(model, inputs, copies[0]), want)
            copies[1].batch_select_indices(torch.tensor([0, 1]))
            two = {name: part[:2] for name, part in inputs.items()}
            with pytest.raises(UsageError, match="made for 3 rows"):
                continued(model, two, copies[1])
        with apply_plan(model, family, plan):
            assert torch.equal(continued(model, inputs, copies[2]), want)
        with (
            apply_plan(model, family, PrunePlan(((1, 20),), (ROW,))),
            pytest.raises(UsageError, match="was pruned by the stages"),
        ):
            continued(model, inputs, copies[3])


def test_generate_does_not_go_on_behind_a_shortened_entrance() -> None:
    """generate() would count the conversation by layer 0's cache; it says so instead."""
    model, inputs = build(), batch("single")
    with apply_plan(model, find_family(model), PrunePlan(((-1, 14),), (ROW,), "cls")):
        first = generate(model, inputs)
        ids = torch.cat((first.sequences, torch.tensor([[11, 12]])), dim=1)
        with pytest.raises(UsageError, match="send it anew"):
            model.generate(input_ids=ids, past_key_values=first.past_key_values, max_new_tokens=2)


def test_threads_with_scores_of_their_own() -> None:
    """[CLS] saliency in many threads on one model: every one keeps what it keeps alone."""
    model = build()
    jobs = [tiny_batch([3 + index % 3], seed=index) for index in range(8)]
    start = threading.Barrier(len(jobs))
    got: dict[int, Any] = {}
    with apply_plan(model, find_family(model), PrunePlan(((-1, 14), (2, 5)), (ROW,), "cls")):
        alone = [model.generate(**inputs, max_new_tokens=4, do_sample=False) for inputs in jobs]

        def work(index: int) -> None:
            start.wait()
            for _ in range(4):
                got[index] = model.generate(**jobs[index], max_new_tokens=4, do_sample=False)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(got[index], want) for index, want in enumerate(alone))


def test_a_plan_says_what_is_wrong_with_it() -> None:
    """Stages that do not ascend, keep nothing, or need a saliency they do not have."""
    for stages, reason in ((((3, 9), (1, 20)), "ascend"), (((1, 0),), "at least one"), (((-1, 5),), "'cls'")):
        with pytest.raises(UsageError, match=reason):
            PrunePlan(stages, (ROW,))


def test_unusual_forms_of_a_pass() -> None:
    """Positional arguments work; labels, and placeholders without pictures, do what can be right."""
    model, inputs = build(), batch("single")
    with torch.no_grad(), apply_plan(model, find_family(model), PrunePlan(STAGES, (ROW,))) as surgery:
        want = model(**inputs).logits
        assert torch.equal(model(inputs["input_ids"], inputs["pixel_values"]).logits, want)
        hidden = model.model(inputs["input_ids"], inputs["pixel_values"]).last_hidden_state
        assert hidden.shape[1] == want.shape[1]
        with pytest.raises(UsageError, match="labels"):
            model(**inputs, labels=inputs["input_ids"])
        bare = {name: part for name, part in inputs.items() if name != "pixel_values"}
        assert model(**bare).logits.shape[1] == inputs["input_ids"].shape[1]
        assert surgery.last == ()


def test_cls_needs_no_text_after_the_picture() -> None:
    """Saliency of the encoder's own works for a prompt that ends with its picture."""
    model, inputs = build(), batch("single")
    short = {name: part[:, :-5] if name != "pixel_values" else part for name, part in inputs.items()}
    with torch.no_grad(), apply_plan(model, find_family(model), PrunePlan(((1, 7),), (ROW,), "cls")) as surgery:
        model(**short)
        assert len(surgery.last[0].row(0)) == 7


def test_nothing_large_is_kept() -> None:
    """After a pass neither captured layers nor the autograd graph nor a dropped cache stay alive."""
    model, inputs = build(), batch("single")
    family, plan = find_family(model), PrunePlan(STAGES, (ROW,))
    captured: list[weakref.ref[Any]] = []
    handle = family.towers(model)["image"][0].register_forward_hook(
        lambda _, __, output: captured.append(weakref.ref(output))
    )
    other = RowPlan((1, 3), (0.5, 0.5), 0.5)  # some other prompt might need layer 1
    surgery = Surgery(model, family, lambda *_: plan, needs_of(PrunePlan(STAGES, (ROW, other))))
    surgery.attach()
    try:
        output = model(**inputs, use_cache=True)
        assert not surgery.last[0].saliency.requires_grad
        cache = weakref.ref(output.past_key_values)
        del output
        gc.collect()
        assert cache() is None
        assert captured[0]() is None
    finally:
        surgery.remove()
        handle.remove()


def test_a_generate_of_somebody_else_stays() -> None:
    """What was put on the instance meanwhile, or before, is there afterwards."""
    model = build()
    family, plan = find_family(model), plan_for(model, 1, STAGES)
    with apply_plan(model, family, plan):
        model.generate = replacement = lambda: 1
    assert model.generate is replacement
    with apply_plan(model, family, plan):
        assert model.generate is not replacement
    assert model.generate is replacement
