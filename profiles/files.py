"""Profiles on disk: read with suspicion, written whole or not at all, checked against the model at hand."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from .canonical import sha256_hex, write_atomic
from .embedded import CONFIG, CONFIG_NAME, MAX_CONFIG, embedded_profile, has_profile
from .errors import MismatchError, ProfileError, UsageError, field_diff, shorten
from .profile import MAX_BYTES, SCHEMA_VERSION, ModelSpec, Profile, RouterSpec, parse_profile

FILE_NAME = "profile.json"
SCHEMA_ID = f"urn:claspkit:schema:clasp-profile:{SCHEMA_VERSION}"
MAX_ROUTER_BYTES = 64 * 2**20


def profile_path(path: Path | str) -> Path:
    """The profile file meant by ``path``: itself, or in a folder ``profile.json``.

    In a model's folder without one it is ``config.json``, if a profile is embedded there.
    """
    path = Path(path)
    if not os.path.isdir(path):  # of os.path, here and below: pathlib raises where a folder may not be looked into
        return path
    config = path / CONFIG_NAME
    embedded = not os.path.exists(path / FILE_NAME) and os.path.isfile(config)
    if embedded and has_profile(_read_bounded(config, MAX_CONFIG, CONFIG)):
        return config
    return path / FILE_NAME


def read_profile(path: Path | str) -> Profile:
    """Read the profile at ``path``: a file, a folder that holds ``profile.json``, or a model's with one in its config.

    Raises:
        UsageError: there is nothing to read.
        ProfileError: the file is damaged, hostile or changed; names the field.
    """
    path = profile_path(path)
    embedded = path.name == CONFIG_NAME
    data = _read_bounded(path, MAX_CONFIG if embedded else MAX_BYTES, "(file)")
    try:
        return parse_profile(embedded_profile(data) if embedded else data)
    except ProfileError as error:
        raise ProfileError(error.field, f"{error.reason} [in {path}]") from None


def write_profile(profile: Profile, path: Path | str) -> Path:
    """Write a profile to a file, or as ``profile.json`` into a folder; returns the file's path.

    Raises:
        ProfileError: it could not be read again, for example because it is larger than 1 MB; nothing is
            written.
        ResourceError: the disk is full.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    data = profile_text(profile)
    parse_profile(data)
    write_atomic(path, data)
    return path


def profile_text(profile: Profile) -> bytes:
    """The content of a profile's file: indented UTF-8 JSON."""
    text = json.dumps(profile.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def read_router_file(router: RouterSpec, folder: Path | str) -> bytes:
    """The bytes of a student router's weights, from the profile's folder and with the stated digest.

    Raises:
        ProfileError: names the field: the file is absent, outside the folder (also through a link), too large
            or changed.
        UsageError: the router has no file.
    """
    if router.file is None:
        raise UsageError(f"a router of kind {router.kind!r} has no file")
    folder = Path(folder)
    path = folder / router.file
    if os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
        raise ProfileError("router.file", f"{router.file!r} leads out of the profile's folder")
    if not os.path.isfile(path):
        raise ProfileError("router.file", f"{router.file!r} is not in {folder}; copy it beside the profile")
    data = _read_bounded(path, MAX_ROUTER_BYTES, "router.file")
    if sha256_hex(data) != router.sha256:
        raise ProfileError("router.sha256", f"{router.file!r} has changed since the profile was written")
    return data


def check_model(profile: Profile, model: ModelSpec) -> None:
    """Refuse a profile that was made for another model.

    ``id`` and ``revision`` are not compared: the same weights may lie in another folder. ``fingerprint``
    tells.

    Raises:
        MismatchError: lists the differing fields.
    """
    ours = {"id", "revision"}
    lines = field_diff(profile.model.model_dump(exclude=ours), model.model_dump(exclude=ours))
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        raise MismatchError(
            f"the profile was made for {profile.model.id} and does not fit {model.id}:\n{listed}\n"
            "Use the profile's own model, or calibrate this one: claspkit calibrate --model MODEL"
        )


def profile_schema() -> str:
    """The JSON Schema (2020-12) of a profile as it stands in ``schema.json``."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **Profile.model_json_schema(mode="validation"),
    }
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _read_bounded(path: Path, limit: int, field: str) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; never waits on a pipe."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        inside = path.parent / "profile" / path.name  # where a run folder has its profile
        hint = f"; a run's profile is a folder in it: {inside.parent}" if os.path.isfile(inside) else ""
        raise UsageError(f"cannot read the profile at {path}: {error.strerror}{hint}") from None
    except ValueError as error:  # a NUL in the path
        raise UsageError(f"cannot read the profile at {shorten(str(path))}: {error}") from None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ProfileError(field, f"{path} is no regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ProfileError(field, f"{path} is larger than the {limit} bytes allowed")
    return data
