"""The taxonomy: nine intents, one class of a profile each, and the 15 finer ones a labeller chooses from."""

from __future__ import annotations

from dataclasses import dataclass

from .canonical import digest


@dataclass(frozen=True)
class Intent:
    """One of the nine classes of prompts.

    Attributes:
        index: its number k, also its place in a profile.
        id: its name in files and on the command line.
        name: its name for people.
        definition: what a prompt of this class asks for.
        published_rho: the paper's share of attention pivots for it; a prior, not a result.
    """

    index: int
    id: str
    name: str
    definition: str
    published_rho: float


@dataclass(frozen=True)
class FineIntent:
    """One of the 15 answers a labeller may give.

    Attributes:
        id: its name in label files.
        definition: what a prompt of this kind asks for, as the teacher reads it.
        intent: id of the class it is merged into.
    """

    id: str
    definition: str
    intent: str


INTENTS: tuple[Intent, ...] = (
    Intent(0, "object", "Object identification", "What a thing in the picture is.", 0.8),
    Intent(1, "attribute", "Attribute / breed identification", "How a thing looks, or its breed.", 0.4),
    Intent(2, "text", "Text / symbol recognition", "What writing, a sign or a symbol says.", 0.7),
    Intent(3, "scene", "Scene understanding", "What kind of place, weather or occasion is shown.", 0.7),
    Intent(4, "spatial", "Spatial relations", "Where things are, absolutely or to each other.", 0.7),
    Intent(5, "counting", "Counting", "How many there are, or a number computed from what is seen.", 0.6),
    Intent(6, "action", "Action / interaction", "What someone does, with whom, and in which order.", 0.8),
    Intent(7, "intention", "Intention / function", "What something is for, or why someone does it.", 0.2),
    Intent(8, "default", "Default", "Anything else, yes/no questions about existence included.", 0.9),
)
INTENT_IDS: tuple[str, ...] = tuple(intent.id for intent in INTENTS)
DEFAULT_INTENT = "default"

FINE_INTENTS: tuple[FineIntent, ...] = (
    FineIntent("object_identity", "Which object, person, animal or food a pointed-out thing is.", "object"),
    FineIntent("visual_attribute", "A thing's colour, material, shape, size, pattern, age or state.", "attribute"),
    FineIntent("breed_or_kind", "The exact breed, species, brand, make or model of a thing.", "attribute"),
    FineIntent("text_reading", "What letters, words or numbers are written, or who wrote something.", "text"),
    FineIntent("symbol_meaning", "What a logo, flag, icon, traffic sign or other symbol stands for.", "text"),
    FineIntent("place_type", "What kind of place, room, landscape, city or event is shown.", "scene"),
    FineIntent("scene_conditions", "The weather, season, time of day, light or mood of the picture.", "scene"),
    FineIntent(
        "spatial_relation",
        "Where a thing is, or how two lie: left, right, above, near, which side.",
        "spatial",
    ),
    FineIntent("object_counting", "How many things of a kind are visible.", "counting"),
    FineIntent("arithmetic_reasoning", "A number computed from what is seen: sum, difference, share.", "counting"),
    FineIntent("action_or_interaction", "What a person or animal does, or how several act together.", "action"),
    FineIntent("temporal_order", "What happens before, after, first, next or last.", "action"),
    FineIntent("purpose_or_reason", "What a thing is used for, or why someone does something.", "intention"),
    FineIntent("existence_check", "Whether something is in the picture at all, yes or no.", "default"),
    FineIntent("other", "Anything else: descriptions, opinions, tasks, outside knowledge.", "default"),
)
_MERGE = {fine.id: fine.intent for fine in FINE_INTENTS}


def merge(fine_id: str) -> str:
    """The intent id that a fine intent belongs to; KeyError for an unknown one."""
    return _MERGE[fine_id]


def taxonomy_digest() -> str:
    """SHA-256 over number, id and name of the nine intents: what a profile's classes mean and their order.

    Definitions and the fine intents are left out: rewording them changes labels, which the template's digest
    tells, but not which class a profile's ninth row is.
    """
    return digest([[intent.index, intent.id, intent.name] for intent in INTENTS])
