"""The form of ``summary.json``: what table, report and inspect read of it without asking whether it is there."""

from __future__ import annotations

from typing import Any, Final

_INTERVAL: Final = {"difference": "number?", "ci_low": "number?", "ci_high": "number?"}
_STAGES: Final = [{"after_layer": "whole", "keep": "whole"}]
_CLASS: Final = {
    **_INTERVAL,
    "intent": "text",
    "name": "text",
    "n_search": "whole",
    "n_holdout": "whole",
    "unpruned": "number?",
    "default": "number?",
    "score": "number?",
    "p_value": "number?",
    "p_holm": "number?",
    "tested": "text?",
    "chosen": "text",
    "decision": "text",
    "reason": "text",
    "layers": ["whole"],
    "weights": ["number"],
    "rho": "number",
    "published_rho?": "number?",
    "not_finite?": [{"candidate": "text", "samples": "whole", "split": "text"}],
    "unpruned_reason?": "text?",
    "curves": {"*": [("number", "number")]},
}
_SCORES: Final = {
    f"{name}{end}": "number?" for name in ("unpruned", "default", "profile") for end in ("", "_ci_low", "_ci_high")
}
_BUDGET: Final = {
    **_INTERVAL,
    **_SCORES,
    "nominal": "whole",
    "schedule": "text",
    "stages": _STAGES,
    "mean_tokens_leaving": "number",
    "mean_tokens_entering": "number",
    "flops": "number",
    "flops_share": "number",
    "classes": "whole",
    "changed": ["text"],
    "profile_id": "text",
    "path": "text",
    "default_candidate?": "text",
    "class_rows?": [_CLASS],
    "measures?": ["object"],
}
_ADAPTIVE: Final = {
    **_INTERVAL,
    "decision": "text",
    "reason": "text",
    "target": "whole",
    "nominals": {"*": "whole"},
    "search_samples": {"*": "whole"},
    "search_gain": "number?",
    "mean_flops": "number",
    "target_flops": "number",
    "uniform": "number?",
    "score": "number?",
    "p_value": "number?",
    "profile_id": "text?",
    "path": "text?",
}
_POOLED: Final = {
    "candidate": "text",
    "compared": "whole",
    "classes": "whole",
    "search_samples": {"*": "whole"},
    "search_score": "number?",
    "default": "number?",
    "score": "number?",
    "profile": "number?",
    "profile_to_default": _INTERVAL,
    "pooled_to_default": _INTERVAL,
    "profile_to_pooled": _INTERVAL,
}
_DECODER: Final = {
    "counted": "flag",
    "evaluations": "whole",
    "holdout_evaluations": "whole",
    "drafted": "whole",
    "token_layers": "number",
    "token_layers_alone": "number",
    "bytes_read": "number",
}
_ROUTER: Final = {
    "kind": "text",
    "chosen": "text",
    "why": "text",
    "source": "text",
    "min_confidence": "number",
    "compared_at?": "number",
    "agreement": "number?",
    "coverage": "number?",
    "prompts": "whole",
    "compared": "whole",
    "candidates": ["object"],
}

SUMMARY: Final[dict[str, Any]] = {
    "profile_id": "text",
    "model": {
        "family": "text",
        "id": "text",
        "revision": "text?",
        "vision_depth": "whole",
        "decoder_depth": "whole",
        "visual_tokens": "whole",
        "default_layer": "whole",
    },
    "config": {"model": "text", "router": "text", "seed": "whole", "per_class": "whole", "holdout": "number"},
    "default_candidate": "text",
    "budget": {
        "nominal": "whole",
        "stages": _STAGES,
        "schedule": "text",
        "mean_tokens_leaving": "number",
        "mean_tokens_entering": "number",
        "prefill": {"text_tokens": "whole", "flops_unpruned": "number", "flops_pruned": "number"},
    },
    "budgets??": [_BUDGET],
    "adaptive??": _ADAPTIVE,
    "classes": [_CLASS],
    "pooled??": _POOLED,
    "measures?": ["object"],
    "labels": {"*": "whole"},
    "router?": _ROUTER,
    "datasets": [{"name": "text", "revision?": "text?", "split?": "text?", "samples": "whole"}],
    "quarantine": [{"where": "text", "reason": "text"}],
    "cost": {
        "candidate_evaluations": "whole",
        "exhaustive_evaluations": "whole",
        "vision_passes": "whole",
        "unique_pictures": "whole",
        "decoder??": _DECODER,
        "seconds": {"*": "number"},
    },
    "environment": {"*": "text"},
    "ledger_sha256": "text",
}
"""Fields that are not here are let through: those of later versions, and those that are read with care."""
