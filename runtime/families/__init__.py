"""The model families the runtime knows: one file each, one row in ``FAMILIES``."""

from __future__ import annotations

from torch import nn

from claspkit.profiles.errors import UsageError

from .base import Family, FamilyFacts
from .llava import LlavaFamily

FAMILIES: dict[str, type[Family]] = {
    "llava": LlavaFamily,
}


def find_family(model: nn.Module) -> Family:
    """Return the family whose structure ``model`` has.

    Raises:
        UsageError: no family matches; the text names the model's type and the families there are.
    """
    for family in FAMILIES.values():
        candidate = family()
        if candidate.matches(model):
            return candidate
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    raise UsageError(
        f"a model of type {kind!r} is not supported; supported families: {', '.join(FAMILIES)}. "
        "See docs/extending.md for how to add one."
    )


__all__ = ["FAMILIES", "Family", "FamilyFacts", "find_family"]
