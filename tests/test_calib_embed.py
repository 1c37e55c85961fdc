"""``claspkit export --embed``: a model folder that says how it is pruned, and still is the model it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from profile_example import edited
from transformers import AutoModelForImageTextToText

from claspkit.calib.cli import main
from claspkit.calib.embed import export_embedded
from claspkit.calib.export import export_profile
from claspkit.mini.paths import MODEL_DIR
from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import MismatchError, ProfileError, UsageError
from claspkit.profiles.files import read_profile, write_profile
from claspkit.profiles.profile import Profile, seal
from claspkit.router.student import SHIPPED
from claspkit.runtime import prune
from claspkit.runtime.inputs import batch_inputs
from claspkit.runtime.models import load_model

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs" / "example-profile.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of mini's folder."""
    return Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))


def changed(**fields: Any) -> Profile:
    """The example with some fields of another kind, sealed again."""
    plain = read_profile(EXAMPLE).model_dump(mode="json")
    for name, value in fields.items():
        plain = edited(plain, (name,), value)
    return seal({name: value for name, value in plain.items() if name not in {"profile_id", "schema_version"}})


def student_source(folder: Path, file: str = "router.safetensors") -> Path:
    """A profile folder for mini that routes by the shipped student."""
    folder.mkdir()
    router = {"kind": "student", "rules_version": None, "file": file, "sha256": sha256_hex(SHIPPED.read_bytes())}
    write_profile(changed(router={**router, "min_confidence": 0.5, "fallback": "default"}), folder)
    (folder / file).write_bytes(SHIPPED.read_bytes())
    return folder


def test_the_model_stays_itself_and_brings_its_profile(model: Path, tmp_path: Path) -> None:
    """The library loads it as before and writes the key again; the profile read from it prunes."""
    before = json.loads((model / "config.json").read_text())
    assert export_embedded(EXAMPLE, model) == ["config.json"]
    after = json.loads((model / "config.json").read_text())
    assert after.pop("claspkit")["method"] == "clasp"
    assert after == before
    profile = read_profile(model)
    assert profile == read_profile(EXAMPLE)
    export_profile(model, tmp_path / "deploy")
    assert (tmp_path / "deploy" / "profile.json").read_bytes() == EXAMPLE.read_bytes()

    loaded = load_model(str(model))
    inputs = batch_inputs(loaded, [Image.linear_gradient("L").convert("RGB")], ["How many stars are there?"])
    stock: Any = AutoModelForImageTextToText.from_pretrained(MODEL_DIR).eval()
    with torch.inference_mode():
        assert torch.equal(loaded.model(**inputs).logits, stock(**inputs).logits)
        with prune(loaded.model, profile, intents="counting") as pruned:
            loaded.model(**inputs)
    assert [int(stage.real.sum()) for stage in pruned.last] == [75, 50, 30]
    loaded.model.save_pretrained(tmp_path / "again")
    assert read_profile(tmp_path / "again") == profile


def test_a_student_goes_beside_the_config(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And `claspkit run` takes the model's folder for both."""
    source = student_source(tmp_path / "source")
    assert export_embedded(source, model) == ["router.safetensors", "config.json"]
    assert (model / "router.safetensors").read_bytes() == SHIPPED.read_bytes()
    picture = str(ROOT / "docs" / "images" / "example.png")
    question = ["--image", picture, "--prompt", "How many crosses are there?", "--json"]
    with pytest.raises(SystemExit) as stop:
        main(["run", "--profile", str(model), "--model", str(model), *question])
    assert not stop.value.code
    answer = json.loads(capsys.readouterr().out)
    assert (answer["intent"], answer["label_source"].split(":")[0]) == ("counting", "student")


def test_what_is_there_is_not_replaced_unasked(model: Path, tmp_path: Path) -> None:
    """A second profile, another router: refused, then replaced with --force."""
    export_embedded(EXAMPLE, model)
    first = (model / "config.json").read_bytes()
    with pytest.raises(UsageError, match="--force"):
        export_embedded(EXAMPLE, model)
    source = student_source(tmp_path / "source")
    (model / "router.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match="--force"):
        export_embedded(source, model)
    (model / "config.json").write_bytes((MODEL_DIR / "config.json").read_bytes())
    with pytest.raises(UsageError, match="another content"):
        export_embedded(source, model)
    assert (model / "router.safetensors").read_bytes() == b"mine"
    (model / "config.json").write_bytes(first)
    export_embedded(source, model, force=True)
    assert (model / "router.safetensors").read_bytes() == SHIPPED.read_bytes()
    assert read_profile(model).router.kind == "student"


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001.safetensors", "adapter_model.safetensors"])
def test_a_router_never_takes_the_name_of_weights(model: Path, tmp_path: Path, name: str) -> None:
    """Whatever a profile calls its router, the model's weights stay."""
    source = student_source(tmp_path / "source", name)
    weights = (model / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="belongs to a model's weights"):
        export_embedded(source, model, force=True)
    assert (model / "model.safetensors").read_bytes() == weights
    assert "claspkit" not in json.loads((model / "config.json").read_text())


def test_another_model_and_links_are_refused(model: Path, tmp_path: Path) -> None:
    """Sizes that differ are listed; a link in the hub's cache belongs to others; a folder without a config is none."""
    write_profile(changed(model={**read_profile(EXAMPLE).model.model_dump(), "decoder_width": 256}), tmp_path)
    with pytest.raises(MismatchError, match="decoder_width: wanted 256, got 128"):
        export_embedded(tmp_path, model)
    real = model / "config.json"
    shutil.move(real, tmp_path / "blob")
    real.symlink_to(tmp_path / "blob")
    blob = (tmp_path / "blob").read_bytes()
    with pytest.raises(UsageError, match="is a link"):
        export_embedded(EXAMPLE, model)
    assert (tmp_path / "blob").read_bytes() == blob
    with pytest.raises(UsageError, match=r"holds no config\.json"):
        export_embedded(EXAMPLE, tmp_path / "nowhere")
    real.unlink()
    real.write_text("{")
    with pytest.raises((ProfileError, UsageError)):
        export_embedded(EXAMPLE, model)


def test_options_that_do_not_go_together(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One place to write to; --force and --fold-class where they mean something."""
    for arguments, words in (
        ([], "give one"),
        (["--to", str(tmp_path / "x"), "--embed", str(model)], "give one"),
        (["--to", str(tmp_path / "x"), "--force"], "--force goes with --embed"),
        (["--embed", str(model), "--fold-class", "scene", "--model", "mini"], "give --to"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["export", str(EXAMPLE), *arguments])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
    assert "claspkit" not in json.loads((model / "config.json").read_text())
