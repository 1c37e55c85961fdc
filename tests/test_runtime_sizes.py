"""Sizes of models from configs alone: the model's own, and those that ship for the aliases."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from house import ROOT, fresh
from tiny_llava import tiny_llava

import claspkit.runtime.models as models
from claspkit.profiles.errors import UsageError
from claspkit.runtime.models import ALIASES, FROM_FOLDER, FROM_HUB, FROM_PACKAGE, model_sizes, resolve_model

# alias -> family, vision depth and width, decoder depth, width, FFN, heads, key/value heads, visual tokens, layer read
PUBLISHED = {
    "llava-1.5-7b": ("llava", 24, 1024, 32, 4096, 11008, 32, 32, 576, 23),
    "llava-1.5-13b": ("llava", 24, 1024, 40, 5120, 13824, 40, 40, 576, 23),
    "llava-next-7b": ("llava-next", 24, 1024, 32, 4096, 11008, 32, 32, 2880, 23),
    "llava-next-13b": ("llava-next", 24, 1024, 40, 5120, 13824, 40, 40, 2880, 23),
    "video-llava-7b": ("video-llava", 24, 1024, 32, 4096, 11008, 32, 32, 2056, 23),
    "qwen2.5-vl-7b": ("qwen2.5-vl", 32, 1280, 28, 3584, 18944, 28, 4, 1296, 32),
    "internvl3-8b": ("internvl", 24, 1024, 28, 3584, 18944, 28, 4, 256, 24),
}
# Parameters of the published checkpoints, in thousandths of a billion: any wrong size in a config shows here.
PARAMETERS = {
    "llava-1.5-7b": 7063,
    "llava-1.5-13b": 13351,
    "llava-next-7b": 7063,
    "llava-next-13b": 13351,
    "video-llava-7b": 7366,
    "qwen2.5-vl-7b": 8292,
    "internvl3-8b": 7944,
}


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without network and with an empty cache."""
    auto: Any = importlib.import_module("transformers").AutoConfig
    read = auto.from_pretrained

    def only_local(place: str, **options: Any) -> Any:
        if not Path(place).exists():
            raise OSError(f"{place} is not in the cache")
        return read(place, **options)

    monkeypatch.setattr(auto, "from_pretrained", only_local)
    monkeypatch.setattr(models, "_hub_answers", lambda repository: False)


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_every_alias_has_its_sizes_offline(alias: str, no_hub: None) -> None:
    """Family and sizes of the model behind the alias, by alias and by hub id."""
    sizes = model_sizes(resolve_model(alias))
    facts = sizes.facts
    found = (facts.vision_depth, facts.vision_width, facts.decoder_depth, facts.decoder_width, facts.ffn_width)
    assert (sizes.family, *found) == PUBLISHED[alias][:6]
    assert (facts.heads, facts.kv_heads, facts.visual_tokens, facts.default_layer) == PUBLISHED[alias][6:]
    assert facts.scaling == ("absolute" if "llava-" in alias and "video" not in alias else "share")
    assert sizes.origin == FROM_PACKAGE
    assert model_sizes(resolve_model(ALIASES[alias])) == sizes


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_shipped_configs_build_models_of_the_published_size(alias: str) -> None:
    """The parameters that a config gives are those of the checkpoint."""
    transformers: Any = importlib.import_module("transformers")
    config = transformers.AutoConfig.from_pretrained(str(ROOT / "runtime" / "configs" / f"{alias}.json"))
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) // 10**6 == PARAMETERS[alias]


def test_aliases_and_shipped_configs_are_the_same_names() -> None:
    """No config without an alias, no alias without a config, and nothing in them that names a machine."""
    folder = ROOT / "runtime" / "configs"
    assert {path.name for path in folder.iterdir()} == {f"{alias}.json" for alias in ALIASES}
    for path in folder.iterdir():
        assert "_name_or_path" not in json.dumps(json.loads(path.read_text(encoding="utf-8")))


def test_the_models_own_config_comes_first(no_hub: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cached or fetched config is read, not the one that ships; a folder's own is never replaced."""
    tiny_llava().config.save_pretrained(tmp_path)
    sizes = model_sizes(resolve_model(str(tmp_path)))
    assert (sizes.origin, sizes.facts.decoder_width) == (FROM_FOLDER, tiny_llava().config.text_config.hidden_size)
    auto: Any = importlib.import_module("transformers").AutoConfig
    read = auto.from_pretrained
    source = resolve_model("llava-1.5-7b")

    def cached(place: str, **options: Any) -> Any:
        assert place == source.location
        return read(str(tmp_path))

    monkeypatch.setattr(auto, "from_pretrained", cached)
    assert model_sizes(source) == replace(sizes, origin=FROM_HUB)

    def fetched(place: str, *, local_files_only: bool = False, **options: Any) -> Any:
        if local_files_only:
            raise OSError("not in the cache")
        return read(str(tmp_path))

    monkeypatch.setattr(auto, "from_pretrained", fetched)
    monkeypatch.setattr(models, "_hub_answers", lambda repository: True)
    assert model_sizes(source) == replace(sizes, origin=FROM_HUB)


def test_nothing_ships_for_other_models_and_revisions(no_hub: None, tmp_path: Path) -> None:
    """A hub id without an alias, and a revision asked for, need their own config."""
    for source in (resolve_model("someone/some-model"), resolve_model("llava-1.5-7b", "0123abc")):
        with pytest.raises(UsageError, match="could not be loaded"):
            model_sizes(source)
    damaged = tmp_path / "model"
    damaged.mkdir()
    shutil.copy(ROOT / "runtime" / "configs" / "llava-1.5-7b.json", damaged / "config.json")
    (damaged / "config.json").write_text("{")
    with pytest.raises(UsageError, match="could not be loaded"):
        model_sizes(resolve_model(str(damaged)))


def test_naming_a_model_needs_no_pydantic(tmp_path: Path) -> None:
    """Aliases and loading are there without the library that checks profiles."""
    code = "import json, sys, claspkit.runtime.models\nprint(json.dumps(sorted(sys.modules)))"
    assert not {"pydantic", "claspkit.profiles.profile"} & set(json.loads(fresh(code, cwd=tmp_path)))
