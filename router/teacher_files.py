"""Where a teacher's weights come from, in words: its name in labels, and what to do when it cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import UsageError

from .backends import BackendOptions

NO_MEMORY = "choose a smaller model with --router-model, another --device, or --router rules"
_INSTEAD = "or label without a model: --router rules"
_CONFIG = "config.json"
_PIECES, _PIECE = 64, 4096  # a fine-tune moves nearly all weights


def teacher_source(name: str, revision: str | None, config: Any) -> str:
    """``teacher:<model>@<revision>``: the commit of a hub model, a digest of the files of a folder.

    The digest covers config, tokenizer and chat template whole, and size and samples of each weight file: labels of
    other weights put into the same folder are then not taken for these.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        commit = getattr(config, "_commit_hash", None) or revision or "main"
        return f"teacher:{name}@{commit}"
    parts = [path.read_bytes() for path in sorted(folder.glob("*.json")) + sorted(folder.glob("*.jinja"))]
    parts += [_sampled(path) for path in sorted(folder.glob("*.safetensors"))]
    digest = sha256_hex("".join(map(sha256_hex, parts)).encode())
    return f"teacher:{folder.resolve().name}@{digest[:12]}"


def _sampled(path: Path) -> bytes:
    """Size and evenly spaced pieces of a file: reading all weights would take longer than many a labelling."""
    size = path.stat().st_size
    pieces = [str(size).encode()]
    with path.open("rb") as file:
        for piece in range(_PIECES):
            file.seek(max(0, size - _PIECE) * piece // (_PIECES - 1))
            pieces.append(file.read(_PIECE))
    return b"".join(pieces)


def not_loaded(name: str, options: BackendOptions, error: Exception) -> UsageError:
    """The error for a labelling model that could not be loaded: where it was looked for and what to do."""
    reason = " ".join(str(error).split())[:300]
    folder = Path(name).expanduser()
    if folder.is_dir():
        has = "has" if (folder / _CONFIG).is_file() else "has no"
        return UsageError(
            f"the labelling model in folder {folder} could not be loaded (it {has} {_CONFIG}): {reason}. "
            f"It must be a transformers folder of a causal language model with safetensors weights; {_INSTEAD}."
        )
    if not isinstance(error, OSError):
        return UsageError(
            f"the labelling model {name!r} was found but could not be loaded: {reason}. It must be a causal language "
            f"model with safetensors weights; name another one with --router-model, {_INSTEAD}."
        )
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    hub = "not asked, offline mode is on" if HF_HUB_OFFLINE else "asked, it did not deliver"
    at = f" --revision {options.revision}" if options.revision else ""
    return UsageError(
        f"the labelling model {name!r} could not be loaded. Looked for: a folder of that name (none); the local hub "
        f"cache {HF_HUB_CACHE} (not there, or not complete); the hub ({hub}). "
        f"What to do: on a machine with network run `hf download {name}{at}` and copy the cache, "
        f"or give a folder: --router-model PATH, {_INSTEAD}. Reason given: {reason}"
    )
