"""What ``claspkit inspect`` tells of a run, finished or not, as JSON values; the terminal shows the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from claspkit.profiles.errors import UsageError

from .command import command_of
from .inspect_classes import class_facts
from .ledger import SEARCH
from .race_log import race_log
from .rejects import read_rejects
from .run_costs import run_costs
from .run_labels import label_facts
from .search import ClassData
from .search_points import Point, search_points
from .space import Space
from .strategies import RACES
from .view import RunView
from .which_budget import ShownBudget, budgets_of, show_budget

ASKED = ("model", "per_class", "budget", "strategy", "seed", "router", "holdout")
"""Options of the run that are told first."""


def inspect_run(
    view: RunView,
    sections: Sequence[str] = (),
    intents: Sequence[str] = (),
    candidates: Sequence[str] = (),
    budget: str | None = None,
) -> dict[str, Any]:
    """Collect the facts.

    Args:
        view: the run.
        sections: names of :data:`SECTIONS`; none for all of them.
        intents: classes to tell of; none for all.
        candidates: candidate ids that the race is told of, at a further budget also without the ``@`` and what follows;
            none for all.
        budget: the budget that classes, race and costs are told of, as :func:`.which_budget.show_budget` takes it.

    Returns:
        ``run``, ``state`` ("finished" or "unfinished"), ``quiet_for`` (seconds since it last wrote), ``asked``,
        ``progress`` (samples, labels, quarantined rows, evaluations), ``next`` (the command that goes on; None of a
        finished run), ``budget`` (the one shown: nominal visual tokens, or "adaptive"; None where an unfinished run
        with one budget does not say), ``budgets`` (all: {nominal, asked}) and one key per section.

    Raises:
        UsageError: a section, class, candidate or budget that there is not.
        CorruptError: a further budget of a run whose summary is of an earlier version.
    """
    _check("--section", sections, SECTIONS)
    _check("--class", intents, view.taxonomy.ids)
    of = show_budget(view, budget)
    if candidates:
        candidates = _named(view, of, candidates)
    shown = [intent for intent in view.taxonomy.ids if not intents or intent in intents]
    facts: dict[str, Any] = {
        "run": str(view.folder.root),
        "state": "finished" if view.finished else "unfinished",
        "quiet_for": view.quiet_for,
        "asked": {name: view.facts[name] for name in ASKED},
        "progress": {
            "samples": len(view.data.samples) if view.data else 0,
            "labels": len(view.labels),
            "quarantined": len(view.data.quarantine) if view.data else 0,
            "rejected_pictures": len(read_rejects(view.folder)),
            "evaluations": view.ledger.evaluations if view.ledger else 0,
        },
        "budget": of.name,
        "budgets": [{"nominal": nominal, "asked": asked} for nominal, asked in budgets_of(view)],
        "next": None if view.finished else command_of(view.facts, view.folder.root),
    }
    for name in sections or SECTIONS:
        facts[name] = SECTIONS[name](view, of, shown, candidates)
    return facts


def _classes(view: RunView, of: ShownBudget, intents: Sequence[str], _: Sequence[str]) -> list[dict[str, Any]]:
    return [class_facts(view, data, of.numbers[data.intent]) for data in view.classes if data.intent in intents]


def _races(
    view: RunView, of: ShownBudget, intents: Sequence[str], candidates: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per class that has scores: the rungs where the strategy races, and every candidate's score."""
    if view.ledger is None or not view.spaces:
        return []
    return [
        race_facts(view, data, view.spaces[of.numbers[data.intent]], candidates)
        for data in view.classes
        if data.intent in intents and view.ledger.candidates(SEARCH, data.intent)
    ]


def race_facts(view: RunView, data: ClassData, space: Space, candidates: Sequence[str] = ()) -> dict[str, Any]:
    """One class's search at one budget; of ``candidates`` only, if there are any.

    Returns:
        ``intent``, ``nominal`` (of a further budget, else None), ``strategy``, ``default``, ``search_samples``;
        ``rungs`` of a race ({samples, complete, alive, dropped, standings}), and ``candidates``: every one that was
        scored, most samples first, then the best.
    """
    assert view.ledger is not None
    ids = [candidate.id for candidate in space.candidates]
    scores = {name: view.ledger.scores(SEARCH, data.intent, name) for name in ids}
    races = view.config.strategy in RACES
    rungs = race_log(space, data.search_blocks(view.config.block_size), scores) if races else []
    points = sorted(search_points(space, data, view.ledger), key=lambda point: (-point.samples, -point.score))
    return {
        "intent": data.intent,
        "nominal": space.further.nominal if space.further else None,
        "strategy": view.config.strategy,
        "default": space.default.id,
        "search_samples": len(data.search),
        "rungs": [
            {
                "samples": rung.samples,
                "complete": rung.complete,
                "alive": len(rung.standings),
                "dropped": len(rung.dropped),
                "standings": [
                    asdict(each) for each in rung.standings if not candidates or each.candidate in candidates
                ],
            }
            for rung in rungs
        ],
        "candidates": [_point(each) for each in points if not candidates or each.candidate in candidates],
    }


def _point(point: Point) -> dict[str, Any]:
    low, high = point.interval or (None, None)
    return {**asdict(point), "ci_low": low, "ci_high": high}


def _costs(view: RunView, of: ShownBudget, intents: Sequence[str], _: Sequence[str]) -> dict[str, Any]:
    """Of the whole run, whatever classes are shown: sharing has no share. ``at_budget``: the same of one of several."""
    seconds = view.summary["cost"]["seconds"] if view.summary else None
    mine = None
    if len(view.spaces) > 1 and of.number is not None:
        mine = run_costs(view.classes, view.spaces, view.ledger, only=view.spaces[of.number]).to_dict()
    whole = run_costs(view.classes, view.spaces, view.ledger).to_dict()
    return {**whole, "seconds": seconds, "at_budget": mine and {"nominal": of.name, **mine}}


def _labels(view: RunView, of: ShownBudget, intents: Sequence[str], _: Sequence[str]) -> dict[str, Any]:
    return label_facts(view.data.samples if view.data else (), view.recorded, view.labels, intents)


def _quarantine(view: RunView, of: ShownBudget, intents: Sequence[str], _: Sequence[str]) -> list[dict[str, str]]:
    """Rows of the data and pictures left out; they belong to no class."""
    if view.data is None:
        return []
    return [{"where": row.where, "reason": row.reason} for row in view.data.quarantine]


SECTIONS: dict[str, Callable[[RunView, ShownBudget, Sequence[str], Sequence[str]], Any]] = {
    "classes": _classes,
    "race": _races,
    "costs": _costs,
    "labels": _labels,
    "quarantine": _quarantine,
}
"""What can be told, in order."""


def _named(view: RunView, of: ShownBudget, asked: Sequence[str]) -> list[str]:
    """The ids of candidates that were asked for, at the budgets that are shown.

    Raises:
        UsageError: one that is not there; of another budget, with the option that shows it.
    """
    spaces = of.spaces(view)
    ids = [candidate.id for space in spaces for candidate in space.candidates]
    suffixes = {f"@{space.further.nominal}" if space.further else "" for space in spaces}
    scored: list[str] = []
    if view.ledger is not None:
        scored = [name for intent in view.taxonomy.ids for name in view.ledger.candidates(SEARCH, intent)]
    ids += [name for name in scored if "".join(name.partition("@")[1:]) in suffixes]
    known, found = dict.fromkeys(ids), []
    for name in asked:
        mine = [each for each in dict.fromkeys((name, *(name + suffix for suffix in suffixes))) if each in known]
        nominal = name.partition("@")[2]
        if not mine and nominal in {str(nominal) for nominal, _ in budgets_of(view)}:
            raise UsageError(f"--candidate {name!r} is of another budget than the one shown: add --budget {nominal}")
        found += mine or [name]
    _check("--candidate", found, list(known))
    return found


def _check(option: str, asked: Sequence[str], there: Sequence[str] | dict[str, Any]) -> None:
    odd = next((name for name in asked if name not in there), None)
    if odd is not None:
        raise UsageError(f"{option} {odd!r} is not in this run; there are: {', '.join(there) or 'none yet'}")
