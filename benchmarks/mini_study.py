"""What a calibration of mini is worth on questions it has not seen, beside the paper's splits and random tokens.

    clasp-calibrate --model mini --per-class 500 --budget 1/9 --out runs/mini-500
    python benchmarks/mini_study.py runs/mini-500 [--samples 5000] [--seed 2000000] [--picture FILE.svg] [--json]
    python benchmarks/mini_study.py runs/mini-500 --alternatives [CLASS ...]

Fresh questions, balanced over the classes, are answered in seven ways: with all tokens; at the run's own stages by the
default configuration, the calibrated profile, the paper's split ratio of each class, the one configuration that is best
for all classes together (the run's own), and random tokens; and with as many random tokens from before the decoder on
as take the same FLOPs. Every way is compared with the default on the same questions, with 95 % intervals over pictures.
Classes are those that the profile's router decides.

With --alternatives, the classes where the default is worse than random tokens are answered once more, with other
saliency, features, splits and stages of equal FLOPs; beside each stands how much of what was asked about is kept. With
classes named, these are looked into, and nothing else is done. Without a run, a small one is made (or resumed) first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from _common import Row, commit, machine, show
from _mini_answers import Asker
from _mini_chart import draw
from _mini_fresh import FRESH_SEED, Fresh, draw_fresh, encode_fresh
from _mini_kept import Watcher, alternatives
from _mini_ways import (
    DEFAULT,
    answer,
    compare,
    difference_row,
    print_tables,
    rows_of,
    shown,
    to_default,
    ways_of,
    worse_than_random,
)
from rich.console import Console
from rich.table import Table

from claspkit.calib.config import RunConfig
from claspkit.calib.finished import FinishedRun, read_finished
from claspkit.calib.folder import RunFolder
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.progress import Reporter
from claspkit.profiles.errors import ClaspError, UsageError
from claspkit.runtime.models import load_model

SMALL = (100, "1/9")  # samples per class and budget of the run that is made where none is named
SAMPLES, SMALL_SAMPLES = 5000, 900
_LOOKED = {  # field of Kept -> its column
    "covered": "things asked about with a token",
    "share": "tokens on them",
    "above": "number too high",
    "below": "number too low",
}


def open_run(folder: Path | None) -> FinishedRun:
    """The run named, or a small one in runs/bench.

    Raises:
        UsageError: it is not of mini.
    """
    if folder is None:
        per_class, budget = SMALL
        folder = Path("runs/bench") / f"mini-{budget.replace('/', '-')}-{per_class}"
        Pipeline(RunConfig(model="mini", per_class=per_class, budget=budget), RunFolder(folder), Reporter()).run()
    run = read_finished(folder)
    if run.config.model != "mini":
        raise UsageError(f"{folder} calibrated {run.config.model!r}; the fresh questions are mini's")
    return run


def look_closer(
    asker: Asker, run: FinishedRun, fresh: Fresh, intents: Sequence[str], options: argparse.Namespace
) -> list[Row]:
    """Answer some classes in every alternative way; prints a table of each, and gives its figures as rows."""
    ways = {name: dict.fromkeys(intents, way) for name, way in alternatives(run, asker.loaded).items()}
    watcher = Watcher(fresh.pictures, options.seed)
    part = replace(fresh, classes={intent: fresh.classes[intent] for intent in intents})
    total = len(ways) * len(part.samples)
    with Reporter().task("alternatives", total, "questions") as advance:
        watching = replace(asker, watch=watcher.watch, advance=advance, outside=watcher.outside())
        found = answer(watching, part, ways)
    rows: list[Row] = []
    for intent in intents:
        table = Table("way", "score", f"to {DEFAULT} [95 %]", *_LOOKED.values(), title=intent, title_justify="left")
        for name, scores in found.items():
            score, kept = float(scores[intent].mean()), watcher.kept(ways[name][intent], intent)
            mine = {intent: scores[intent]}
            apart = compare(part, mine, {intent: found[DEFAULT][intent]}, run.config.seed)[intent]
            rows.append(Row(f"{intent}: {name}", 100 * score, "%"))
            rows += [difference_row(f"{intent}: {name} minus {DEFAULT}", apart)] if name != DEFAULT else []
            looked = {what: None if kept is None else getattr(kept, field) for field, what in _LOOKED.items()}
            rows += [Row(f"{intent}: {name}, {what}", 100 * x, "%") for what, x in looked.items() if x is not None]
            told = ("-" if x is None else f"{100 * x:.1f}" for x in looked.values())
            table.add_row(name, f"{100 * score:.1f}", "" if name == DEFAULT else shown(apart), *told)
        if not options.json:
            Console(width=150).print(table)
    return rows


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished calibration of mini")
    counts = f"(default: {SAMPLES}, or {SMALL_SAMPLES} without a run)"
    parser.add_argument("--samples", type=int, help=f"fresh questions, over all classes {counts}")
    parser.add_argument("--seed", type=int, default=FRESH_SEED, help="of their pictures")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"), help="where pictures and features lie")
    parser.add_argument("--alternatives", nargs="*", metavar="CLASS", help="look into these classes")
    parser.add_argument("--picture", type=Path, help="draw the differences into this .svg")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if options.picture is not None and options.picture.suffix != ".svg":
        parser.error(f"--picture {options.picture}: the picture is an SVG, so the name must end in .svg")
    return options


def study(options: argparse.Namespace) -> list[Row]:
    """Draw, answer, compare, print; the figures as rows."""
    run, loaded = open_run(options.run), load_model("mini")
    count = options.samples or (SMALL_SAMPLES if options.run is None else SAMPLES)
    folder: Path = options.work / f"fresh-{options.seed}"
    fresh = draw_fresh(run, count, options.seed, folder)
    if unknown := set(options.alternatives or ()) - fresh.classes.keys():
        known = ", ".join(fresh.classes)
        raise UsageError(f"--alternatives: no class {', '.join(sorted(unknown))}; there are {known}")
    with encode_fresh(loaded, fresh.samples, folder) as store:
        asker = Asker(loaded, store)
        if options.alternatives:
            return look_closer(asker, run, fresh, options.alternatives, options)
        rows, worse = compare_ways(asker, run, fresh, options)
        if options.alternatives is None:
            return rows
        if not worse:
            Reporter().say("alternatives: no class is worse than random tokens; name some to look into them")
            return rows
        return rows + look_closer(asker, run, fresh, worse, options)


def compare_ways(
    asker: Asker, run: FinishedRun, fresh: Fresh, options: argparse.Namespace
) -> tuple[list[Row], list[str]]:
    """Answer all classes in the seven ways; prints and draws, gives the rows and the classes worse than random."""
    facts = asker.loaded.family.facts(asker.loaded.model)
    ways, samples = ways_of(run, facts), fresh.samples
    with Reporter().task("study", len(samples) * len(ways), "questions at most") as advance:
        found = answer(replace(asker, advance=advance), fresh, ways)
    apart = to_default(fresh, found, run.config.seed)
    pictures = len({sample.image_sha256 for sample in samples})
    title = f"mini at {run.config.budget}, {len(samples)} fresh questions about {pictures} pictures"
    if not options.json:
        print_tables(title, found, apart)
    if options.picture is not None:
        options.picture.write_text(draw(apart, title), encoding="utf-8")
    misrouted = Row("questions that the router sends elsewhere than drawn", fresh.misrouted, f"of {fresh.drawn}")
    return [*rows_of(found, apart), misrouted], worse_than_random(apart)


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the study, or say why it cannot be run."""
    options = parse(arguments)
    try:
        rows = study(options)
    except ClaspError as error:
        raise SystemExit(f"error: {error}") from error
    if options.json:
        show("mini on fresh questions", rows, as_json=True)
    elif judged := [row for row in rows if row.holds is not None or row.unit.startswith("of ")]:
        show("mini on fresh questions", judged, as_json=False)
    else:
        print(f"{machine()}; commit {commit()}")


if __name__ == "__main__":
    main()
