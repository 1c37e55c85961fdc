"""A valid profile to start from, and a way to break one field of it."""

import copy
import json
from pathlib import Path
from typing import Any

from claspkit.profiles.budget import BEFORE_DECODER, Stage, explicit_budget, make_budget
from claspkit.profiles.intents import INTENTS
from claspkit.profiles.profile import BudgetSpec, ModelSpec, Profile, seal, softmax_weights

MODEL = ModelSpec(
    family="llava",
    id="example/llava",
    revision=None,
    vision_depth=24,
    vision_width=1024,
    decoder_depth=32,
    decoder_width=4096,
    visual_tokens=576,
    default_layer=23,
    fingerprint="ab" * 32,
)


def class_fields(intent: str, rho: float) -> dict[str, Any]:
    """One class with three fused layers."""
    scores, tau = [0.25, 0.5, 1.0], 4.0
    return {
        "intent": intent,
        "prototype": "deep-3",
        "layers": [3, 14, 23],
        "scores": scores,
        "tau": tau,
        "weights": list(softmax_weights(scores, tau)),
        "rho": rho,
        "decision": "searched",
        "reason": "gain is significant",
        "n_search": 1500,
        "n_holdout": 500,
        "score": 0.71,
        "default_score": 0.69,
        "difference": 0.02,
        "ci_low": 0.005,
        "ci_high": 0.035,
        "p_value": 0.004,
    }


def profile_fields() -> dict[str, Any]:
    """Fields for ``seal``, as plain JSON values; a fresh copy per call."""
    return {
        "model": MODEL.model_dump(),
        "router": {
            "kind": "rules",
            "rules_version": "2.0",
            "file": None,
            "sha256": None,
            "min_confidence": 0.5,
            "fallback": "default",
        },
        "budget": BudgetSpec.from_budget(make_budget(192, 576, 32)).model_dump(mode="json"),
        "selection": {"saliency": "text", "features": "aligned", "kmeans_iterations": 5, "tie_tolerance": 1e-6},
        "classes": [class_fields(intent.id, intent.published_rho or 0.0) for intent in INTENTS],
        "calibration": {
            "datasets": [{"name": "mini", "revision": None, "split": "train", "samples": 18000}],
            "seed": 7,
            "scorers": ["exact_match@1"],
            "label_sources": {"rule": 18000},
            "environment": {"python": "3.11"},
            "ledger_sha256": "cd" * 32,
            "candidate_evaluations": 1234,
            "vision_passes": 9000,
        },
    }


def before_decoder_fields() -> dict[str, Any]:
    """Fields of a profile with a stage before the decoder, and every optional field at its other value."""
    fields = profile_fields()
    budget = explicit_budget([Stage(BEFORE_DECODER, 192), Stage(6, 100)], MODEL.visual_tokens, MODEL.decoder_depth)
    fields["budget"] = BudgetSpec.from_budget(budget, "share").model_dump(mode="json")
    fields["selection"] |= {"saliency": "cls", "positions": "renumber"}
    return fields


def example_profile() -> Profile:
    """The valid profile."""
    return seal(profile_fields())


def edited(fields: dict[str, Any], where: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy of ``fields`` with one field set."""
    result: Any = copy.deepcopy(fields)
    target = result
    for part in where[:-1]:
        target = target[part]
    target[where[-1]] = value
    return dict(result)


def written(profile: Profile) -> dict[str, Any]:
    """The profile as it stands in a file."""
    fields: dict[str, Any] = json.loads(profile.model_dump_json())
    return fields


def write_text(folder: Path, text: str | bytes) -> Path:
    """``text`` as ``profile.json`` in ``folder``."""
    path = folder / "profile.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
