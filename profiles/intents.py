"""The standard taxonomy: nine intents, one class of a profile each, and the 15 finer ones a labeller chooses from.

It is read from ``taxonomy.toml`` beside this file, which has the form of a user's own.
"""

from __future__ import annotations

from pathlib import Path

from .taxonomy import FineIntent, Intent, Taxonomy, read_taxonomy

STANDARD: Taxonomy = read_taxonomy(Path(__file__).with_name("taxonomy.toml"))
INTENTS: tuple[Intent, ...] = STANDARD.intents
INTENT_IDS: tuple[str, ...] = STANDARD.ids
DEFAULT_INTENT: str = STANDARD.default
FINE_INTENTS: tuple[FineIntent, ...] = STANDARD.fine_intents


def open_taxonomy(path: Path | str | None) -> Taxonomy:
    """The taxonomy of a user's file, or the standard one for None; errors as of :func:`.taxonomy.read_taxonomy`."""
    return STANDARD if path is None else read_taxonomy(Path(path))


def is_standard(taxonomy: Taxonomy) -> bool:
    """Whether claspkit's own rules and student route by it: the standard merging, without rules of a user's."""
    return not taxonomy.rules and taxonomy.labels_digest == STANDARD.labels_digest


def merge(fine_id: str) -> str:
    """The standard intent id that a fine intent belongs to; KeyError for an unknown one."""
    return STANDARD.merge(fine_id)


def taxonomy_digest() -> str:
    """What a profile with the standard nine classes names: :attr:`.taxonomy.Taxonomy.digest`."""
    return STANDARD.digest
