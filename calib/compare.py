"""``claspkit diff``: what changed from one profile to another, as facts and as Markdown."""

from __future__ import annotations

import json
from typing import Any, Final

from claspkit.profiles.profile import ClassSpec, Profile

from .card import difference_words
from .markdown import table

_CONFIG: Final = ("prototype", "layers", "scores", "tau", "weights", "rho", "stages")
_EVIDENCE: Final = (
    "decision",
    "reason",
    "n_search",
    "n_holdout",
    "score",
    "default_score",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
)
_PARTS: Final = ("schema_version", "taxonomy", "model", "router", "budget", "selection", "calibration", "extensions")
_CONFIG_COLUMNS = ("class", "layers A", "layers B", "rho A", "rho B", "kept A", "kept B")
_EVIDENCE_COLUMNS = ("class", "decision A", "decision B", "difference A (95 %)", "difference B (95 %)", "holdout A / B")

Change = dict[str, Any]


def compare_profiles(old: Profile, new: Profile) -> dict[str, Any]:
    """Compare two profiles field by field.

    Returns:
        ``a`` and ``b``: each profile's id, model and nominal budget; ``same``; ``fields``: those outside the classes
        that differ, each {field, a, b}; ``classes``: per class of either profile {intent, in ("a", "b" or "both"),
        configuration, evidence}, the last two lists of {field, a, b}.
    """
    left, right = old.model_dump(mode="json"), new.model_dump(mode="json")
    fields = [change for part in _PARTS for change in _changes(part, left.get(part), right.get(part))]
    intents = dict.fromkeys([*old.intent_ids, *new.intent_ids])
    return {
        "a": _identity(old),
        "b": _identity(new),
        "same": old.profile_id == new.profile_id,
        "fields": fields,
        "classes": [_class_facts(intent, old, new) for intent in intents],
    }


def _identity(profile: Profile) -> dict[str, Any]:
    return {
        "profile_id": profile.profile_id,
        "model": profile.model.id,
        "nominal": profile.budget.nominal,
        "visual_tokens": profile.model.visual_tokens,
    }


def _class_facts(intent: str, old: Profile, new: Profile) -> dict[str, Any]:
    before, after = (_spec(profile, intent) for profile in (old, new))
    if before is None or after is None:
        return {"intent": intent, "in": "b" if before is None else "a", "configuration": [], "evidence": []}
    left, right = before.model_dump(mode="json"), after.model_dump(mode="json")
    parts = {
        name: [change for key in keys for change in _leaf(key, left.get(key), right.get(key))]
        for name, keys in (("configuration", _CONFIG), ("evidence", _EVIDENCE))
    }
    return {"intent": intent, "in": "both", **parts}


def _spec(profile: Profile, intent: str) -> ClassSpec | None:
    return next((spec for spec in profile.classes if spec.intent == intent), None)


def _changes(name: str, left: Any, right: Any) -> list[Change]:
    """The leaves at which two values differ; lists are compared whole."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = dict.fromkeys([*left, *right])
        return [change for key in keys for change in _changes(f"{name}.{key}", left.get(key), right.get(key))]
    return _leaf(name, left, right)


def _leaf(name: str, left: Any, right: Any) -> list[Change]:
    return [] if left == right else [{"field": name, "a": left, "b": right}]


def render_comparison(old: Profile, new: Profile) -> str:
    """The comparison as Markdown: what a reader of a change should look at, classes first."""
    facts = compare_profiles(old, new)
    lines = [
        "# Two pruning profiles",
        "",
        *table(("", "A", "B"), [(name, facts["a"][name], facts["b"][name]) for name in facts["a"]]),
        "",
    ]
    if facts["same"]:
        return "\n".join([*lines, "They are the same profile.", ""])
    both = [row for row in facts["classes"] if row["in"] == "both"]
    changed = [row for row in both if row["configuration"]]
    lines += [
        "## Classes",
        "",
        f"{len(changed)} of {len(both)} classes are pruned otherwise"
        f"{': ' + ', '.join(row['intent'] for row in changed) if changed else ''}.",
        *(f"Only in {row['in'].upper()}: {row['intent']}." for row in facts["classes"] if row["in"] != "both"),
        "",
    ]
    if changed:
        rows = [_configuration(row["intent"], old, new) for row in changed]
        lines += [*table(_CONFIG_COLUMNS, rows), ""]
    if any(row["evidence"] for row in both):
        rows = [_evidence(row["intent"], old, new) for row in both]
        lines += ["## Evidence", "", *table(_EVIDENCE_COLUMNS, rows), ""]
        lines += ["Differences: the tested candidate against the default, each on its own holdout.", ""]
    if facts["fields"]:
        rows = [[change["field"], _short(change["a"]), _short(change["b"])] for change in facts["fields"]]
        lines += ["## Everything else", "", *table(("field", "A", "B"), rows), ""]
    return "\n".join(lines)


def _configuration(intent: str, old: Profile, new: Profile) -> list[object]:
    cells: list[object] = [intent]
    pairs = [(profile.for_intent(intent), profile) for profile in (old, new)]
    cells += [
        ", ".join(f"{layer} ({share:.3g})" for layer, share in zip(spec.layers, spec.weights, strict=True))
        for spec, _ in pairs
    ]
    cells += [f"{spec.rho:g}" for spec, _ in pairs]
    cells += [
        " / ".join(str(stage.keep) for stage in spec.stages or profile.budget.stages) for spec, profile in pairs
    ]
    return cells


def _evidence(intent: str, old: Profile, new: Profile) -> list[object]:
    before, after = old.for_intent(intent), new.for_intent(intent)
    return [
        intent,
        before.decision,
        after.decision,
        difference_words(before),
        difference_words(after),
        f"{before.n_holdout} / {after.n_holdout}",
    ]


def _short(value: Any, limit: int = 80) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[:limit] + "..."
