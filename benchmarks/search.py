"""Whether the search is cheap, and right about what it found: on scores that mini gave, no model needed.

    OMP_NUM_THREADS=1 python benchmarks/search.py [--seeds 200] [--samples 1000] [--calibrations 1000]
        [--strategy race] [--by-class] [--json]

Three questions, each put to the strategies and the decision that a calibration uses:

1. Cost and regret. A seed draws --samples search samples of every class, with replacement, from the 200 recorded ones
   of all 55 candidates. The truth is the recorded mean; regret is the best candidate's truth minus the chosen one's.
   Given are means over the seeds, of a seed's mean over the classes, with quartiles over the seeds.
2. False wins. Candidates between which there is no true difference (_simulated.py says how), --samples of every class,
   three questions a picture, half of the pictures held out: race (or another --strategy), holdout, decision. How many
   classes leave the default?
3. Planted truth. The same, but in every class with room for it one candidate, or one prototype at all its splits, is
   12 points better than everything else. Is it found, and taken?

--record RUN replaces the recorded scores by those of an exhaustive search of mini.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from _common import Row, show
from _recorded import Recorded, read_recorded, record
from _simulated import QUESTIONS, Searched, alike, drive, judge, plant, quickly, search

from claspkit.calib.evidence import ALPHA

STRATEGIES = ("race", "two-pass", "exhaustive")
COST, EXTRA, FOUND = 0.30, 0.2, 0.95  # bars
GAIN = 0.12
"""By how much the planted candidates are better."""


def searches(recorded: Recorded, seeds: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Let every strategy search every class of every seed.

    Returns:
        candidate evaluations, and regret in points; (strategies, seeds, classes) float64 both.
    """
    shape = (len(STRATEGIES), seeds, len(recorded.classes))
    evaluations, regrets = np.empty(shape), np.empty(shape)
    rows = {candidate: row for row, candidate in enumerate(recorded.space.candidates)}
    for seed in range(seeds):
        random = np.random.default_rng((1, seed))
        for number, scores in enumerate(recorded.classes.values()):
            truth = scores.mean(axis=1)
            drawn = scores[:, random.integers(0, scores.shape[1], size=samples)]
            for index, name in enumerate(STRATEGIES):
                found = drive(recorded, name, drawn)
                evaluations[index, seed, number] = found.evaluations
                regrets[index, seed, number] = 100 * (truth.max() - truth[rows[found.best]])
    return evaluations, regrets


def cost_rows(evaluations: np.ndarray, regrets: np.ndarray, of: str = "") -> list[Row]:
    """Rows of the first question; (strategies, seeds, classes) both.

    ``of`` names the class where it is one; the bars are for the mean over the classes.
    """
    cost, regret = evaluations.sum(axis=2), regrets.mean(axis=2)
    most, extra = (None, None) if of else (COST, EXTRA)
    return [
        spread(of + "evaluations of race / two-pass", cost[0] / cost[1], "", most),
        spread(of + "evaluations of race / exhaustive", cost[0] / cost[2], ""),
        spread(of + "regret of race minus two-pass", regret[0] - regret[1], "points", extra),
        *(spread(f"{of}regret of {name}", regret[index], "points") for index, name in enumerate(STRATEGIES)),
    ]


def without_difference(recorded: Recorded, strategy: str, samples: int, number: int) -> list[Searched]:
    """The nine searches of one calibration in which all candidates are alike."""
    random = np.random.default_rng((2, number))
    found = []
    for intent, scores in recorded.classes.items():
        drawn = alike(scores, -(-samples // QUESTIONS), random)
        found.append(search(recorded, strategy, intent, drawn, random))
    return found


def false_wins(recorded: Recorded, strategy: str, samples: int, calibrations: int, by_class: bool) -> list[Row]:
    """Rows of the second question."""
    left: Counter[str] = Counter()
    some = naive = 0
    for number in range(calibrations):
        searched = without_difference(recorded, strategy, samples, number)
        taken = [verdict.intent for verdict in judge(recorded, searched, number) if verdict.searched]
        left.update(taken)
        some += bool(taken)
        naive += any(verdict.searched for verdict in judge(recorded, searched, number, questions=1))
    classes = calibrations * len(recorded.classes)
    rows = [
        share("no difference: classes that leave the default", left.total(), classes, most=ALPHA),
        share("no difference: calibrations in which one does", some, calibrations, most=ALPHA),
        share("the same, had questions been independent", naive, calibrations),
    ]
    each = [share(f"{intent}: leaves the default", left[intent], calibrations) for intent in recorded.classes]
    return rows + (each if by_class else [])


def planted(recorded: Recorded, strategy: str, samples: int, seeds: int, by_class: bool) -> list[Row]:
    """Rows of the third question."""
    candidates, pictures = recorded.space.candidates, -(-samples // QUESTIONS)
    kinds = {
        "candidate": [[row] for row in range(1, len(candidates))],
        "prototype": [
            [row for row, candidate in enumerate(candidates) if candidate.prototype == prototype]
            for prototype in recorded.space.prototypes[1:]
        ],
    }
    means = {intent: float(scores.mean()) for intent, scores in recorded.classes.items()}
    chosen = [intent for intent in means if means[intent] + GAIN <= 1]
    # (kind, class) -> seeds; a class without a planted candidate counts as taken where it leaves the default.
    found: Counter[tuple[str, str]] = Counter()
    taken: Counter[tuple[str, str]] = Counter()
    for seed in range(seeds):
        same, random = without_difference(recorded, strategy, samples, seed), np.random.default_rng((3, seed))
        for kind, choices in kinds.items():
            classes, better = {one.intent: one for one in same}, {}
            for intent in chosen:
                rows = choices[random.integers(len(choices))]
                scores = plant(alike(recorded.classes[intent], pictures, random), rows, GAIN, means[intent], random)
                classes[intent] = search(recorded, strategy, intent, scores, random)
                better[intent] = [candidates[row] for row in rows]  # one truth, all others are 12 points worse
            for verdict in judge(recorded, list(classes.values()), seed):
                right = verdict.winner in better.get(verdict.intent, [verdict.winner])
                found[kind, verdict.intent] += right
                taken[kind, verdict.intent] += right and verdict.searched
    rest = [intent for intent in means if intent not in chosen]
    table: list[Row] = []
    for kind in kinds:
        total, what = seeds * len(chosen), f"planted {kind}: "
        table += [
            share(what + "found and taken", sum(taken[kind, one] for one in chosen), total, least=FOUND),
            share(what + f"found by {strategy}", sum(found[kind, one] for one in chosen), total),
            share(what + "other classes leave", sum(taken[kind, one] for one in rest), seeds * len(rest), most=ALPHA),
        ]
        if by_class:
            table += [share(f"{one}: planted {kind} found and taken", taken[kind, one], seeds) for one in chosen]
    return table


def spread(what: str, values: np.ndarray, unit: str, most: float | None = None) -> Row:
    """Mean of a value per seed, with quartiles; (seeds,) float64."""
    mean = float(values.mean())
    low, high = (float(edge) for edge in np.quantile(values, [0.25, 0.75]))
    if most is None:
        return Row(what, mean, unit, low=low, high=high)
    return Row(what, mean, unit, f"<= {most:g}", mean <= most, low, high)


def share(what: str, hits: int, trials: int, most: float | None = None, least: float | None = None) -> Row:
    """How often something happened; it has no quartiles, but a number of trials."""
    value, unit = hits / trials, f"of {trials:,}"
    if most is not None:
        return Row(what, value, unit, f"<= {most:g}", value <= most)
    if least is not None:
        return Row(what, value, unit, f">= {least:g}", value >= least)
    return Row(what, value, unit)


def measure(options: argparse.Namespace) -> list[Row]:
    """All rows."""
    recorded = read_recorded()
    with quickly():
        evaluations, regrets = searches(recorded, options.seeds, options.samples)
        rows = cost_rows(evaluations, regrets)
        if options.by_class:
            for number, intent in enumerate(recorded.classes):
                one = slice(number, number + 1)
                rows += cost_rows(evaluations[..., one], regrets[..., one], f"{intent}: ")
        rows += false_wins(recorded, options.strategy, options.samples, options.calibrations, options.by_class)
        rows += planted(recorded, options.strategy, options.samples, options.seeds, options.by_class)
    return rows


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="repeats of the first and the third question")
    parser.add_argument("--samples", type=int, default=1000, help="samples of a class; at least 60")
    parser.add_argument("--calibrations", type=int, default=1000, help="repeats of the second question")
    parser.add_argument("--strategy", choices=STRATEGIES, default="race", help="which one the second and third ask")
    parser.add_argument("--by-class", action="store_true", help="the rows of every class as well")
    parser.add_argument("--record", type=Path, metavar="RUN", help="a run folder to take the scores from")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if min(options.seeds, options.calibrations) < 1 or options.samples < 60:
        parser.error("--seeds and --calibrations need at least 1, --samples at least 60: ten pictures on each side")
    return options


def main(arguments: Iterable[str] | None = None) -> None:
    """Play back, simulate, print."""
    options = parse(arguments)
    if options.record:
        record(options.record)
        return
    title = f"The search on recorded scores of mini, {options.samples} samples per class, {options.seeds} seeds"
    show(title, measure(options), options.json)


if __name__ == "__main__":
    main()
