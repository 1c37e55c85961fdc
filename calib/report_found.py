"""What the report takes from a run's records beside its summary: the search, the costs, the labels, the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from claspkit.profiles.errors import ClaspError
from claspkit.profiles.files import read_profile
from claspkit.router.labels import Label
from claspkit.router.route import router_backend
from claspkit.router.scoring import Rejection, Scores, rejection, score

from .gallery import Gallery, read_gallery
from .ledger import SEARCH
from .race_log import Rung, race_log
from .run_costs import RunCosts, run_costs
from .run_labels import label_facts
from .samples import Sample
from .search import ClassData
from .search_points import Point, search_points
from .space import Space
from .strategies import RACES
from .view import RunView


@dataclass(frozen=True)
class ClassSearch:
    """One class's search at one budget.

    Attributes:
        points: every candidate that was scored.
        rungs: of its race; empty where the strategy has none.
    """

    points: Sequence[Point]
    rungs: Sequence[Rung]


@dataclass(frozen=True)
class Comparison:
    """Labels held against others.

    Attributes:
        name: of the comparison, for ids.
        title: who is held against what.
        scores: of the labels.
        rejected: what comes of rejecting below the threshold of whoever gave them.
    """

    name: str
    title: str
    scores: Scores
    rejected: Rejection


@dataclass(frozen=True)
class Found:
    """What a run's records say.

    Attributes:
        space: the candidates at the first budget; None where this version has other ones.
        searches: class -> its search.
        costs: of the whole run.
        labels: of :func:`.run_labels.label_facts`.
        comparisons: of the labels, and of the profile's router.
        gallery: None where there is none of this profile.
        further: nominal of every further budget -> the same of that budget, without labels' comparisons.
    """

    space: Space | None
    searches: Mapping[str, ClassSearch]
    costs: RunCosts
    labels: dict[str, Any]
    comparisons: Sequence[Comparison]
    gallery: Gallery | None
    further: Mapping[int, Found] = field(default_factory=dict)


def collect(view: RunView) -> Found:
    """Read what the report shows of a finished run.

    Raises:
        CorruptError: a damaged gallery.
    """
    assert view.summary is not None
    samples = view.data.samples if view.data else []
    intents = view.taxonomy.ids
    first = Found(
        space=view.spaces[0] if view.spaces else None,
        searches=_searches(view, view.spaces[0]) if view.spaces else {},
        costs=run_costs(view.classes, view.spaces, view.ledger),
        labels=label_facts(samples, view.recorded, view.labels, intents),
        comparisons=_comparisons(view, [sample for sample in samples if sample.uid in view.labels]),
        gallery=read_gallery(view.folder.gallery, view.summary["profile_id"]),
    )
    rows = zip(view.summary.get("budgets", ())[1:], view.spaces[1:], strict=False)
    further = {
        row["nominal"]: replace(
            first,
            space=space,
            searches=_searches(view, space),
            comparisons=(),
            gallery=read_gallery(view.folder.further_gallery(row["nominal"]), row["profile_id"]),
        )
        for row, space in rows
    }
    return replace(first, further=further)


def _searches(view: RunView, space: Space) -> dict[str, ClassSearch]:
    return {data.intent: _search(view, data, space) for data in view.classes if view.ledger}


def _search(view: RunView, data: ClassData, space: Space) -> ClassSearch:
    assert view.ledger is not None
    scores = {c.id: view.ledger.scores(SEARCH, data.intent, c.id) for c in space.candidates}
    races = view.config.strategy in RACES
    rungs = race_log(space, data.search_blocks(view.config.block_size), scores) if races else []
    return ClassSearch(search_points(space, data, view.ledger), rungs)


def _comparisons(view: RunView, samples: Sequence[Sample]) -> list[Comparison]:
    """The run's labels against the classes that the data itself names, and the profile's router against the labels.

    The second is left out where the router is the one that labelled, which agrees with itself, or cannot be read.
    """
    found = []
    hinted = [sample for sample in samples if sample.intent_hint in view.taxonomy.ids]
    if hinted:
        truth = [str(sample.intent_hint) for sample in hinted]
        title = "Labels of this run against the classes that the data names"
        found.append(_compare("labels", title, truth, [view.labels[sample.uid] for sample in hinted], 0.0, view))
    try:
        profile = read_profile(view.folder.profile)
        router = router_backend(profile.router, view.folder.profile.parent, view.taxonomy)
        if samples and {view.labels[sample.uid].source for sample in samples} != {router.source}:
            given = router.label([sample.prompt for sample in samples])
            truth = [view.labels[sample.uid].intent for sample in samples]
            title = f"The profile's router against the labels of this run ({router.source})"
            if [label.intent for label in given] != truth:
                least = profile.router.min_confidence
                found.append(_compare("router", title, truth, given, least, view))
    except ClaspError:
        pass  # a router that is gone or of another version: the summary's own figures stand above
    return found


def _compare(
    name: str, title: str, truth: Sequence[str], given: Sequence[Label], least: float, view: RunView
) -> Comparison:
    intents = view.taxonomy.ids
    return Comparison(
        name, title, score(truth, given, intents), rejection(truth, given, least, view.taxonomy.default)
    )
