"""What the summary says about a run's several budgets, and about letting the classes have different ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from claspkit.profiles.profile import Profile

from .adaptive import Adaptive
from .budgets import BudgetResult
from .evidence import over_classes
from .ledger import HOLDOUT, UNPRUNED
from .metrics import holdout_measures
from .outcome_classes import class_rows
from .plan import decoder_flops

if TYPE_CHECKING:
    from .outcome import Findings


def budget_rows(findings: Findings, profiles: Sequence[tuple[Profile, Path]], root: Path) -> list[dict[str, Any]]:
    """One JSON object per budget of the run, the first budget first.

    A further budget's has ``default_candidate``, ``class_rows`` and ``measures``: what the summary itself has of its
    first budget; :func:`.summary_budgets.at_budget` puts such a summary together.

    Scores are holdout means over the classes that have holdout samples, every class weighing the same, in 0..1, each
    with a 95 % interval over pictures; None where a score is not finite.

    Args:
        findings: of a run with several budgets.
        profiles: the profile of every budget and where it lies.
        root: the run folder, to which paths are relative.
    """
    measured = [(number, data) for number, data in enumerate(findings.classes) if data.holdout]
    pictures = [[sample.image_sha256 for sample in data.holdout] for _, data in measured]

    def scores(names: Sequence[str]) -> list[np.ndarray]:
        found = zip(measured, names, strict=True)
        return [np.array(findings.ledger.scores(HOLDOUT, data.intent, name)) for (_, data), name in found]

    def told(name: str, values: Sequence[np.ndarray]) -> dict[str, float | None]:
        found: tuple[float | None, ...] = (None, None, None)
        if values and all(len(each) and np.isfinite(each).all() for each in values):
            found = over_classes(values, pictures, findings.config.seed)
        return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), found, strict=True))

    full = decoder_flops((), findings.facts)
    unpruned = told("unpruned", scores([UNPRUNED] * len(measured)))
    rows: list[dict[str, Any]] = []
    for result, (profile, path) in zip(findings.results, profiles, strict=True):
        default = scores([result.space.default.id] * len(measured))
        taken = scores([result.verdicts[number].chosen.id for number, _ in measured])
        difference = told("difference", [mine - its for mine, its in zip(taken, default, strict=True)])
        flops = decoder_flops(result.budget.stages, findings.facts)
        rows.append(
            {
                "nominal": result.budget.nominal,
                "schedule": result.budget.schedule,
                "stages": [{"after_layer": each.after_layer, "keep": each.keep} for each in result.budget.stages],
                "mean_tokens_leaving": result.budget.mean_leaving,
                "mean_tokens_entering": result.budget.mean_entering,
                "flops": flops,
                "flops_share": flops / full,
                "classes": len(measured),
                **unpruned,
                **told("default", default),
                **told("profile", taken),
                "difference": difference["difference"],
                "ci_low": difference["difference_ci_low"],
                "ci_high": difference["difference_ci_high"],
                "changed": [verdict.intent for verdict in result.verdicts if verdict.searched],
                "profile_id": profile.profile_id,
                "path": path.relative_to(root).as_posix(),
                **(_further(findings, result) if rows else {}),
            }
        )
    return rows


def _further(findings: Findings, result: BudgetResult) -> dict[str, Any]:
    """What the summary says of its first budget, of a further one."""
    return {
        "default_candidate": result.space.default.id,
        "class_rows": class_rows(findings.taxonomy, findings.classes, result, findings.ledger),
        "measures": holdout_measures(findings.classes, result.verdicts, result.space, findings.ledger),
    }


def adaptive_row(
    found: Adaptive, results: Sequence[BudgetResult], profile: Profile | None, path: Path, root: Path
) -> dict[str, Any]:
    """What came of different budgets for the classes, as one JSON object.

    Args:
        found: the choice and the holdout's answer.
        results: one per budget.
        profile: the profile that was written; None where the choice was refused.
        path: where it lies.
        root: the run folder, to which the path is relative.
    """
    return {
        "decision": "adaptive" if found.accepted else "uniform",
        "reason": found.reason,
        "target": results[0].budget.nominal,
        "nominals": {intent: results[number].budget.nominal for intent, number in found.choice.items()},
        "search_samples": dict(found.samples),
        "search_gain": found.search_gain,
        **evidence_of(found),
        "profile_id": None if profile is None else profile.profile_id,
        "path": None if profile is None else path.relative_to(root).as_posix(),
    }


def evidence_of(found: Adaptive) -> dict[str, Any]:
    """FLOPs and the holdout's numbers: what goes into the profile, too."""
    return {
        "mean_flops": found.flops,
        "target_flops": found.target_flops,
        "uniform": found.uniform,
        "score": found.score,
        "difference": found.difference,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "p_value": found.p_value,
    }


def own_stages(found: Adaptive, results: Sequence[BudgetResult]) -> Mapping[str, list[dict[str, int]]]:
    """Class id -> its stages as in a profile, of the classes that do not have the first budget."""
    return {
        intent: [{"after_layer": each.after_layer, "keep": each.keep} for each in results[number].budget.stages]
        for intent, number in found.choice.items()
        if number
    }
