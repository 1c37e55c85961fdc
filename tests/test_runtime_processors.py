"""Models whose processor needs torchvision, from a folder to a pruned answer."""

from __future__ import annotations

import pytest
import torch
from family_folders import save_folder
from PIL import Image
from profile_example import profile_fields
from tiny_tokenizer import tiny_tokenizer

from claspkit.profiles.budget import Stage, explicit_budget
from claspkit.profiles.profile import BudgetSpec, Profile, seal
from claspkit.runtime.inputs import batch_inputs, decode_answers
from claspkit.runtime.models import LoadedModel, load_model
from claspkit.runtime.processors import INPUT_BUILDERS, SplitProcessor
from claspkit.runtime.prompts import PromptReader
from claspkit.runtime.pruner import prune

QUESTIONS = ["How many stars are there?", "What kind of place is this picture showing?"]
PICTURES = [Image.linear_gradient("L").convert("RGB").resize(size) for size in ((90, 60), (64, 64))]


@pytest.fixture(scope="module", params=list(INPUT_BUILDERS))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A family's tiny model, loaded as a user loads theirs."""
    folder = tmp_path_factory.mktemp("model")
    save_folder(request.param, folder)
    return load_model(str(folder))


def profile_for(loaded: LoadedModel) -> Profile:
    """Two layers for every class, half the reference tokens after layer 1, a quarter after layer 3."""
    fields = profile_fields()
    layer = loaded.spec.default_layer
    for row in fields["classes"]:
        row |= {"layers": [2, layer], "scores": [1.0, 1.0], "weights": [0.5, 0.5], "rho": 0.5}
    tokens = loaded.spec.visual_tokens
    stages = explicit_budget([Stage(1, tokens // 2), Stage(3, tokens // 4)], tokens, loaded.spec.decoder_depth)
    budget = BudgetSpec.from_budget(stages).model_dump(mode="json") | {"scaling": "share"}
    return seal({**fields, "budget": budget, "model": loaded.spec.model_dump()})


def test_a_folder_is_loaded_asked_and_pruned(loaded: LoadedModel) -> None:
    """Pictures of two sizes, prompts routed from the batch's own tokens, the share of each kept."""
    assert isinstance(loaded.processor, SplitProcessor)
    inputs = batch_inputs(loaded, PICTURES, QUESTIONS)
    stock = loaded.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    with prune(loaded.model, profile_for(loaded), processor=loaded.processor) as pruned:
        answer = loaded.model.generate(**inputs, max_new_tokens=3, do_sample=False)
        assert pruned.intents == ("counting", "scene")
    assert stock.shape == answer.shape
    assert len(decode_answers(loaded, answer[:, inputs["input_ids"].shape[1] :])) == 2
    visual = torch.isin(inputs["input_ids"], torch.tensor(loaded.family.placeholder_ids(loaded.model))).sum(dim=1)
    reference = loaded.spec.visual_tokens
    for stage, keep in zip(pruned.last, (reference // 2, reference // 4), strict=True):
        wanted = [min(int(n), max(1, int(keep * int(n) / reference + 0.5))) for n in visual]
        assert [len(stage.row(row)) for row in range(2)] == wanted


def test_prompts_are_read_back_from_tokens(loaded: LoadedModel) -> None:
    """The user's words come back without template and placeholders, also of the last of several turns."""
    reader = PromptReader(loaded.processor, loaded.family.placeholder_ids(loaded.model))
    inputs = batch_inputs(loaded, PICTURES, QUESTIONS)
    assert reader.read(inputs["input_ids"], inputs["attention_mask"]) == QUESTIONS
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A star."}]},
        {"role": "user", "content": [{"type": "text", "text": "Which colour?"}]},
    ]
    text = loaded.processor.apply_chat_template(turns, add_generation_prompt=True)
    ids = loaded.processor.tokenizer(text, return_tensors="pt")["input_ids"]
    assert reader.read(ids) == ["Which colour?"]


def test_a_template_that_takes_plain_text() -> None:
    """A chat template that joins contents as strings is read back like the others."""
    template = (
        "{% for turn in messages %}{{ turn.role.upper() + ': ' + turn.content + ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    tokenizer = tiny_tokenizer({"<image>": 99}, template)
    reader = PromptReader(tokenizer, (99,))
    turns = [{"role": "user", "content": "<image> What is this?"}]
    ids = tokenizer(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))["input_ids"]
    assert reader.read(torch.tensor([ids])) == ["What is this?"]
