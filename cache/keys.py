"""What decides the bytes of a feature store: two stores with equal keys hold equal features for an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from claspkit.profiles.canonical import digest
from claspkit.profiles.errors import field_diff

DTYPES: tuple[str, ...] = ("float16", "bfloat16", "float32", "int8")
"""Logical dtypes of stored features; bfloat16 lies on disk as uint16 bit patterns, int8 with scales beside it."""

MAX_AXIS = 1 << 20
"""Bound of everything that counts tokens, channels or pixels along a side."""

_MAX_TEXT = 512
_MAX_LAYER = 4096


@dataclass(frozen=True)
class FeatureKey:
    """Identity of the features of one store.

    Attributes:
        model_id: alias, hub id or folder name of the model.
        revision: hub revision, None for a folder.
        fingerprint: SHA-256 hex of the model's weights as loaded.
        processor_sha256: SHA-256 hex of the image processor's settings.
        image_backend: code that resized and normalised the images; backends differ in the last bits.
        dtype: logical dtype of the stored values, one of ``DTYPES``.
        layers: stored vision layers, ascending, ``hidden_states`` indexing (0 = embeddings).
        tokens: patch tokens per image and layer, N; None where they differ from image to image.
        width: channels per token, d_v.

    Raises:
        ValueError: a field is out of its bounds; the text names the field.
    """

    model_id: str
    revision: str | None
    fingerprint: str
    processor_sha256: str
    image_backend: str
    dtype: str
    layers: tuple[int, ...]
    tokens: int | None
    width: int

    def __post_init__(self) -> None:
        for name in ("model_id", "image_backend"):
            _require(_is_text(getattr(self, name)), name, f"a text of 1 to {_MAX_TEXT} characters")
        _require(self.revision is None or _is_text(self.revision), "revision", "a text or null")
        for name in ("fingerprint", "processor_sha256"):
            _require(is_sha256(getattr(self, name)), name, "64 lowercase hex digits")
        _require(self.dtype in DTYPES, "dtype", f"one of {', '.join(DTYPES)}")
        layers = self.layers
        plain = isinstance(layers, tuple) and all(is_int(item, 0, _MAX_LAYER) for item in layers)
        ascending = plain and 0 < len(layers) == len(set(layers)) and list(layers) == sorted(layers)
        _require(ascending, "layers", f"distinct ascending integers from 0 to {_MAX_LAYER}, at least one")
        allowed = f"an integer from 1 to {MAX_AXIS}"
        _require(self.tokens is None or is_int(self.tokens, 1, MAX_AXIS), "tokens", f"{allowed}, or null")
        _require(is_int(self.width, 1, MAX_AXIS), "width", allowed)

    @property
    def digest(self) -> str:
        """SHA-256 hex of the canonical JSON of :meth:`to_dict`."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self) | {"layers": list(self.layers)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureKey:
        """Build a key from :meth:`to_dict`'s form.

        Raises:
            ValueError: a field is missing, unknown or out of its bounds.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or data.keys() != names:
            raise ValueError(f"a feature key has exactly the fields {', '.join(sorted(names))}")
        layers = data["layers"]
        return cls(**{**data, "layers": tuple(layers) if isinstance(layers, list) else layers})

    def diff(self, other: FeatureKey) -> list[str]:
        """One line per field in which ``other``, the one wanted, differs from this key; empty if equal."""
        return field_diff(other.to_dict(), self.to_dict())


def is_sha256(value: object) -> bool:
    """Whether ``value`` is a SHA-256 in the one spelling used here: 64 lowercase hex digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def is_int(value: object, low: int, high: int) -> bool:
    """Whether ``value`` is an integer, no bool, from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


def _require(holds: bool, field: str, allowed: str) -> None:
    if not holds:
        raise ValueError(f"feature key field {field!r} must be {allowed}")
