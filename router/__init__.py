"""From a prompt's text to its intent, one of nine or of a user's own."""

from .backends import BACKENDS, Backend, BackendOptions, make_backend
from .labels import Label, source_counts
from .route import Router, make_router
from .rules import RULES, RULES_VERSION, Rule, match
from .run import label_prompts

__all__ = [
    "BACKENDS",
    "RULES",
    "RULES_VERSION",
    "Backend",
    "BackendOptions",
    "Label",
    "Router",
    "Rule",
    "label_prompts",
    "make_backend",
    "make_router",
    "match",
    "source_counts",
]
