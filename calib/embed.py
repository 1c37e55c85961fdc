"""``claspkit export --embed``: a profile into the folder of the model it was made for."""

from __future__ import annotations

from pathlib import Path

from claspkit.profiles.canonical import write_atomic
from claspkit.profiles.embedded import CONFIG_NAME, embed_profile
from claspkit.profiles.errors import MismatchError, UsageError, field_diff
from claspkit.profiles.files import read_profile, read_router_file
from claspkit.profiles.profile import Profile
from claspkit.runtime.models import model_sizes, resolve_model

from .export import profile_file
from .output import write_named


def export_embedded(source: Path, model: Path, *, force: bool = False) -> list[str]:
    """Write the profile of a run, or a profile, into the ``config.json`` of a model's folder, its router beside it.

    Sizes and family are compared with the config; that the weights are the ones the profile was made for is
    checked when it prunes.

    Args:
        source: run folder or profile.
        model: the model's folder, to be changed.
        force: replace a profile, and a router, that are there.

    Returns:
        The names of the files that were written.

    Raises:
        UsageError: no such folder, links in the place of its files, or something is there already.
        MismatchError: the profile was made for a model of other sizes; the text lists the differing fields.
        ProfileError: the profile is damaged, or the config cannot be read.
    """
    path = profile_file(source)
    profile = read_profile(path)
    config = model / CONFIG_NAME
    if not config.is_file():
        raise UsageError(f"{model} holds no {CONFIG_NAME}; --embed takes the folder of a transformers model")
    if config.is_symlink():
        raise UsageError(
            f"{config} is a link, as in the download cache of a hub: others use what it points to. Copy the folder "
            f"first, following links (cp -rL), and embed into the copy"
        )
    _check_sizes(profile, model)
    changed = embed_profile(config.read_bytes(), profile, replace=force)
    written = []
    if profile.router.file is not None:
        weights = read_router_file(profile.router, path.parent)
        _write_router(model / profile.router.file, weights, force)
        written.append(profile.router.file)
    write_named(config, changed, "--embed")  # last: a config never names a router that is not there
    return [*written, CONFIG_NAME]


def _check_sizes(profile: Profile, model: Path) -> None:
    sizes = model_sizes(resolve_model(str(model.absolute())))
    names = ("vision_depth", "vision_width", "decoder_depth", "decoder_width", "visual_tokens", "default_layer")
    found = {"family": sizes.family, **{name: getattr(sizes.facts, name) for name in names}}
    lines = field_diff({name: getattr(profile.model, name) for name in found}, found)
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise MismatchError(
            f"the profile was made for {profile.model.id} and does not fit the model in {model}:\n{listed}"
        )


def _write_router(target: Path, weights: bytes, force: bool) -> None:
    """Put a student beside the config, never in the place of anything but another student."""
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise UsageError(f"{target} is no plain file; the router of the profile needs that name")
    if target.name.startswith(("model", "pytorch_model", "consolidated", "adapter")):
        raise UsageError(f"the profile calls its router {target.name}, a name that belongs to a model's weights")
    if target.exists() and target.read_bytes() != weights and not force:
        raise UsageError(f"{target} is there with another content; give --force to put this profile's router there")
    try:
        write_atomic(target, weights)
    except OSError as error:
        raise UsageError(f"{target} cannot be written ({error.strerror}); give --embed a folder that can be") from None
