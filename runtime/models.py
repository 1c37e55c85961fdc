"""From a name to a loaded model: aliases, folders and hub ids, and the facts a profile records about it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.profiles.profile import ModelSpec

from .families import Family, FamilyFacts, find_family

ALIASES: dict[str, str] = {
    "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "llava-1.5-13b": "llava-hf/llava-1.5-13b-hf",
}
"""Short names for hub ids. ``mini`` is the model that ships with the package."""

MINI = "mini"

_SAMPLED_VALUES = 4096  # per tensor in a fingerprint: a fine-tune moves nearly all of them, reading them is cheap


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        name: what the user typed.
        id: the name recorded in profiles: the alias ``mini``, a hub id, or the folder's own name.
        location: folder or hub id, as ``from_pretrained`` takes it.
        revision: hub revision asked for, None for a folder.
        local: whether ``location`` is a folder.
    """

    name: str
    id: str
    location: str
    revision: str | None
    local: bool


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, with its processor, its family and the facts a profile records."""

    model: Any
    processor: Any
    family: Family
    spec: ModelSpec
    source: ModelSource


def resolve_model(name: str, revision: str | None = None) -> ModelSource:
    """Turn an alias, a folder or a hub id into a :class:`ModelSource`, without loading anything.

    Raises:
        UsageError: ``name`` is none of the three; the text lists the aliases.
    """
    if name == MINI:
        found = importlib.util.find_spec("claspkit.mini")
        if found is None or not found.submodule_search_locations:
            raise UsageError("the built-in model 'mini' is not part of this installation; reinstall claspkit")
        return ModelSource(name, MINI, str(Path(next(iter(found.submodule_search_locations))) / "model"), None, True)
    if name in ALIASES:
        return ModelSource(name, ALIASES[name], ALIASES[name], revision, False)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"the model folder {folder} has no config.json; it must be a transformers model folder")
        return ModelSource(name, folder.resolve().name, str(folder), None, True)
    owner, slash, repository = name.partition("/")
    if slash and owner and repository and "/" not in repository and not name.startswith((".", "~")):
        return ModelSource(name, name, name, revision, False)
    raise UsageError(
        f"unknown model {name!r}: not a folder here, not a hub id (owner/name), and not an alias. "
        f"Aliases: {', '.join([MINI, *ALIASES])}"
    )


def load_model(
    name: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    attention: str | None = None,
) -> LoadedModel:
    """Load model and processor from safetensors; no remote code is run.

    Args:
        name: alias, folder or hub id.
        device: torch device.
        dtype: weights' dtype; None takes the checkpoint's own on an accelerator and float32 on a CPU.
        revision: hub revision.
        attention: "sdpa" or "eager"; None leaves the choice to transformers.

    Raises:
        UsageError: the model cannot be found or fetched, or no family supports it.
    """
    transformers: Any = importlib.import_module("transformers")  # its Auto classes are untyped
    source = resolve_model(name, revision)
    place = _usable_device(device)
    chosen: Any = dtype or (torch.float32 if place.type == "cpu" else "auto")
    extra = {"attn_implementation": attention} if attention else {}
    try:
        processor = transformers.AutoProcessor.from_pretrained(source.location, revision=source.revision)
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            source.location, revision=source.revision, dtype=chosen, use_safetensors=True, **extra
        )
    except (OSError, ValueError, ImportError) as error:
        raise _not_loaded(source, error) from error
    model = model.to(place).eval()
    family = find_family(model)
    commit = None if source.local else getattr(model.config, "_commit_hash", None) or source.revision
    return LoadedModel(model, processor, family, describe(model, family, source.id, commit), source)


def _usable_device(name: str) -> torch.device:
    """Return the device of that name, after putting one number on it."""
    try:
        place = torch.device(name)
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"the device {name!r} cannot be used: {reason}. `claspkit doctor` shows what there is."
        ) from error
    return place


def config_facts(source: ModelSource) -> FamilyFacts:
    """Read a model's sizes from its config alone; no weights are loaded.

    Raises:
        UsageError: the config cannot be found or fetched, or no family supports the model.
    """
    transformers: Any = importlib.import_module("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(source.location, revision=source.revision)
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError) as error:
        raise _not_loaded(source, error) from error
    return find_family(model).facts(model)


def _not_loaded(source: ModelSource, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:300]
    if source.local:
        return UsageError(f"the model folder {source.location} could not be loaded: {reason}")
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    hub = "the hub was not asked (offline mode is on)" if HF_HUB_OFFLINE else "the hub did not deliver it"
    return UsageError(
        f"model {source.name!r} could not be loaded. Looked for: {source.location}"
        f"{f' at revision {source.revision}' if source.revision else ''}, in the local cache {HF_HUB_CACHE} "
        f"(not there) and on the hub ({hub}). What to do: on a machine with network run "
        f"`hf download {source.location}` and copy the cache, or give a folder with `--model PATH`, or try the "
        f"built-in model with `--model {MINI}`. Reason given: {reason}"
    )


def describe(model: nn.Module, family: Family, model_id: str, revision: str | None) -> ModelSpec:
    """Return the facts a profile records about a model; ``model_id`` and ``revision`` are the caller's word."""
    facts = family.facts(model)
    return ModelSpec(
        family=family.id,
        id=model_id,
        revision=revision,
        vision_depth=facts.vision_depth,
        vision_width=facts.vision_width,
        decoder_depth=facts.decoder_depth,
        decoder_width=facts.decoder_width,
        visual_tokens=facts.visual_tokens,
        default_layer=facts.default_layer,
        fingerprint=fingerprint(model),
    )


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over every tensor's name, shape and about 4096 evenly spaced values, rounded to bfloat16.

    Sampling keeps this cheap for billions of parameters, and a training step still changes it. The rounding makes
    one checkpoint the same model whether it was loaded in float32, float16 or bfloat16.
    """
    total = hashlib.sha256()
    with torch.inference_mode():
        for name, tensor in sorted(model.state_dict().items()):
            total.update(f"{name}{tuple(tensor.shape)}".encode())
            flat = tensor.detach().reshape(-1)
            step = max(1, flat.numel() // _SAMPLED_VALUES)
            sample = flat[::step].to(torch.bfloat16).cpu()
            if not bool(torch.isfinite(sample).all()):
                raise BadDataError(f"the model's weights hold NaN or infinity in {name}; the checkpoint is damaged")
            total.update(sample.view(torch.int16).numpy().tobytes())
    return total.hexdigest()
