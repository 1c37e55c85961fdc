"""The thin pruner: a profile in, a pruned model out. Needs torch and transformers, nothing of the toolkit above.

Names are looked up when they are asked for, so that a part can be used without what the other parts need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fusion import fuse
    from .models import LoadedModel, load_model, resolve_model
    from .plan import PrunePlan, RowPlan
    from .prefill import StageTrace
    from .pruner import Pruned, apply_plan, prune
    from .selection import Selection, cosine_gram, select, split_budget

_HOMES = {
    "LoadedModel": "models",
    "PrunePlan": "plan",
    "Pruned": "pruner",
    "RowPlan": "plan",
    "Selection": "selection",
    "StageTrace": "prefill",
    "apply_plan": "pruner",
    "cosine_gram": "selection",
    "fuse": "fusion",
    "load_model": "models",
    "prune": "pruner",
    "resolve_model": "models",
    "select": "selection",
    "split_budget": "selection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


__all__ = [
    "LoadedModel",
    "PrunePlan",
    "Pruned",
    "RowPlan",
    "Selection",
    "StageTrace",
    "apply_plan",
    "cosine_gram",
    "fuse",
    "load_model",
    "prune",
    "resolve_model",
    "select",
    "split_budget",
]
