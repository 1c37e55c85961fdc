"""The end of a run: verdicts become a profile, and everything a person looks at becomes summary.json."""

from __future__ import annotations

import json
import platform
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from claspkit.profiles.budget import Budget
from claspkit.profiles.canonical import write_atomic
from claspkit.profiles.files import write_profile
from claspkit.profiles.profile import BudgetSpec, ModelSpec, Profile, seal
from claspkit.profiles.profile_intents import intent_specs
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.labels import Label
from claspkit.runtime.families import FamilyFacts
from claspkit.runtime.plan import SALIENCY
from claspkit.runtime.selection import ITERATIONS, TIE_TOLERANCE

from .adaptive import Adaptive
from .budgets import BudgetResult
from .config import RunConfig
from .folder import RunFolder
from .ledger import Ledger
from .metrics import holdout_measures
from .outcome_budgets import adaptive_row, budget_rows, evidence_of, own_stages
from .outcome_classes import class_rows
from .plan import TEXT_TOKENS, decoder_flops
from .pooled import PooledChoice, judge_pooled
from .profile_router import ProfileRouter, drop_weights, put_weights
from .run_costs import run_costs
from .search import ClassData, Verdict
from .sources import LoadResult
from .space import Space
from .strategies import strategy_facts

_ENVIRONMENT = ("torch", "transformers", "numpy", "h5py")


@dataclass(frozen=True)
class Findings:
    """Everything a finished run knows.

    Attributes:
        config: what was asked.
        spec: the model's facts.
        taxonomy: the classes.
        results: what was found at every budget, the first budget first.
        adaptive: what came of different budgets for the classes; None where that was not asked for.
        data: samples read, with quarantine and data sets.
        labels: sample uid -> label.
        classes: the samples used.
        pooled: the best single configuration for all classes at the first budget; None where no class was searched.
        ledger: all scores.
        router: what the profile routes by.
        facts: the decoder's sizes, for counting FLOPs.
        pictures: unique pictures encoded.
        seconds: wall clock per stage of this invocation.
    """

    config: RunConfig
    spec: ModelSpec
    taxonomy: Taxonomy
    results: Sequence[BudgetResult]
    adaptive: Adaptive | None
    data: LoadResult
    labels: dict[str, Label]
    classes: Sequence[ClassData]
    pooled: PooledChoice | None
    ledger: Ledger
    router: ProfileRouter
    facts: FamilyFacts
    pictures: int
    seconds: dict[str, float]

    @property
    def budget(self) -> Budget:
        """The first budget's schedule."""
        return self.results[0].budget

    @property
    def space(self) -> Space:
        """The candidates at the first budget."""
        return self.results[0].space

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """What was found at the first budget, one verdict per class in the classes' order."""
        return self.results[0].verdicts


@dataclass(frozen=True)
class Outcome:
    """What :func:`finish` leaves: the profile, and the summary that table and report show."""

    profile: Profile
    summary: dict[str, Any]


def finish(findings: Findings, folder: RunFolder) -> Outcome:
    """Write the profiles and the summary."""
    profiles = [
        (build_profile(findings, result), _place(folder, number, result))
        for number, result in enumerate(findings.results)
    ]
    for profile, path in profiles:
        _put(profile, path, findings.router)
    summary = summarise(findings, profiles[0][0])
    if len(profiles) > 1:
        summary["budgets"] = budget_rows(findings, profiles, folder.root)
    if findings.adaptive is not None:
        summary["adaptive"] = _put_adaptive(findings, findings.adaptive, folder)
    write_atomic(folder.summary, json.dumps(summary, indent=1).encode())
    return Outcome(profiles[0][0], summary)


def _place(folder: RunFolder, number: int, result: BudgetResult) -> Path:
    return folder.further_profile(result.budget.nominal) if number else folder.profile


def _put(profile: Profile, path: Path, router: ProfileRouter) -> None:
    path.parent.mkdir(exist_ok=True)
    put_weights(router, path)
    write_profile(profile, path)
    drop_weights(router, path)


def _put_adaptive(findings: Findings, found: Adaptive, folder: RunFolder) -> dict[str, Any]:
    """Write the profile with different budgets if the holdout is for it; returns its row of the summary."""
    path, profile = folder.adaptive_profile, None
    if found.accepted:
        profile = build_adaptive(findings, found)
        _put(profile, path, findings.router)
    else:
        shutil.rmtree(path.parent, ignore_errors=True)  # one that another version may have written
    return adaptive_row(found, findings.results, profile, path, folder.root)


def build_profile(findings: Findings, result: BudgetResult) -> Profile:
    """Assemble and seal the profile of one budget.

    Nothing in it depends on when or how often the run was interrupted.
    """
    rows = [_class_spec(data, verdict) for data, verdict in zip(findings.classes, result.verdicts, strict=True)]
    return _sealed(findings, result.budget, rows)


def build_adaptive(findings: Findings, found: Adaptive) -> Profile:
    """Assemble and seal the profile whose classes have budgets of their own; its budget is the first one.

    A class is configured as the verdict at its budget says. The evidence stands in the extension ``adaptive_budget``.
    """
    stages = own_stages(found, findings.results)
    rows = []
    for number, data in enumerate(findings.classes):
        row = _class_spec(data, findings.results[found.choice[data.intent]].verdicts[number])
        rows.append({**row, "stages": stages[data.intent]} if data.intent in stages else row)
    return _sealed(findings, findings.budget, rows, {"adaptive_budget": evidence_of(found)})


def _sealed(
    findings: Findings,
    budget: Budget,
    classes: Sequence[Mapping[str, Any]],
    extensions: Mapping[str, Any] | None = None,
) -> Profile:
    config, ledger = findings.config, findings.ledger
    used = [sample for data in findings.classes for sample in (*data.search, *data.holdout)]
    sources = Counter(label_source(findings.labels[sample.uid]) for sample in used)
    return seal(
        {
            "taxonomy": findings.taxonomy.digest,
            "intents": intent_specs(findings.taxonomy),
            "model": findings.spec.model_dump(),
            "router": findings.router.spec,
            "budget": BudgetSpec.from_budget(budget, findings.facts.scaling).model_dump(mode="json"),
            "selection": {
                "saliency": SALIENCY,
                "features": "aligned",
                "kmeans_iterations": ITERATIONS,
                "tie_tolerance": TIE_TOLERANCE,
            },
            "classes": list(classes),
            "calibration": {
                "datasets": findings.data.datasets,
                "seed": config.seed,
                "scorers": sorted({sample.scorer for sample in used}),
                "label_sources": dict(sorted(sources.items())),
                "environment": {
                    "python": platform.python_version(),
                    **{name: version(name) for name in _ENVIRONMENT},
                    "device": config.device,
                    **strategy_facts(config.strategy),
                    # Only where it is not what it always was: other values of a cache may change what is found.
                    **({"features": config.cache_dtype} if config.cache_dtype != RunConfig.cache_dtype else {}),
                },
                "ledger_sha256": ledger.sha256,
                "candidate_evaluations": ledger.evaluations,
                "vision_passes": findings.pictures,
            },
            "extensions": dict(extensions or {}),
        }
    )


def label_source(label: Label) -> str:
    """Who labelled: the teacher by its full name, rules all together."""
    return "rule" if label.source.startswith("rule:") else label.source


def _class_spec(data: ClassData, verdict: Verdict) -> dict[str, Any]:
    chosen, paired = verdict.chosen, verdict.paired
    taken = paired is not None and verdict.searched
    return {
        "intent": data.intent,
        "prototype": chosen.prototype.name,
        "layers": list(chosen.prototype.layers),
        "scores": list(chosen.prototype.scores),
        "tau": chosen.prototype.tau,
        "weights": list(chosen.prototype.weights),
        "rho": chosen.rho,
        "decision": "searched" if taken else "kept_default",
        "reason": verdict.reason,
        "n_search": len(data.search),
        "n_holdout": len(data.holdout),
        "score": paired.score if paired and taken else verdict.default_score,
        "default_score": verdict.default_score,
        "difference": paired.difference if paired else None,
        "ci_low": paired.ci_low if paired else None,
        "ci_high": paired.ci_high if paired else None,
        "p_value": paired.p_value if paired else None,
    }


def summarise(findings: Findings, profile: Profile) -> dict[str, Any]:
    """Everything the table and the report show, as JSON."""
    spaces = [result.space for result in findings.results]
    exhaustive = sum(len(space.candidates) for space in spaces) * sum(len(data.search) for data in findings.classes)
    return {
        "profile_id": profile.profile_id,
        "model": findings.spec.model_dump(),
        "config": findings.config.to_dict(),
        "default_candidate": findings.space.default.id,
        "budget": {**profile.budget.model_dump(mode="json"), "prefill": _prefill(findings)},
        "classes": class_rows(findings.taxonomy, findings.classes, findings.results[0], findings.ledger),
        "pooled": judge_pooled(
            findings.pooled, findings.classes, findings.verdicts, findings.space, findings.ledger, findings.config.seed
        ),
        "measures": holdout_measures(findings.classes, findings.verdicts, findings.space, findings.ledger),
        "labels": profile.calibration.label_sources,
        "router": findings.router.facts,
        "datasets": findings.data.datasets,
        "quarantine": [{"where": row.where, "reason": row.reason} for row in findings.data.quarantine],
        "cost": {
            "candidate_evaluations": findings.ledger.evaluations,
            "exhaustive_evaluations": exhaustive,
            "vision_passes": findings.pictures,
            "unique_pictures": findings.pictures,
            "decoder": run_costs(findings.classes, spaces, findings.ledger).to_dict(),
            "seconds": {name: round(value, 2) for name, value in findings.seconds.items()},
        },
        "environment": profile.calibration.environment,
        "ledger_sha256": profile.calibration.ledger_sha256,
    }


def _prefill(findings: Findings) -> dict[str, int]:
    """FLOPs of one prefill with and without pruning, and the text tokens they are counted with."""
    return {
        "text_tokens": TEXT_TOKENS,
        "flops_unpruned": decoder_flops((), findings.facts),
        "flops_pruned": decoder_flops(findings.budget.stages, findings.facts),
    }
