"""A profile inside a model's ``config.json``: one object under one key, with the name of its method.

A model folder then says by itself how it is pruned. Who does not know the key leaves it alone; transformers keeps it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from .canonical import strict_loads
from .errors import ProfileError, UsageError, shorten
from .profile import Profile

CONFIG_NAME: Final = "config.json"
KEY: Final = "claspkit"
METHOD: Final = "clasp"
MAX_CONFIG: Final = 8 * 2**20
CONFIG: Final = "(config)"
"""What an error calls the file as a whole."""

_DEPTH = 40  # a profile may be 32 deep, and it stands two levels down


def has_profile(data: bytes) -> bool:
    """Whether the bytes of a ``config.json`` hold our key.

    Raises:
        ProfileError: it is no JSON object that can be read with safety.
    """
    return KEY in _config(data)


def embedded_profile(data: bytes) -> bytes:
    """The profile in the bytes of a ``config.json``, as bytes that still have to be parsed.

    Raises:
        UsageError: there is none.
        ProfileError: the file is no JSON object, or what is under our key has not the form ``{"method": "clasp",
            "profile": {...}}``.
    """
    config = _config(data)
    if KEY not in config:
        raise UsageError(
            f"this {CONFIG_NAME} has no profile in it (no key {KEY!r}); claspkit export RUN --embed FOLDER writes one"
        )
    block = config[KEY]
    if not isinstance(block, dict) or set(block) != {"method", "profile"}:
        found = sorted(block) if isinstance(block, dict) else block
        raise ProfileError(KEY, f"an object with 'method' and 'profile' belongs here, got {shorten(found)}")
    if block["method"] != METHOD:
        raise ProfileError(f"{KEY}.method", f"{shorten(block['method'])} is not known; there is: {METHOD}")
    return json.dumps(block["profile"], ensure_ascii=False, allow_nan=False).encode("utf-8")


def embed_profile(data: bytes, profile: Profile, *, replace: bool = False) -> bytes:
    """The bytes of a ``config.json`` with ``profile`` in it; everything else keeps its value and its place.

    Raises:
        UsageError: a profile is in it already, and it is not to be replaced.
        ProfileError: as of :func:`has_profile`, or the result would be larger than a reader takes.
    """
    config = _config(data)
    if KEY in config and not replace:
        raise UsageError(
            f"this {CONFIG_NAME} holds a profile under {KEY!r} already; give --force to put the new one in its place"
        )
    config[KEY] = {"method": METHOD, "profile": profile.model_dump(mode="json")}
    written = (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    _config(written)
    return written


def _config(data: bytes) -> dict[str, Any]:
    try:
        config = strict_loads(data, max_bytes=MAX_CONFIG, max_depth=_DEPTH)
    except ValueError as error:
        raise ProfileError(CONFIG, str(error)) from None
    if not isinstance(config, dict):
        raise ProfileError(CONFIG, f"a model's config is a JSON object, this is {shorten(config)}")
    return config
