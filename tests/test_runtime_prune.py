"""``prune`` as its user sees it: for a block, for good, through a pipeline, routed or told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from family_oracles import generate
from PIL import Image
from test_runtime_models import PICTURES, QUESTIONS, profile_for
from transformers import pipeline

from claspkit.profiles.errors import UsageError
from claspkit.runtime.inputs import batch_inputs
from claspkit.runtime.models import LoadedModel, load_model
from claspkit.runtime.pruner import prune


@pytest.fixture(scope="module")
def mini() -> LoadedModel:
    """The embedded model."""
    return load_model("mini")


def hooks_on(model: Any) -> int:
    """Number of hooks on any module."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_attached_until_removed(mini: LoadedModel) -> None:
    """The permanent form prunes call after call, each by its own class, and comes off whole."""
    inputs = batch_inputs(mini, PICTURES, QUESTIONS)
    stock = generate(mini.model, inputs)
    before, attributes = hooks_on(mini.model), set(vars(mini.model))
    pruned = prune(mini.model, profile_for(mini), intents="scene").attach()
    try:
        mini.model.generate(**inputs, max_new_tokens=2)
        assert pruned.intents == ("scene",) * 3
        scene = pruned.last[0]
        pruned.use(prompts=QUESTIONS)
        mini.model.generate(**inputs, max_new_tokens=2)
        assert pruned.intents == ("counting", "scene", "attribute")
        assert torch.equal(pruned.last[0].kept[1], scene.kept[1])
        assert [len(pruned.last[1].row(row)) for row in range(3)] == [6, 6, 6]
        assert {why for _, why in pruned.last[0].row(1)} == {"pivot", "completion"}
        with pytest.raises(UsageError, match="unknown intent"):
            pruned.use(intents=["poetry"])
        with pytest.raises(UsageError, match="pruned already"):
            prune(mini.model, profile_for(mini), intents="scene").attach()
    finally:
        pruned.remove()
    pruned.remove()  # a second time does no harm
    assert (hooks_on(mini.model), set(vars(mini.model))) == (before, attributes)
    again = generate(mini.model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(stock.logits, again.logits, strict=True))


def test_through_a_pipeline(mini: LoadedModel) -> None:
    """Transformers' own pipeline, prompts routed from the tokens it makes; the answer is the one of ``generate``."""
    ask: Any = pipeline("image-text-to-text", model=mini.model, processor=mini.processor)
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]
        for picture, question in zip(PICTURES, QUESTIONS, strict=True)
    ]
    answers: list[Any] = []
    intents: list[str] = []
    with prune(mini.model, profile_for(mini), processor=mini.processor) as pruned:
        for chat in chats:
            answers.append(ask(text=chat, max_new_tokens=3, return_full_text=False, do_sample=False)[0])
            intents += pruned.intents
        assert [stage.kept.shape[1] for stage in pruned.last] == [20, 6]
    assert intents == ["counting", "scene", "attribute"]
    for picture, question, intent, answer in zip(PICTURES, QUESTIONS, intents, answers, strict=True):
        inputs = batch_inputs(mini, [picture], [question])
        with prune(mini.model, profile_for(mini), intents=[intent]):
            ids = mini.model.generate(**inputs, max_new_tokens=3, do_sample=False)
        text = mini.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer["generated_text"].strip() == text.strip()


def test_mixed_intents_are_what_each_is_alone(mini: LoadedModel) -> None:
    """One batch of three classes: every row keeps what it keeps in a batch of its own class."""
    inputs = batch_inputs(mini, PICTURES, QUESTIONS)
    profile, kept = profile_for(mini), {}
    for intents in (["counting", "scene", "attribute"], "counting", "scene", "attribute"):
        with prune(mini.model, profile, intents=intents) as pruned:
            mini.model.generate(**inputs, max_new_tokens=1)
            kept[str(intents)] = [[stage.row(row) for stage in pruned.last] for row in range(3)]
    mixed = kept.pop(str(["counting", "scene", "attribute"]))
    assert mixed == [kept["counting"][0], kept["scene"][1], kept["attribute"][2]]


def test_exactly_one_way_to_say_the_class(mini: LoadedModel) -> None:
    """Intents, prompts and a processor exclude each other."""
    for wrong in (
        {"intents": "scene", "processor": mini.processor},
        {"prompts": QUESTIONS, "intents": ["scene"]},
        {},
    ):
        with pytest.raises(UsageError, match="one of"):
            prune(mini.model, profile_for(mini), **wrong)
    with pytest.raises(UsageError, match="takes a list"):
        prune(mini.model, profile_for(mini), prompts=QUESTIONS[0])
    with pytest.raises(UsageError, match="no intents"):
        prune(mini.model, profile_for(mini), intents=[])
    pruned = prune(mini.model, profile_for(mini), processor=mini.processor)
    pruned.use(intents="scene")
    pruned.use()  # back to what the batches' tokens say
    with pytest.raises(UsageError, match="give either"):
        prune(mini.model, profile_for(mini), intents="scene").use()


def test_a_text_prompt_needs_no_class(mini: LoadedModel) -> None:
    """Prompts without a picture pass through, however many intents were given for others."""
    ids = mini.processor.tokenizer("How many stars are there?", return_tensors="pt")
    with prune(mini.model, profile_for(mini), intents=["scene", "counting"]) as pruned:
        inside = mini.model.generate(**ids, max_new_tokens=3, do_sample=False)
        assert pruned.last == ()
    assert torch.equal(inside, mini.model.generate(**ids, max_new_tokens=3, do_sample=False))


def test_the_runtime_loads_no_more_than_it_needs() -> None:
    """Pruning by a plan works where neither pydantic nor anything of the toolkit above is installed."""
    code = (
        "import sys\n"
        "for name in ('pydantic', 'h5py', 'optuna', 'datasets', 'rich', 'typer', 'PIL'): sys.modules[name] = None\n"
        "from claspkit.runtime.pruner import apply_plan\n"
        "from claspkit.runtime.plan import PrunePlan, RowPlan\n"
        "from claspkit.runtime.families import find_family\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_a_picture_of_one_colour(mini: LoadedModel) -> None:
    """Tokens that are nearly alike everywhere: the budget is kept all the same."""
    inputs = batch_inputs(mini, [Image.new("RGB", (96, 96), (90, 90, 90))], ["What is this?"])
    with prune(mini.model, profile_for(mini), intents="default") as pruned:
        mini.model.generate(**inputs, max_new_tokens=2)
    assert [len(stage.row(0)) for stage in pruned.last] == [20, 6]
