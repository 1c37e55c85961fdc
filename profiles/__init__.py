"""What a calibrated profile is: the nine intents, budgets, and the file format. No torch.

Names are looked up when they are first used: who counts tokens does not load the validation library of the file format.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .budget import (
        BEFORE_DECODER,
        Budget,
        Stage,
        explicit_budget,
        keep_for,
        make_budget,
        mean_tokens,
        stage_layers,
    )
    from .cost import kv_bytes, prefill_flops
    from .errors import (
        BadDataError,
        ClaspError,
        CorruptError,
        Interrupted,
        MismatchError,
        NotFiniteError,
        ProfileError,
        ResourceError,
        UsageError,
    )
    from .files import check_model, read_profile, write_profile
    from .intents import DEFAULT_INTENT, FINE_INTENTS, INTENT_IDS, INTENTS, STANDARD, merge
    from .profile import (
        BudgetSpec,
        CalibrationSpec,
        ClassSpec,
        DatasetSpec,
        ModelSpec,
        Profile,
        RouterSpec,
        SelectionSpec,
        StageSpec,
        seal,
        softmax_weights,
    )
    from .taxonomy import FineIntent, Intent, Taxonomy, read_taxonomy

_MODULES: dict[str, str] = {
    "BEFORE_DECODER": "budget",
    "Budget": "budget",
    "Stage": "budget",
    "explicit_budget": "budget",
    "keep_for": "budget",
    "make_budget": "budget",
    "mean_tokens": "budget",
    "stage_layers": "budget",
    "kv_bytes": "cost",
    "prefill_flops": "cost",
    "BadDataError": "errors",
    "ClaspError": "errors",
    "CorruptError": "errors",
    "Interrupted": "errors",
    "MismatchError": "errors",
    "NotFiniteError": "errors",
    "ProfileError": "errors",
    "ResourceError": "errors",
    "UsageError": "errors",
    "check_model": "files",
    "read_profile": "files",
    "write_profile": "files",
    "DEFAULT_INTENT": "intents",
    "FINE_INTENTS": "intents",
    "INTENTS": "intents",
    "INTENT_IDS": "intents",
    "STANDARD": "intents",
    "merge": "intents",
    "BudgetSpec": "profile",
    "CalibrationSpec": "profile",
    "ClassSpec": "profile",
    "DatasetSpec": "profile",
    "ModelSpec": "profile",
    "Profile": "profile",
    "RouterSpec": "profile",
    "SelectionSpec": "profile",
    "StageSpec": "profile",
    "seal": "profile",
    "softmax_weights": "profile",
    "FineIntent": "taxonomy",
    "Intent": "taxonomy",
    "Taxonomy": "taxonomy",
    "read_taxonomy": "taxonomy",
}

__all__ = [
    "BEFORE_DECODER",
    "DEFAULT_INTENT",
    "FINE_INTENTS",
    "INTENTS",
    "INTENT_IDS",
    "STANDARD",
    "BadDataError",
    "Budget",
    "BudgetSpec",
    "CalibrationSpec",
    "ClaspError",
    "ClassSpec",
    "CorruptError",
    "DatasetSpec",
    "FineIntent",
    "Intent",
    "Interrupted",
    "MismatchError",
    "ModelSpec",
    "NotFiniteError",
    "Profile",
    "ProfileError",
    "ResourceError",
    "RouterSpec",
    "SelectionSpec",
    "Stage",
    "StageSpec",
    "Taxonomy",
    "UsageError",
    "check_model",
    "explicit_budget",
    "keep_for",
    "kv_bytes",
    "make_budget",
    "mean_tokens",
    "merge",
    "prefill_flops",
    "read_profile",
    "read_taxonomy",
    "seal",
    "softmax_weights",
    "stage_layers",
    "write_profile",
]


if not TYPE_CHECKING:  # a type checker must go on refusing names that are not above

    def __getattr__(name: str) -> object:
        """Load the module that has ``name``; Python asks here only for what is not there yet."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
