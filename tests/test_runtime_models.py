"""From a name to a model, and the facts that a profile compares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from profile_example import profile_fields
from tiny_llava import tiny_llava

from claspkit.profiles.budget import Stage, explicit_budget
from claspkit.profiles.errors import BadDataError, MismatchError, UsageError
from claspkit.profiles.profile import BudgetSpec, Profile, seal
from claspkit.runtime.families import find_family
from claspkit.runtime.inputs import batch_inputs, chat_text, decode_answers
from claspkit.runtime.models import LoadedModel, config_facts, fingerprint, load_model, resolve_model
from claspkit.runtime.pruner import prune
from claspkit.runtime.replay import inputs_from_grids


@pytest.fixture(scope="module")
def mini() -> LoadedModel:
    """The embedded model."""
    return load_model("mini")


def profile_for(mini: LoadedModel, **model: object) -> Profile:
    """Own layer at rho 0.8 for every class but scene, which fuses two layers at rho 0.2; 20 then 6 tokens."""
    fields = profile_fields()
    for row in fields["classes"]:
        row |= {"layers": [7], "scores": [1.0], "weights": [1.0], "rho": 0.8}
        if row["intent"] == "scene":
            row |= {"layers": [3, 7], "scores": [1.0, 1.0], "weights": [0.5, 0.5], "rho": 0.2}
    stages = explicit_budget([Stage(1, 20), Stage(4, 6)], mini.spec.visual_tokens, mini.spec.decoder_depth)
    fields["budget"] = BudgetSpec.from_budget(stages).model_dump(mode="json")
    return seal({**fields, "model": {**mini.spec.model_dump(), **model}})


QUESTIONS = ["How many stars are there?", "What kind of place is this picture showing?", "What colour is the box?"]
PICTURES = [Image.linear_gradient("L").convert("RGB").rotate(90 * turn) for turn in range(3)]


def test_prune_routes_a_mixed_batch(mini: LoadedModel) -> None:
    """Prompts of three classes in one left-padded batch: each by its class, exactly the budget kept."""
    batch = batch_inputs(mini, PICTURES, QUESTIONS)
    with prune(mini.model, profile_for(mini), prompts=QUESTIONS) as pruned:
        ids = mini.model.generate(**batch, max_new_tokens=3)
        assert pruned.intents == ("counting", "scene", "attribute")
        assert [stage.kept.shape for stage in pruned.last] == [(3, 20), (3, 6)]
        assert pruned.last[0].pivot.sum(1).tolist() == [16, 4, 16]
    assert len(decode_answers(mini, ids[:, batch["input_ids"].shape[1] :])) == 3


def test_prune_refuses_what_does_not_fit(mini: LoadedModel) -> None:
    """Both or neither of intents and prompts, an unknown intent, another model's profile."""
    for wrong in ({}, {"intents": ["scene"], "prompts": ["Where?"]}, {"intents": ["poetry"]}):
        with pytest.raises(UsageError), prune(mini.model, profile_for(mini), **wrong):  # type: ignore[arg-type]
            pass
    with (
        pytest.raises(MismatchError, match="fingerprint"),
        prune(mini.model, profile_for(mini, fingerprint="1" * 64), intents=["scene"]),
    ):
        pass


def test_placeholders_expand_as_the_processor_does(mini: LoadedModel) -> None:
    """Text for cached features has the tokens that pictures would have brought; a typed placeholder is text no more."""
    made = inputs_from_grids(mini, [()] * len(QUESTIONS), QUESTIONS)
    batch = batch_inputs(mini, PICTURES, QUESTIONS)
    assert torch.equal(made["input_ids"], batch["input_ids"])
    assert torch.equal(made["attention_mask"], batch["attention_mask"])
    token = mini.processor.image_token
    assert chat_text(mini, f"What {token} is {token}this?").count(token) == 1


def test_names_resolve_to_places(tmp_path: Path) -> None:
    """Alias, hub id and folder; anything else lists the aliases."""
    assert resolve_model("llava-1.5-7b").location == "llava-hf/llava-1.5-7b-hf"
    assert not resolve_model("someone/some-model", "abc").local
    assert resolve_model("mini").local
    with pytest.raises(UsageError, match=r"config\.json"):
        resolve_model(str(tmp_path))
    for name in ("nope", "", "a/b/c", "./missing", "~/none"):
        with pytest.raises(UsageError, match="Aliases"):
            resolve_model(name)


def test_a_damaged_folder_is_a_usage_error(tmp_path: Path) -> None:
    """An empty config, a model type nobody knows: the folder and the reason."""
    for text in ("", "{}", '{"model_type": "nothing-like-this"}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UsageError, match="could not be loaded"):
            load_model(str(tmp_path))


def test_sizes_come_from_the_config_alone(mini: LoadedModel) -> None:
    """What `plan` reads without weights is what the loaded model says."""
    assert config_facts(resolve_model("mini")) == mini.family.facts(mini.model)


def test_fingerprint_sees_weights_and_not_the_dtype() -> None:
    """One changed tensor is another model; bfloat16 weights in float32 are the same one."""
    model = tiny_llava(dtype=torch.bfloat16)
    before = fingerprint(model)
    assert fingerprint(model.float()) == before
    weight = model.model.language_model.layers[2].mlp.down_proj.weight
    with torch.no_grad():
        weight.mul_(1.05)
        assert fingerprint(model) != before
        weight[0, 0] = float("nan")
        with pytest.raises(BadDataError, match=r"layers\.2\.mlp\.down_proj"):
            fingerprint(model)


def test_an_unknown_family_is_refused() -> None:
    """The error lists the families there are."""
    with pytest.raises(UsageError, match="llava"):
        find_family(torch.nn.Linear(2, 2))
