"""From a name to a loaded model: aliases, folders and hub ids, and the facts a profile records about it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from claspkit.profiles.errors import BadDataError, UsageError

from .families import Family, FamilyFacts, find_family
from .processors import load_processor

if TYPE_CHECKING:  # it needs pydantic; only who describes a model for a profile does
    from claspkit.profiles.profile import ModelSpec

ALIASES: dict[str, str] = {
    "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "llava-1.5-13b": "llava-hf/llava-1.5-13b-hf",
    "llava-next-7b": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava-next-13b": "llava-hf/llava-v1.6-vicuna-13b-hf",
    "video-llava-7b": "LanguageBind/Video-LLaVA-7B-hf",
    "qwen2.5-vl-7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "internvl3-8b": "OpenGVLab/InternVL3-8B-hf",
}
"""Short names for hub ids; the sizes of each are in ``configs/``. ``mini`` is the model inside the package."""

MINI = "mini"

FROM_FOLDER, FROM_HUB, FROM_PACKAGE = (
    "the config in the model's folder",
    "the model's own config from the hub or its cache",
    "the config that ships with claspkit",
)
"""Where a model's sizes were read."""

_HUB_TIMEOUT = 3.0  # seconds for one sign of life; fetching a config is then given all its retries
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


@dataclass(frozen=True)
class ModelSizes:
    """What a model's config says, with no weights loaded.

    Attributes:
        family: id of the model family.
        facts: its sizes.
        origin: one of :data:`FROM_FOLDER`, :data:`FROM_HUB` and :data:`FROM_PACKAGE`.
    """

    family: str
    facts: FamilyFacts
    origin: str


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
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            source.location, revision=source.revision, dtype=chosen, use_safetensors=True, **extra
        )
        family = find_family(model)
        processor = load_processor(source.location, source.revision, family.id, model.config)
    except (OSError, ValueError, ImportError) as error:
        raise _not_loaded(source, error) from error
    model = model.to(place).eval()
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
    """Read a model's sizes from its config alone; see :func:`model_sizes`."""
    return model_sizes(source).facts


def model_sizes(source: ModelSource, picture: tuple[int, int] | None = None) -> ModelSizes:
    """Read a model's sizes from its config alone; no weights are loaded.

    The config that ships for an alias is read only where cache and hub do not deliver the model's own.

    Args:
        source: the model.
        picture: height and width in pixels of the picture that ``patches`` are counted for; None for the one that
            ``visual_tokens`` is of.

    Raises:
        UsageError: the config cannot be found or fetched, or no family supports the model.
    """
    transformers: Any = importlib.import_module("transformers")
    try:
        config, origin = _read_config(source)
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError) as error:
        raise _not_loaded(source, error) from error
    family = find_family(model)
    facts = family.facts(model)
    if picture is not None:
        facts = replace(facts, patches=family.picture_patches(model, picture))
    return ModelSizes(family.id, facts, origin)


def _read_config(source: ModelSource) -> tuple[Any, str]:
    """Return a config and its origin: from folder or cache, from a hub that answers, or from the package."""
    read: Any = importlib.import_module("transformers").AutoConfig.from_pretrained
    if source.local:
        return read(source.location), FROM_FOLDER
    shipped = shipped_config(source)
    if shipped is None:
        return read(source.location, revision=source.revision), FROM_HUB
    try:
        return read(source.location, local_files_only=True), FROM_HUB
    except OSError:  # not in the cache
        if _hub_answers(source.location):
            return read(source.location), FROM_HUB
        return read(str(shipped)), FROM_PACKAGE


def shipped_config(source: ModelSource) -> Path | None:
    """Return the config that ships for a hub id with an alias; None for others, and for a revision asked for."""
    alias = next((name for name, location in ALIASES.items() if location == source.location), None)
    return None if alias is None or source.revision else Path(__file__).with_name("configs") / f"{alias}.json"


def _hub_answers(repository: str) -> bool:
    """Ask once and briefly: without network the usual way to a file is half a minute of retries."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json"), timeout=_HUB_TIMEOUT)
    except Exception:  # its HTTP library's errors have no common base that we depend on
        return False
    return True


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
    from claspkit.profiles.profile import ModelSpec

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
