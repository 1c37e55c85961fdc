"""For deployment: a profile folder that says what it is, or one class's fusion folded into an ordinary model folder."""

from __future__ import annotations

import importlib
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from claspkit.profiles.canonical import sha256_hex, write_atomic
from claspkit.profiles.errors import UsageError
from claspkit.profiles.files import FILE_NAME, check_model, read_profile, read_router_file
from claspkit.profiles.profile import ClassSpec, Profile, RouterSpec
from claspkit.runtime.fold import fold_class
from claspkit.runtime.models import LoadedModel, load_model, resolve_model

from .folder import RunFolder
from .schedule import parse_nominal

SHARD_SIZE = "5GB"
"""Largest file of a folded model."""


def export_profile(source: Path, target: Path) -> list[str]:
    """Write the profile of a run, or a profile, into ``target``; returns the names of the files.

    Raises:
        UsageError: there is no profile, or ``target`` holds something already.
        ProfileError: the profile is damaged.
    """
    path = _profile_file(source)
    profile = read_profile(path)
    _check_free(target)
    target.mkdir(parents=True, exist_ok=True)
    contents = {
        FILE_NAME: path.read_bytes(),
        "schema.json": files("claspkit.profiles").joinpath("schema.json").read_bytes(),
        "README.md": _card(profile).encode(),
    }
    if profile.router.file is not None:
        contents[profile.router.file] = read_router_file(profile.router, path.parent)
    contents["SHA256SUMS"] = "".join(f"{sha256_hex(data)}  {name}\n" for name, data in contents.items()).encode()
    for name, data in contents.items():
        write_atomic(target / name, data)
    return list(contents)


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
    profile = read_profile(_profile_file(source))
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
        write_atomic(unfinished / "README.md", _folded_card(profile, spec, folded.config).encode())
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


def _profile_file(source: Path) -> Path:
    """The profile of a run, inside a folder, or the file itself."""
    run = RunFolder(source)
    return run.profile if run.profile.exists() else source / FILE_NAME if source.is_dir() else source


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


def _card(profile: Profile) -> str:
    """A README that says what the profile is for and what was shown for it."""
    budget, own = profile.budget, [spec.intent for spec in profile.classes if spec.stages is not None]
    lines = [
        f"# Visual-token pruning profile for {profile.model.id}",
        "",
        f"Profile `{profile.profile_id}`, nominal budget {budget.nominal} of {profile.model.visual_tokens} visual "
        f"tokens (mean per decoder layer: {budget.mean_tokens_leaving:.1f} leaving, "
        f"{budget.mean_tokens_entering:.1f} entering).",
        *([f"Classes that keep other numbers of tokens at the same layers: {', '.join(own)}."] if own else []),
        "",
        "```python",
        *(["from pathlib import Path", ""] if profile.router.file else []),
        "from claspkit.profiles import read_profile",
        "from claspkit.runtime import prune",
        "",
        'profile = read_profile("profile.json")',
        f"with prune(model, profile, prompts=[question]{', folder=Path()' if profile.router.file else ''}):",
        "    model.generate(**inputs)",
        "```",
        "",
        _router_line(profile.router),
        "",
        "| class | layers | rho | kept tokens | decision | holdout samples | default score | difference of the tested "
        "candidate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for spec in profile.classes:
        shown = "not tested"
        if spec.difference is not None and spec.ci_low is not None and spec.ci_high is not None:
            shown = f"{spec.difference:+.3f} [{spec.ci_low:+.3f}, {spec.ci_high:+.3f}]"
        default = "-" if spec.default_score is None else f"{spec.default_score:.3f}"
        layers = ", ".join(map(str, spec.layers))
        kept = " / ".join(str(stage.keep) for stage in spec.stages or budget.stages)
        cells = (spec.intent, layers, f"{spec.rho:g}", kept, spec.decision, spec.n_holdout, default, shown)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


def _router_line(router: RouterSpec) -> str:
    """What gives a prompt its class, and where the folder of that is needed."""
    if router.file is None:
        return f"Prompts are routed by rules, version {router.rules_version}."
    return (
        f"Prompts are routed by the student in `{router.file}`, which stays beside `profile.json`; `folder` says "
        f"where. A label less sure than {router.min_confidence:.3f} becomes `{router.fallback}`."
    )


def _folded_card(profile: Profile, spec: ClassSpec, config: Any) -> str:
    """A README that says what a folded model is, what it comes from, and what it is not."""
    model = profile.model
    shares = ", ".join(f"{layer}: {share:.4g}" for layer, share in zip(spec.layers, spec.weights, strict=True))
    lines = [
        f"# {model.id} with the vision-layer fusion of class `{spec.intent}`",
        "",
        f"Made from {model.id}{f' at revision {model.revision}' if model.revision else ''}, whose licence applies, and "
        f"from class `{spec.intent}` of profile `{profile.profile_id}`.",
        "",
        f"- Vision layers and their shares (0 = embeddings): {shares}",
        f"- `vision_feature_layer` of config.json: {config.vision_feature_layer}",
        f"- What the profile decided for this class: {spec.decision} ({spec.reason})",
        "",
        "The shares are multiplied into the projector's first layer; all other weights are those of the model above. "
        "It computes what that model computes when hooks fuse these layers, up to rounding to the stored dtype.",
        "",
        "**Fusion only.** No visual token is pruned, so nothing is saved, and prompts of every class get this one "
        "class's fusion. The profile's scores were measured with pruning; they do not describe this model.",
        "",
        "```python",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        'model = AutoModelForImageTextToText.from_pretrained("this folder")',
        'processor = AutoProcessor.from_pretrained("this folder")',
        "```",
        "",
    ]
    return "\n".join(lines)
