"""For deployment: a profile folder that says what it is, or one class's fusion folded into an ordinary model folder."""

from __future__ import annotations

import importlib
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from claspkit.profiles.canonical import sha256_hex, write_atomic
from claspkit.profiles.embedded import CONFIG_NAME
from claspkit.profiles.errors import UsageError
from claspkit.profiles.files import FILE_NAME, check_model, profile_path, profile_text, read_profile, read_router_file
from claspkit.profiles.profile import Profile
from claspkit.runtime.fold import fold_class
from claspkit.runtime.models import LoadedModel, load_model, resolve_model

from .card import folded_card, profile_card
from .folder import RunFolder
from .schedule import parse_nominal

SHARD_SIZE = "5GB"
"""Largest file of a folded model."""

CARD, SCHEMA, SUMS, ATTRIBUTES = "README.md", "schema.json", "SHA256SUMS", ".gitattributes"
"""Files of a profile folder beside the profile and its router."""

_LARGE_FILES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def export_profile(source: Path, target: Path) -> list[str]:
    """Write the profile of a run, or a profile, into ``target``, as a folder that is also a repository of a model hub.

    Returns:
        The names of the files.

    Raises:
        UsageError: there is no profile, or ``target`` holds something already.
        ProfileError: the profile is damaged.
    """
    path = profile_file(source)
    profile = read_profile(path)
    _check_free(target)
    contents = {
        FILE_NAME: profile_bytes(path, profile),
        SCHEMA: published_schema(),
        CARD: profile_card(profile).encode(),
    }
    if profile.router.file is not None:
        contents[profile.router.file] = read_router_file(profile.router, path.parent)
    contents[SUMS] = "".join(f"{sha256_hex(data)}  {name}\n" for name, data in contents.items()).encode()
    contents[ATTRIBUTES] = _LARGE_FILES  # not in the list: a hub puts its own in the place of it
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            write_atomic(target / name, data)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}; give --to a folder that can be made") from error
    return list(contents)


def published_schema() -> bytes:
    """The JSON Schema of the profiles that this version writes."""
    return files("claspkit.profiles").joinpath("schema.json").read_bytes()


def export_folded(source: Path, intent: str, model: str, target: Path) -> list[str]:
    """Load a model as it was stored, and write it with one class's fusion folded in; see :func:`write_folded`.

    Args:
        source: run folder or profile.
        intent: the class.
        model: alias, hub id or folder of the model the profile was made for.
        target: folder to write.

    Returns:
        The names of the files.
    """
    profile = read_profile(profile_file(source))
    profile.for_intent(intent)  # what is refused without the weights is refused before they are loaded
    _check_free(target)
    revision = profile.model.revision
    loaded = load_model(model, dtype=_stored_dtype(model, revision), revision=revision)
    return write_folded(loaded, profile, intent, target)


def write_folded(
    loaded: LoadedModel, profile: Profile, intent: str, target: Path, *, shard_size: str = SHARD_SIZE
) -> list[str]:
    """Write a model folder that transformers alone loads and that fuses as ``intent`` of ``profile`` does.

    It holds weights (safetensors), config, processor and a card. The fusion is all it takes from the profile: it
    prunes nothing and routes nothing. The folder appears whole or not at all.

    Args:
        loaded: the model and its processor, in the dtype to write.
        profile: made for this model.
        intent: the class.
        target: folder to write; new or empty.
        shard_size: largest file, as ``save_pretrained`` takes it.

    Returns:
        The names of the files.

    Raises:
        UsageError: unknown intent, ``target`` is taken or cannot be written, or the model cannot be folded.
        MismatchError: the profile was made for another model; the text lists the differing fields.
    """
    spec = profile.for_intent(intent)
    check_model(profile, loaded.spec)
    _check_free(target)
    folded: Any = fold_class(loaded.model, loaded.family, spec.layers, spec.weights)
    target = target.resolve()
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        unfinished.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"{unfinished} is there: an earlier export was cut off. Delete it and export again") from None
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}; give --to a folder that can be made") from error
    try:
        folded.save_pretrained(unfinished, max_shard_size=shard_size)
        loaded.processor.save_pretrained(unfinished)
        write_atomic(unfinished / "README.md", folded_card(profile, spec, folded.config).encode())
        if target.exists():
            target.rmdir()  # empty; a rename onto it is not possible everywhere
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return sorted(path.name for path in target.iterdir())


def budget_profile(run: Path, budget: str) -> Path:
    """The profile of one budget of a run.

    Args:
        run: run folder.
        budget: visual tokens or a share, as ``--budget`` of a calibration takes it, or "adaptive".

    Raises:
        UsageError: no finished run, or no such profile; the text lists those that there are.
    """
    folder = RunFolder(run)
    if not folder.profile.exists():
        raise UsageError(f"--budget picks a profile of a finished run, and {run} holds none")
    first = read_profile(folder.profile)
    found = {str(first.budget.nominal): folder.profile}
    for place in folder.further_profiles:
        if (place / FILE_NAME).exists():
            found[place.name.removeprefix("profile-")] = place / FILE_NAME
    name = budget if budget in found else str(_nominal(budget, first))
    if name not in found:
        raise UsageError(f"{run} has no profile for --budget {budget}; there are: {', '.join(found)}")
    return found[name]


def _nominal(budget: str, profile: Profile) -> int | str:
    return budget if budget == "adaptive" else parse_nominal(budget, profile.model.visual_tokens)


def profile_file(source: Path) -> Path:
    """The profile of a run, inside a folder (its own, or a model's that it was embedded into), or the file itself."""
    run = RunFolder(source)
    return run.profile if run.profile.exists() else profile_path(source)


def profile_bytes(path: Path, profile: Profile) -> bytes:
    """A profile as a file of its own: byte for byte as it is, or out of the config it is embedded in."""
    return profile_text(profile) if path.name == CONFIG_NAME else path.read_bytes()


def _check_free(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; give --to a new folder")
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty; give --to a new folder")


def _stored_dtype(model: str, revision: str | None) -> torch.dtype | None:
    """The dtype a checkpoint's config names, None where it names none or cannot be read."""
    source = resolve_model(model, revision)
    transformers: Any = importlib.import_module("transformers")  # its Auto classes are untyped
    try:
        config = transformers.AutoConfig.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError):
        return None  # loading the model fails on the same and says why
    stored = getattr(config, "dtype", None)
    return stored if isinstance(stored, torch.dtype) else None
