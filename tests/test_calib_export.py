"""Folders for deployment: a profile with its card, and a model with one class's fusion folded in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import exit_code
from house import fresh
from PIL import Image
from profile_example import example_profile, profile_fields
from safetensors.torch import load_file, save_file
from tiny_llava import tiny_batch, tiny_llava
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from claspkit.calib.export import export_folded, export_profile, write_folded
from claspkit.profiles.budget import Stage, explicit_budget
from claspkit.profiles.errors import MismatchError, ProfileError, UsageError
from claspkit.profiles.files import read_profile, write_profile
from claspkit.profiles.profile import BudgetSpec, Profile, seal, softmax_weights
from claspkit.runtime.families.llava import LlavaFamily
from claspkit.runtime.inputs import batch_inputs
from claspkit.runtime.models import LoadedModel, describe, load_model

SCORES, TAU, LAYERS = [0.1, 0.9, 0.4], 2.0, [2, 5, 8]
QUESTIONS = ["How many stars are there?", "What colour is the box?"]


@pytest.fixture(scope="module")
def mini() -> LoadedModel:
    """The embedded model."""
    return load_model("mini")


def profile_for(loaded: LoadedModel, layers: list[int] = LAYERS, **model: object) -> Profile:
    """Class default fuses three layers, scene reads one that is not the model's own, all others its own."""
    fields = profile_fields()
    for row in fields["classes"]:
        row |= {"layers": [loaded.spec.default_layer], "scores": [1.0], "tau": 1.0, "weights": [1.0]}
        if row["intent"] == "scene":
            row["layers"] = [layers[0]]
        elif row["intent"] == "default":
            row |= {"layers": layers, "scores": SCORES, "tau": TAU, "weights": list(softmax_weights(SCORES, TAU))}
    stages = explicit_budget([Stage(1, 20)], loaded.spec.visual_tokens, loaded.spec.decoder_depth)
    fields["budget"] = BudgetSpec.from_budget(stages).model_dump(mode="json")
    return seal({**fields, "model": {**loaded.spec.model_dump(), **model}})


@torch.no_grad()
def fused_by_hand(model: Any, batch: dict[str, Tensor], layers: list[int], weights: tuple[float, ...]) -> Tensor:
    """Logits of a LLaVA with every visual token from the weighted mean of whole vision layers, without our code."""
    states = model.model.vision_tower(batch["pixel_values"], output_hidden_states=True).hidden_states
    mean = torch.stack([share * states[layer] for layer, share in zip(layers, weights, strict=True)]).sum(0)
    embeddings = model.get_input_embeddings()(batch["input_ids"])
    features = model.model.multi_modal_projector(mean[:, 1:])
    embeddings[batch["input_ids"] == model.config.image_token_id] = features.flatten(0, 1)
    logits: Tensor = model(inputs_embeds=embeddings, attention_mask=batch["attention_mask"]).logits
    return logits


def apart(found: Tensor, expected: Tensor) -> float:
    """Largest difference of two sets of logits, as a share of the largest logit."""
    return float((found - expected).abs().max() / expected.abs().max())


def pictures_and_questions(mini: LoadedModel) -> dict[str, Tensor]:
    """A left-padded batch for mini."""
    pictures = [Image.linear_gradient("L").convert("RGB").rotate(90 * turn) for turn in range(len(QUESTIONS))]
    return dict(batch_inputs(mini, pictures, QUESTIONS))


def test_a_profile_folder_is_complete(tmp_path: Path) -> None:
    """The profile byte for byte, its schema, a card, digests that hold for all of them, and a hub's attributes."""
    source = write_profile(example_profile(), tmp_path)
    names = export_profile(source, tmp_path / "deploy")
    written = {path.name: path.read_bytes() for path in (tmp_path / "deploy").iterdir()}
    assert sorted(written) == sorted(names)
    assert sorted(written) == [".gitattributes", "README.md", "SHA256SUMS", "profile.json", "schema.json"]
    assert b"*.safetensors filter=lfs" in written.pop(".gitattributes")
    assert written["profile.json"] == source.read_bytes()
    assert "$schema" in json.loads(written["schema.json"])
    assert b"\n# Visual-token pruning profile for example/llava\n" in written["README.md"]
    sums = written.pop("SHA256SUMS").decode().splitlines()
    assert sorted(sums) == sorted(f"{hashlib.sha256(data).hexdigest()}  {name}" for name, data in written.items())


def test_the_command_line_folds_mini(mini: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folder in, folder out: transformers' Auto classes give the fused logits and the same model inputs as before."""
    profile = profile_for(mini)
    write_profile(profile, tmp_path)
    target = tmp_path / "out" / "folded"
    asked = ["--fold-class", "default", "--model", "mini", "--to", str(target)]
    assert exit_code(["export", str(tmp_path), *asked]) == 0
    names = sorted(path.name for path in target.iterdir())
    assert capsys.readouterr().out.splitlines() == [str(target / name) for name in names]
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "README.md"} <= {*names}
    assert list((tmp_path / "out").iterdir()) == [target]

    model: Any = AutoModelForImageTextToText.from_pretrained(target)
    batch = pictures_and_questions(mini)
    spec = profile.for_intent("default")
    with torch.no_grad():
        found = model.eval()(**batch).logits
        stock = mini.model(**batch).logits
    expected = fused_by_hand(mini.model, batch, LAYERS, spec.weights)
    assert apart(found, expected) < 1e-5
    assert apart(found, stock) > 1e-2
    again = pictures_and_questions(replace(mini, processor=AutoProcessor.from_pretrained(target)))
    assert all(torch.equal(again[name], batch[name]) for name in batch)

    card = (target / "README.md").read_text()
    for needed in ("# mini with", profile.profile_id, "class `default`", "Fusion only", "2: 0.1", "No visual token"):
        assert needed in card
    assert not any(str(tmp_path) in path.read_text() for path in target.glob("*.json"))


@pytest.mark.long
def test_a_fresh_interpreter_needs_transformers_alone(mini: LoadedModel, tmp_path: Path) -> None:
    """A process that never imports claspkit loads the folder, and its logits are those of the fused model."""
    profile = profile_for(mini)
    write_folded(mini, profile, "default", tmp_path / "folded")
    batch = pictures_and_questions(mini)
    expected = fused_by_hand(mini.model, batch, LAYERS, profile.for_intent("default").weights)
    save_file({name: value.contiguous() for name, value in batch.items()}, tmp_path / "batch.safetensors")
    save_file({"logits": expected.contiguous()}, tmp_path / "expected.safetensors")
    code = """
import sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor
processor = AutoProcessor.from_pretrained("folded")
model = AutoModelForImageTextToText.from_pretrained("folded").eval()
with torch.no_grad():
    found = model(**load_file("batch.safetensors")).logits
expected = load_file("expected.safetensors")["logits"]
print(float((found - expected).abs().max() / expected.abs().max()))
print(sum(name.split(".")[0] == "claspkit" for name in sys.modules))
"""
    difference, ours = fresh(code, cwd=tmp_path).split()
    assert float(difference) < 1e-5
    assert int(ours) == 0


def test_a_single_layer_changes_the_config_alone(mini: LoadedModel, tmp_path: Path) -> None:
    """A class that reads one layer: an integer in the config, the weights of the model bit for bit."""
    names = write_folded(mini, profile_for(mini), "scene", tmp_path / "folded")
    config = json.loads((tmp_path / "folded" / "config.json").read_text())
    assert config["vision_feature_layer"] == LAYERS[0]
    stored = load_file(tmp_path / "folded" / "model.safetensors")
    kept = load_file(Path(mini.source.location) / "model.safetensors")
    assert stored.keys() == kept.keys()
    assert all(torch.equal(stored[name], kept[name]) for name in kept)
    assert "model.safetensors" in names


class NoProcessor:
    """Stands in for the processor of a model that has none."""

    def save_pretrained(self, folder: Path) -> None:
        """Write nothing."""


def tiny(model: Any) -> LoadedModel:
    """A tiny model as if it had been loaded."""
    family = LlavaFamily()
    spec = describe(model, family, "tiny", None)
    return LoadedModel(model, NoProcessor(), family, spec, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_large_models_are_written_in_pieces(tmp_path: Path, tied: bool) -> None:
    """Several files with an index, also where the output head is the embedding: loaded, the fused logits."""
    model = tiny_llava()
    if tied:
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
        model.tie_weights()
    loaded = tiny(model)
    profile = profile_for(loaded, [0, 2, 4])
    names = write_folded(loaded, profile, "default", tmp_path / "folded", shard_size="60KB")
    assert "model.safetensors.index.json" in names
    assert len([name for name in names if name.endswith(".safetensors")]) > 2
    again: Any = AutoModelForImageTextToText.from_pretrained(tmp_path / "folded").eval()
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied
    batch = tiny_batch([3, 8])
    expected = fused_by_hand(model, batch, [0, 2, 4], profile.for_intent("default").weights)
    assert apart(again(**batch).logits, expected) < 1e-5


def test_the_stored_dtype_stays(mini: LoadedModel, tmp_path: Path) -> None:
    """A bfloat16 checkpoint is written as bfloat16, not in the float32 that a CPU would load it in."""
    half = load_model("mini", dtype=torch.bfloat16)
    half.model.save_pretrained(tmp_path / "half")
    half.processor.save_pretrained(tmp_path / "half")
    write_profile(profile_for(half), tmp_path)
    export_folded(tmp_path, "default", str(tmp_path / "half"), tmp_path / "folded")
    stored = load_file(tmp_path / "folded" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "folded" / "config.json").read_text())["dtype"] == "bfloat16"


def test_refuses_an_unknown_class_and_another_model(mini: LoadedModel, tmp_path: Path) -> None:
    """Nothing is written for them; a mismatch lists the fields."""
    with pytest.raises(UsageError, match=r"unknown intent 'poetry'; there are: .*default"):
        write_folded(mini, profile_for(mini), "poetry", tmp_path / "folded")
    with pytest.raises(MismatchError, match="fingerprint"):
        write_folded(mini, profile_for(mini, fingerprint="ef" * 32), "default", tmp_path / "folded")
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_place_that_is_taken_or_cannot_be_written(mini: LoadedModel, tmp_path: Path) -> None:
    """A full folder, a file, a path below a file, the rest of a killed export; an empty folder is fine."""
    profile, taken = profile_for(mini), tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    for target, words in (
        (taken, "not empty"),
        (taken / "mine.txt", "is a file"),
        (taken / "mine.txt" / "below", "cannot write .*Not a directory"),
    ):
        with pytest.raises(UsageError, match=words):
            write_folded(mini, profile, "default", target)
    for target in (taken, taken / "mine.txt"):
        with pytest.raises(UsageError, match="new folder"):
            export_profile(write_profile(profile, tmp_path), target)
    (tmp_path / "folded.unfinished").mkdir()
    with pytest.raises(UsageError, match=r"folded\.unfinished is there.*Delete it"):
        write_folded(mini, profile, "default", tmp_path / "folded")
    assert (taken / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert "config.json" in write_folded(mini, profile, "default", tmp_path / "empty")


def test_a_failed_export_leaves_nothing(mini: LoadedModel, tmp_path: Path) -> None:
    """When writing breaks off, also by Ctrl-C, no folder is left that looks like a model."""

    class Breaks:
        def save_pretrained(self, folder: Path) -> None:
            assert (folder / "model.safetensors").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folded(replace(mini, processor=Breaks()), profile_for(mini), "default", tmp_path / "folded")
    assert list(tmp_path.iterdir()) == []


def test_errors_at_the_command_line(mini: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the two options, an unknown class, no profile, a damaged profile: one line and the exit code."""
    write_profile(profile_for(mini), tmp_path)
    to = ["--to", str(tmp_path / "folded")]
    fold = ["--fold-class", "default", "--model", "mini", *to]
    damaged = tmp_path / "damaged" / "profile.json"
    damaged.parent.mkdir()
    damaged.write_bytes((tmp_path / "profile.json").read_bytes().replace(b'"tau": 2.0', b'"tau": 3.0'))
    for arguments, code, words in (
        ([str(tmp_path), "--fold-class", "default", *to], 2, "go together"),
        ([str(tmp_path), "--model", "mini", *to], 2, "go together"),
        ([str(tmp_path), "--fold-class", "poetry", "--model", "mini", *to], 2, "unknown intent 'poetry'"),
        ([str(tmp_path), "--fold-class", "default", "--model", "no-such-model", *to], 2, "unknown model"),
        ([str(tmp_path / "nowhere"), *fold], 2, "cannot read the profile"),
        ([str(damaged), *fold], ProfileError.exit_code, "classes[8].weights"),
    ):
        assert exit_code(["export", *arguments]) == code
        assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "folded").exists()


def test_a_folded_model_is_not_folded_again(mini: LoadedModel, tmp_path: Path) -> None:
    """Its config reads several layers, which no profile describes: refused, and nothing is written."""
    write_profile(profile_for(mini), tmp_path)
    export_folded(tmp_path, "default", "mini", tmp_path / "folded")
    with pytest.raises(UsageError):
        export_folded(tmp_path, "default", str(tmp_path / "folded"), tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    assert read_profile(tmp_path).profile_id in (tmp_path / "folded" / "README.md").read_text()
