"""The study of routing errors: the paper's Tables 22 and 24 for a calibration of one's own.

Its result is a plain dict, which ``--json`` prints and table and chart show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from claspkit.profiles.errors import UsageError
from claspkit.router.backends import Backend, BackendOptions, make_backend
from claspkit.router.labels import Label
from claspkit.router.route import router_backend
from claspkit.router.run import label_prompts
from claspkit.router.student import StudentBackend

from .finished import FinishedRun
from .paper import find_table
from .progress import Reporter, steps
from .samples import Sample
from .space import Candidate
from .study_policy import FEWEST, Classes, Grid, cost, draw, forced_default, random_errors, scored
from .study_scores import score_table

FORCED = (0.1, 0.2, 0.3, 0.4, 1.0)
"""Shares sent to the default class; the last is the default for every prompt."""

WRONG = (0.05, 0.1, 0.2, 0.3, 0.4)
"""Shares sent to a random wrong class."""

SEEDS = 20

CONFIGS: dict[str, Callable[[FinishedRun], dict[str, Candidate]]] = {
    "profile": FinishedRun.decided,
    "winners": FinishedRun.winners,
}
"""Which configurations the classes have: the profile's, or each search's best whether the holdout agreed or not."""

PROFILE = "profile"
"""The router that the run's own profile carries, beside the names of backends."""

TEACHERS = ("transformers", "openai", "replay")
"""Routers that label data, which the overruling rules correct; the others are what is served, and stand alone."""

_ROUTERS = {line[0].partition(" ")[0]: int(line[2]) for line in find_table(24).lines}  # name, variance, MME, ...

PAPER = {
    "benchmark": "MME, LLaVA-1.5-7B, 192 tokens",
    "reference": _ROUTERS["Qwen3-8B"],
    "forced_default": [int(line[1]) for line in find_table(22).lines if line[0] == "forced default"],
    "random_error": [int(line[1]) for line in find_table(22).lines if line[0] == "random error"],
    "routers": _ROUTERS,
}
"""Tables 22 and 24, rows in their order; the shares of Table 22 were lost in the text that the project works from."""


@dataclass(frozen=True)
class Routed:
    """What a router said about the holdout's prompts.

    Attributes:
        name: as asked for.
        source: who that is, as label logs name it.
        labels: one per sample.
        reject_below: confidence below which the router itself advises the default class; None if it does not.
    """

    name: str
    source: str
    labels: Sequence[Label]
    reject_below: float | None


def check_study(names: Sequence[str], options: BackendOptions, configs: str) -> None:
    """Refuse what cannot be meant, before anything is computed.

    Raises:
        UsageError: unknown ``configs``, or a ``--router-model`` that would go to several routers.
    """
    if configs not in CONFIGS:
        raise UsageError(f"--configs {configs!r} does not exist; there are: {', '.join(CONFIGS)}")
    takers = [name for name in dict.fromkeys(names) if name not in ("rules", "replay", PROFILE)]
    if options.model is not None and len(takers) > 1:
        raise UsageError(
            f"--router-model {options.model} would go to {' and '.join(takers)}; study one of them at a time"
        )


def route_holdout(run: FinishedRun, names: Sequence[str], options: BackendOptions, report: Reporter) -> list[Routed]:
    """Ask every router about the holdout's prompts, before anything else is computed.

    Raises:
        ClaspError: what a backend says that cannot be had.
    """
    backends = {name: _backend(run, name, options) for name in names}
    return [_route(run, backend, name, report) for name, backend in backends.items()]


def study(run: FinishedRun, routed: Sequence[Routed], configs: str, seeds: int, report: Reporter) -> dict[str, Any]:
    """Score the policies.

    Args:
        run: a finished calibration.
        routed: of :func:`route_holdout`.
        configs: a name of :data:`CONFIGS`.
        seeds: draws per share, at least 1.
        report: where progress is told.

    Returns:
        the study as JSON values: ``policies`` and ``routers`` hold a :class:`.study_policy.Cost` each with what it is
        of, shares and scores in 0..1.

    Raises:
        UsageError: a run without holdout samples.
        ClaspError: of :func:`.study_scores.score_table`.
    """
    if not _samples(run):
        raise UsageError(
            f"{run.folder.root} has no holdout samples, so there is nothing to study. Calibrate with more data: a "
            "higher --per-class, or a higher --holdout"
        )
    chosen = CONFIGS[configs](run)
    grid, computed = _grid(run, chosen, report)
    draws = [draw(grid, seed) for seed in range(seeds)]
    seed = run.config.seed
    policies = [{"policy": "labels", "share": 0.0, **asdict(cost(grid, [grid.truth], seed))}]
    for share in FORCED:
        runs = forced_default(grid, draws if share < 1 else draws[:1], share)
        policies.append({"policy": "default", "share": share, **asdict(cost(grid, runs, seed))})
    if len(grid.columns) >= FEWEST:
        policies += [
            {"policy": "wrong", "share": share, **asdict(cost(grid, random_errors(grid, draws, share), seed))}
            for share in WRONG
        ]
    return {
        "run": str(run.folder.root),
        "profile_id": run.profile.profile_id,
        "model": run.profile.model.id,
        "budget": {"nominal": run.profile.budget.nominal, "visual_tokens": run.profile.model.visual_tokens},
        "configs": configs,
        "classes": {intent: candidate.id for intent, candidate in chosen.items()},
        "default": run.profile.router.fallback,
        "distinct": len(set(chosen.values())),
        "samples": len(grid.uids),
        "pictures": len(set(grid.pictures)),
        "seeds": seeds,
        "computed": computed,
        "policies": policies,
        "routers": [row for each in routed for row in _router_rows(run, grid, each)],
        "paper": PAPER,
    }


def _backend(run: FinishedRun, name: str, options: BackendOptions) -> Backend:
    if name != PROFILE:
        return make_backend(name, options)
    return router_backend(run.profile.router, run.folder.profile.parent, run.taxonomy)


def _route(run: FinishedRun, backend: Backend, name: str, report: Reporter) -> Routed:
    samples = _samples(run)
    with report.task(f"label by {name}", len(samples), "prompts") as advance:
        labels = label_prompts(
            [sample.prompt for sample in samples],
            backend,
            None,
            overrides=name in TEACHERS,
            progress=steps(advance),
        )
    reject_below = backend.reject_below if isinstance(backend, StudentBackend) else None
    if name == PROFILE:
        reject_below = run.profile.router.min_confidence
    return Routed(name, backend.source, labels, reject_below)


def _samples(run: FinishedRun) -> list[Sample]:
    return [sample for data in run.classes for sample in data.holdout]


def _grid(run: FinishedRun, chosen: Mapping[str, Candidate], report: Reporter) -> tuple[Grid, int]:
    distinct = list(dict.fromkeys(chosen.values()))
    scores, computed = score_table(run, distinct, report)
    samples = _samples(run)
    grid = Grid(
        uids=[sample.uid for sample in samples],
        pictures=[sample.image_sha256 for sample in samples],
        truth=np.repeat(np.arange(len(run.classes)), [len(data.holdout) for data in run.classes]),
        columns=np.array([distinct.index(chosen[data.intent]) for data in run.classes]),
        scores=scores,
        default=_intents(run).index(run.profile.router.fallback),
    )
    return grid, computed


def _router_rows(run: FinishedRun, grid: Grid, routed: Routed) -> list[dict[str, Any]]:
    """The router as it is and, where it advises a threshold, with what is below it sent to the default class."""
    intents = _intents(run)
    classes = np.array([intents.index(label.intent) for label in routed.labels])
    rows = [_router_row(run, grid, routed, classes, None, 0.0)]
    if routed.reject_below is not None:
        doubtful = np.array([label.confidence < routed.reject_below for label in routed.labels])
        settled = np.where(doubtful, grid.default, classes)
        rows.append(_router_row(run, grid, routed, settled, routed.reject_below, float(doubtful.mean())))
    return rows


def _router_row(
    run: FinishedRun, grid: Grid, routed: Routed, classes: Classes, reject_below: float | None, rejected: float
) -> dict[str, Any]:
    differences = scored(grid, classes) - scored(grid, grid.truth)
    return {
        "router": routed.name,
        "source": routed.source,
        "reject_below": reject_below,
        "rejected": rejected,
        **asdict(cost(grid, [classes], run.config.seed)),
        "by_class": [
            {
                "intent": intent,
                "samples": int(mine.sum()),
                "changed": float((classes != grid.truth)[mine].mean()),
                "difference": float(differences[mine].mean()),
            }
            for intent, mine in ((intent, grid.truth == number) for number, intent in enumerate(_intents(run)))
            if mine.any()
        ],
    }


def _intents(run: FinishedRun) -> list[str]:
    return [data.intent for data in run.classes]
