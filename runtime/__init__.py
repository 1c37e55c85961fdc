"""The thin pruner: a profile in, a pruned model out. Needs torch and transformers, nothing of the toolkit above."""

from .fusion import fuse
from .models import LoadedModel, load_model, resolve_model
from .plan import PrunePlan, RowPlan
from .pruner import Pruned, apply_plan, prune
from .selection import Selection, cosine_gram, select, split_budget
from .stages import StageTrace

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
