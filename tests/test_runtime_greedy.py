"""Our own decoding, with shared prefix, shared start and drafts, gives what ``generate`` gives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from family_models import FAMILY_MODELS
from family_oracles import plan_for
from test_runtime_shared_start import hooks

from claspkit.profiles.budget import Stage, tokens_entering
from claspkit.profiles.errors import NotFiniteError, UsageError
from claspkit.runtime.decoder_inputs import (
    DecoderInputs,
    common_prefix,
    keys_and_values,
    prefix_inputs,
    read_decoder_inputs,
    without_prefix,
)
from claspkit.runtime.families import Family, find_family
from claspkit.runtime.greedy import LONGEST_DRAFT, answer, end_tokens, is_plainly_greedy
from claspkit.runtime.plan import PrunePlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.work import work_alone

STAGES = ((1, 6), (3, 3))
RHOS = (0.0, 0.4, 1.0)
NEW = 6


def plans(model: Any, rows: int) -> list[PrunePlan]:
    base = plan_for(model, rows, STAGES)
    return [replace(base, rows=tuple(replace(row, rho=rho) for row in base.rows)) for rho in RHOS]


def stock(model: Any, family: Family, batch: dict[str, Any], plan: PrunePlan, **options: Any) -> torch.Tensor:
    """What ``generate`` answers under a plan: new tokens alone."""
    with apply_plan(model, family, plan):
        whole: torch.Tensor = model.generate(**batch, max_new_tokens=NEW, do_sample=False, **options)
    return whole[:, batch["input_ids"].shape[1] :]


def prepared(model: Any, family: Family, batch: dict[str, Any], share: bool) -> DecoderInputs:
    inputs = read_decoder_inputs(model, family, batch)
    length = len(common_prefix(inputs, batch["input_ids"]))
    if not share or not length:
        return inputs
    return without_prefix(inputs, keys_and_values(model, family, prefix_inputs(inputs, length)))


def with_prefix(name: str, kind: str) -> dict[str, Any]:
    """The family's batch, changed so that all its prompts begin with the same two tokens of text."""
    batch: dict[str, Any] = dict(FAMILY_MODELS[name].batch(kind))
    ids = batch["input_ids"].clone()
    for row, start in enumerate((batch["attention_mask"] == 0).sum(dim=1).tolist()):
        ids[row, start : start + 2] = torch.tensor([5, 11])
    return {**batch, "input_ids": ids}


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    width = min(ours.shape[1], theirs.shape[1])
    return torch.equal(ours[:, :width], theirs[:, :width])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["single", "padded"])
@pytest.mark.parametrize("name", FAMILY_MODELS)
def test_answers_are_those_of_generate(name: str, kind: str, attention: str) -> None:
    model = FAMILY_MODELS[name].build(attention=attention)
    batch, family = with_prefix(name, kind), find_family(model)
    rows = len(batch["input_ids"])
    wanted = [stock(model, family, batch, plan) for plan in plans(model, rows)]
    whole = replace(plans(model, rows)[0], rows=tuple(row for plan in plans(model, rows) for row in plan.rows))
    right = [row.tolist() for row in wanted[0]]
    wrong = [[row[0], row[1], 7, 7] for row in right]
    for share in (False, True):
        inputs = prepared(model, family, batch, share)
        assert not share or inputs.cached > 0
        for drafts in ((), right, wrong, [right[0][:2], *wrong[1:]]):
            found = answer(model, family, inputs, whole, NEW, copies=len(RHOS), drafts=drafts)
            assert torch.equal(found.ids, torch.cat(wanted)), (share, drafts)
            if drafts is right:
                assert all(found.drafted[:rows])


def test_an_end_token_ends_an_answer_in_the_draft_and_behind_it() -> None:
    """Ids filled up as ``generate`` fills them, lengths up to the end token, whoever was still going goes on."""
    model, batch = FAMILY_MODELS["llava"].build(), with_prefix("llava", "padded")
    family, rows = find_family(model), len(batch["input_ids"])
    plan = plans(model, rows)[1]
    free = stock(model, family, batch, plan)
    end = int(free[0, 2])
    model.generation_config.eos_token_id = [end]
    wanted = stock(model, family, batch, plan)
    width = wanted.shape[1]
    lengths = tuple(next((i + 1 for i, token in enumerate(row) if token == end), width) for row in wanted.tolist())
    inputs = prepared(model, family, batch, True)
    for drafts in ((), [row[:size] for row, size in zip(wanted.tolist(), lengths, strict=True)], [[end]] * rows):
        found = answer(model, family, inputs, plan, NEW, drafts=drafts)
        assert torch.equal(found.ids, wanted)
        assert found.lengths == lengths
        guesses = drafts or [[]] * rows
        pairs = zip(guesses, wanted.tolist(), strict=True)
        confirmed = [bool(draft) and draft == row[: len(draft)] for draft, row in pairs]
        assert found.drafted == tuple(confirmed)
    assert end_tokens(model) == (end,)


def test_what_stands_behind_an_end_token_in_a_draft_is_no_answer() -> None:
    """A reference text may spell the end token; what the model would say after it is not part of its answer."""
    model, batch = FAMILY_MODELS["llava"].build(), with_prefix("llava", "padded")
    family, rows = find_family(model), len(batch["input_ids"])
    plan = plans(model, rows)[1]
    free = stock(model, family, batch, plan).tolist()
    model.generation_config.eos_token_id = [row[1] for row in free]
    wanted = stock(model, family, batch, plan)
    found = answer(model, family, prepared(model, family, batch, True), plan, NEW, drafts=free)
    assert max(found.lengths) <= 2
    assert torch.equal(found.ids, wanted)
    assert found.drafted == (True,) * rows


@pytest.mark.parametrize("place", ["behind a wrong guess", "fill behind a short guess", "in the answer"])
def test_only_logits_that_an_answer_is_read_from_must_be_finite(place: str) -> None:
    """A guess decides how fast an answer is found: not whether it counts, whatever the model makes of the guess."""
    model, batch = FAMILY_MODELS["llava"].build(), with_prefix("llava", "padded")
    family, rows = find_family(model), len(batch["input_ids"])
    plan = plans(model, rows)[1]
    wanted = stock(model, family, batch, plan)
    right = wanted.tolist()
    inputs = prepared(model, family, batch, True)
    poison = next(token for token in range(1, 90) if token not in wanted)
    drafts = [[row[0], poison, poison, 5] for row in right]
    if place == "fill behind a short guess":
        drafts, poison = [right[0][:2], *right[1:]], 0
        assert 0 not in wanted

    def spoil(_: object, args: tuple[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
        odd = torch.zeros(logits.shape[:2], dtype=torch.bool)
        if logits.shape[1] > 1 and place == "in the answer":
            odd[1, 0] = True
        elif logits.shape[1] > 1:
            odd[:, 1:] = tokens == poison
        return logits.masked_fill(odd[:, :, None], math.nan)

    fed = max(map(len, drafts)) - 1
    tokens = torch.tensor([[*draft, *[0] * fed][:fed] for draft in drafts])
    handle = model.get_output_embeddings().register_forward_hook(spoil)
    if place == "in the answer":
        with pytest.raises(NotFiniteError, match=r"prompts \[1\] of this batch"):
            answer(model, family, inputs, plan, NEW, drafts=drafts)
    else:
        assert torch.equal(answer(model, family, inputs, plan, NEW, drafts=drafts).ids, wanted)
    handle.remove()
    handle = model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits * math.nan)
    with pytest.raises(NotFiniteError, match=r"prompts \[0, 1"):
        answer(model, family, inputs, plan, NEW)
    handle.remove()


def test_drafts_longer_than_an_answer_may_be_are_cut() -> None:
    """And one as long as it may be needs no end token."""
    model, batch = FAMILY_MODELS["llava"].build(), with_prefix("llava", "single")
    family = find_family(model)
    plan = plans(model, 1)[0]
    wanted = stock(model, family, batch, plan)
    inputs = prepared(model, family, batch, False)
    found = answer(model, family, inputs, plan, 3, drafts=[wanted[0].tolist()])
    assert torch.equal(found.ids, wanted[:, :3])
    assert found.drafted == (True,)
    assert answer(model, family, inputs, plan, 3, drafts=[[]]).drafted == (False,)


def test_nothing_is_taken_from_behind_an_end_token_or_beyond_the_longest_draft() -> None:
    """However right it is; what was cut is decoded."""
    model, batch = FAMILY_MODELS["llava"].build(), with_prefix("llava", "single")
    family, many = find_family(model), LONGEST_DRAFT + 4
    plan = plans(model, 1)[0]
    with apply_plan(model, family, plan):
        free = model.generate(**batch, max_new_tokens=many, do_sample=False)[:, batch["input_ids"].shape[1] :]
    inputs = prepared(model, family, batch, True)
    long = answer(model, family, inputs, plan, many, drafts=[free[0].tolist()])
    assert torch.equal(long.ids, free)
    assert long.drafted == (False,)
    model.generation_config.eos_token_id = int(free[0, 0])
    ended = answer(model, family, inputs, plan, many, drafts=[free[0].tolist()])
    assert ended.ids.tolist() == [free[0, :1].tolist()]
    assert ended.drafted == (True,)


def test_what_is_not_plainly_greedy_is_left_to_generate() -> None:
    """A penalty on repetition, tokens that are forbidden, a least length."""
    model = FAMILY_MODELS["llava"].build()
    assert is_plainly_greedy(model)
    for name, value in (("repetition_penalty", 1.05), ("suppress_tokens", [3]), ("min_new_tokens", 2)):
        before = getattr(model.generation_config, name)
        setattr(model.generation_config, name, value)
        assert not is_plainly_greedy(model)
        setattr(model.generation_config, name, before)
    assert is_plainly_greedy(model)


def test_work_is_what_one_prompt_takes_when_nothing_is_shared() -> None:
    """Counted at the layers' door, it is the count on paper; shared, it is less."""
    model, batch = FAMILY_MODELS["llava"].build(), with_prefix("llava", "single")
    family = find_family(model)
    each = plans(model, 1)
    inputs = prepared(model, family, batch, False)
    visual = int(inputs.visual.sum())
    entering = tokens_entering([Stage(*stage) for stage in STAGES], visual, len(family.decoder_layers(model)))
    found = answer(model, family, inputs, each[0], NEW)
    assert found.work == work_alone(entering, int(inputs.mask.sum()) - visual, NEW)
    whole = replace(each[0], rows=tuple(row for plan in each for row in plan.rows))
    right = found.ids.tolist()
    shared = answer(model, family, prepared(model, family, batch, True), whole, NEW, copies=len(each), drafts=right)
    assert shared.work.token_layers < 0.8 * len(each) * found.work.token_layers
    assert sum(part.work.pairs for part in shared.split(len(each))) == pytest.approx(shared.work.pairs)


def test_hooks_are_gone_afterwards() -> None:
    """Also after an error in the middle."""
    model, batch = FAMILY_MODELS["llava"].build(), with_prefix("llava", "single")
    family = find_family(model)
    inputs = prepared(model, family, batch, True)
    before = hooks(model)
    answer(model, family, inputs, plans(model, 1)[0], 2)
    assert hooks(model) == before
    with pytest.raises(UsageError):
        answer(model, family, inputs, plans(model, 2)[0], 2)  # two rows planned for one prompt
    assert hooks(model) == before
