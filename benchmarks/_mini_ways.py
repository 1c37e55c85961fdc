"""Ways of pruning one run's model at one run's cost, answered on the same questions and compared pair by pair."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from _common import Row
from _mini_answers import RANDOM, Asker, Stages, Way
from _mini_fresh import Fresh
from _mini_kept import same_flops
from rich.console import Console
from rich.table import Table

from claspkit.calib.evidence import interval_of, over_classes
from claspkit.calib.finished import FinishedRun
from claspkit.calib.plan import decoder_flops
from claspkit.calib.space import DEFAULT_RHO, Candidate
from claspkit.profiles.budget import BEFORE_DECODER
from claspkit.profiles.canonical import strict_loads
from claspkit.runtime.families import FamilyFacts

UNPRUNED, DEFAULT, CALIBRATED = "unpruned", "default", "calibrated"
OVERALL = "mean"
_MAX_SUMMARY = 50_000_000  # bytes

Ways = Mapping[str, Mapping[str, Way]]  # name -> class -> way
Scores = dict[str, np.ndarray]  # class -> (samples,) float64
Difference = tuple[float, float, float]  # and its 95 % interval


def ways_of(run: FinishedRun, facts: FamilyFacts) -> dict[str, dict[str, Way]]:
    """The ways to compare, of equal FLOPs but for the unpruned one.

    All but the last have the run's own stages: that one keeps as many random tokens from before the decoder on as the
    FLOPs allow. The pooled configuration is among them only where the run has one.
    """
    stages: Stages = tuple((stage.after_layer, stage.keep) for stage in run.profile.budget.stages)
    ids, decided, stock = run.taxonomy.ids, run.decided(), run.space.default.prototype
    published = {
        intent.id: Candidate(stock, DEFAULT_RHO if intent.published_rho is None else intent.published_rho)
        for intent in run.taxonomy.intents
    }
    found = {
        UNPRUNED: dict.fromkeys(ids, Way((), stock.layers, stock.weights)),
        DEFAULT: dict.fromkeys(ids, Way.of(run.space.default, stages)),
        CALIBRATED: {intent: Way.of(decided[intent], stages) for intent in ids},
        "paper's rho": {intent: Way.of(published[intent], stages) for intent in ids},
    }
    pooled = strict_loads(run.folder.summary.read_bytes(), max_bytes=_MAX_SUMMARY).get("pooled")
    if pooled is not None:
        one = run.space.find(pooled["candidate"])
        found[f"{one.id} for all"] = dict.fromkeys(ids, Way.of(one, stages))
    entrance = same_flops((BEFORE_DECODER,), (1.0,), decoder_flops(run.profile.budget.stages, facts), facts)
    drawn = {RANDOM: stages, f"{RANDOM}, {entrance[0][1]} before": entrance}
    return found | {
        name: dict.fromkeys(ids, Way(chosen, stock.layers, stock.weights, saliency=RANDOM))
        for name, chosen in drawn.items()
    }


def answer(asker: Asker, fresh: Fresh, ways: Ways) -> dict[str, Scores]:
    """Score every way on the questions of every class; equal ways are asked once."""
    found: dict[str, Scores] = {name: {} for name in ways}
    for intent, samples in fresh.classes.items():
        scores = asker.scores(samples, list(dict.fromkeys(by_class[intent] for by_class in ways.values())))
        for name, by_class in ways.items():
            found[name][intent] = np.array(scores[by_class[intent]])
    return found


def compare(fresh: Fresh, mine: Scores, theirs: Scores, seed: int) -> dict[str, Difference]:
    """Differences of two ways per class, and over all classes, each weighing the same, paired by question."""
    names = {intent: [sample.image_sha256 for sample in fresh.classes[intent]] for intent in mine}
    apart = {intent: mine[intent] - theirs[intent] for intent in mine}
    found = {
        intent: (float(values.mean()), *interval_of(values, names[intent], seed)) for intent, values in apart.items()
    }
    return {**found, OVERALL: over_classes(list(apart.values()), list(names.values()), seed)}


def to_default(fresh: Fresh, found: Mapping[str, Scores], seed: int) -> dict[str, dict[str, Difference]]:
    """Every way but the default, compared with it."""
    return {
        name: compare(fresh, scores, found[DEFAULT], seed) for name, scores in found.items() if name != DEFAULT
    }


def means(scores: Scores) -> dict[str, float]:
    """Mean score per class, and over the classes."""
    found = {intent: float(values.mean()) for intent, values in scores.items()}
    return {**found, OVERALL: float(np.mean(list(found.values())))}


def worse_than_random(apart: Mapping[str, Mapping[str, Difference]]) -> list[str]:
    """Classes in which random tokens at the same stages do better than the default, whatever the interval says."""
    return [group for group, found in apart[RANDOM].items() if group != OVERALL and found[0] > 0]


def difference_row(what: str, found: Difference, judged: bool = False) -> Row:
    """A difference with its interval; ``judged`` ones should not be negative."""
    value, low, high = (100 * part for part in found)
    bar, holds = (">= 0", value >= 0) if judged else ("", None)
    return Row(what, value, "points [95 %]", bar, holds, low, high)


def rows_of(found: Mapping[str, Scores], apart: Mapping[str, Mapping[str, Difference]]) -> list[Row]:
    """Every mean and every difference; that of the calibrated profile over all classes has a bar."""
    rows = [
        Row(f"{name}: {group}", 100 * value, "%")
        for name, scores in found.items()
        for group, value in means(scores).items()
    ]
    return rows + [
        difference_row(f"{name} minus {DEFAULT}: {group}", difference, (name, group) == (CALIBRATED, OVERALL))
        for name, differences in apart.items()
        for group, difference in differences.items()
    ]


def print_tables(title: str, found: Mapping[str, Scores], apart: Mapping[str, Mapping[str, Difference]]) -> None:
    """Means, then differences, classes down and ways across."""
    columns = {name: means(scores) for name, scores in found.items()}
    console = Console(width=24 * len(found))
    table = Table("class", *columns, title=f"{title}: mean score, percent", title_justify="left")
    for group in columns[DEFAULT]:
        table.add_row(group, *(f"{100 * column[group]:.1f}" for column in columns.values()))
    console.print(table)
    table = Table("class", *apart, title=f"difference to {DEFAULT}, points [95 % interval]", title_justify="left")
    for group in columns[DEFAULT]:
        table.add_row(group, *(shown(differences[group]) for differences in apart.values()))
    console.print(table)


def shown(difference: Difference) -> str:
    """``+1.2 [-0.3, +2.7]``, in points."""
    centre, low, high = (100 * value + 0.0 for value in difference)
    return f"{centre:+.1f} [{low:+.1f}, {high:+.1f}]"
