"""Where a teacher's weights come from, in words: its name in labels, and what to do when it cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import UsageError

from .backends import BackendOptions

_CONFIG = "config.json"


def teacher_source(name: str, revision: str | None, config: Any) -> str:
    """``teacher:<model>@<revision>``: the commit of a hub model, a digest of the folder's file list otherwise.

    A folder is known by its config and by name and size of each weight file: labels of other weights put into the
    same folder are then not reused.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        commit = getattr(config, "_commit_hash", None) or revision or "main"
        return f"teacher:{name}@{commit}"
    files = sorted(folder.glob("*.safetensors"))
    listed = "\n".join(f"{path.name} {path.stat().st_size}" for path in files).encode()
    digest = sha256_hex((folder / _CONFIG).read_bytes() + b"\n" + listed)
    return f"teacher:{folder.resolve().name}@{digest[:12]}"


def not_found(name: str, options: BackendOptions, error: Exception) -> UsageError:
    """The error for a labelling model that could not be loaded: where it was looked for and what to do."""
    reason = " ".join(str(error).split())[:300]
    instead = "or label without a model: --router rules"
    folder = Path(name).expanduser()
    if folder.is_dir():
        has = "has" if (folder / _CONFIG).is_file() else "has no"
        return UsageError(
            f"the labelling model in folder {folder} could not be loaded (it {has} {_CONFIG}): {reason}. "
            f"It must be a transformers folder of a causal language model with safetensors weights; {instead}."
        )
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    hub = "not asked, offline mode is on" if HF_HUB_OFFLINE else "asked, it did not deliver"
    at = f" --revision {options.revision}" if options.revision else ""
    return UsageError(
        f"the labelling model {name!r} could not be loaded on {options.device}. Looked for: a folder of that name "
        f"(none); the local hub cache {HF_HUB_CACHE} (not complete there); the hub ({hub}). "
        f"What to do: on a machine with network run `hf download {name}{at}` and copy the cache, "
        f"or give a folder: --router-model PATH, {instead}. Reason given: {reason}"
    )
