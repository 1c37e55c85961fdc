"""What pruning does to mini, and what calibrating buys: accuracy per intent on pictures no calibration has seen.

    python benchmarks/mini_accuracy.py [--per-class 100] [--pictures 200] [--runs runs/bench] [--write-card] [--json]

For the budgets 1/3, 2/9 and 1/9 it calibrates (or resumes) a run each, then lets five ways of pruning answer the same
fresh questions (the random way: as many pictures of the card's held-out seed): not at all, 1/9 of the tokens at random
before the decoder, the default configuration, the calibrated
profile, and the one split ratio that is best for all classes together on the calibration's own search scores. With
--write-card the per-intent curves over the split ratio go into the model card.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

import torch
from _common import Row, commit, machine, show
from rich.console import Console
from rich.table import Table

from claspkit.cache.encoder import feature_key
from claspkit.cache.extract import extract
from claspkit.cache.store import FeatureStore
from claspkit.calib.config import RunConfig
from claspkit.calib.evaluator import Evaluator
from claspkit.calib.folder import RunFolder, read_samples
from claspkit.calib.images import open_image
from claspkit.calib.ledger import SEARCH, Ledger
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.progress import Reporter
from claspkit.calib.samples import Sample
from claspkit.calib.space import RHO_GRID, Candidate, Prototype, Space, make_space
from claspkit.mini.corpus import draw_pictures
from claspkit.mini.evaluate import packed_accuracy
from claspkit.mini.packing import QuestionPacker
from claspkit.mini.samples import HELD_OUT_SEED
from claspkit.mini.store import MODEL_DIR
from claspkit.mini.store import load_model as load_mini
from claspkit.profiles.budget import Stage
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import INTENT_IDS
from claspkit.profiles.profile import Profile
from claspkit.router.route import make_router
from claspkit.runtime.models import LoadedModel, load_model

SHARES = ("1/3", "2/9", "1/9")
FRESH_SEED = 1_000_000  # of the test pictures; the calibration draws from seed 0
BLOCK = 32
Scores = dict[str, float]


def calibrated(share: str, per_class: int, runs: Path) -> RunFolder:
    """Calibrate mini at one budget, or resume; returns the run folder."""
    folder = RunFolder(runs / f"mini-{share.replace('/', '-')}-{per_class}")
    Pipeline(RunConfig(model="mini", per_class=per_class, budget=share), folder, Reporter()).run()
    return folder


def fresh_questions(loaded: LoadedModel, pictures: int, runs: Path) -> tuple[list[Sample], FeatureStore]:
    """Questions about pictures of another seed, with the cache of their vision layers."""
    folder = RunFolder(runs / f"test-{pictures}")
    config = RunConfig(model="mini", per_class=pictures, seed=FRESH_SEED)
    Pipeline(config, folder, Reporter()).run(until="label")
    samples = read_samples(folder).samples
    openers = {s.image_sha256: (lambda name=s.image: open_image(name, folder.images)) for s in samples}
    with FeatureStore.open(folder.features, feature_key(loaded), write=True) as store:
        extract(loaded, openers, store, batch_size=BLOCK)
    return samples, FeatureStore.open(folder.features, feature_key(loaded))


def score(evaluator: Evaluator, samples: Sequence[Sample], choice: dict[str, Candidate] | None) -> Scores:
    """Mean score per true intent, every intent pruned by its own candidate; None prunes nothing."""
    found: Scores = {}
    for intent in INTENT_IDS:
        mine = [sample for sample in samples if sample.intent_hint == intent]
        scores: list[float] = []
        for start in range(0, len(mine), BLOCK):
            block = mine[start : start + BLOCK]
            if choice is None:
                scores += evaluator.unpruned(block).scores
            else:
                scores += next(evaluator.evaluate(block, [choice[intent]]))[0].scores
        found[intent] = fmean(scores)
    return found


def by_profile(profile: Profile, samples: Sequence[Sample]) -> dict[str, Candidate]:
    """The profile's configuration of the class that its router gives to most questions of each intent."""
    route = make_router(profile.router, None, profile.read_taxonomy())
    choice = {}
    for intent in INTENT_IDS:
        labels = [label.intent for label in route([s.prompt for s in samples if s.intent_hint == intent])]
        routed = max(set(labels), key=labels.count)
        spec = profile.for_intent(routed)
        prototype = Prototype(spec.prototype, spec.layers, spec.scores, spec.tau)
        choice[intent] = Candidate(prototype, spec.rho)
    return choice


def best_single_rho(space: Space, folder: RunFolder) -> Candidate:
    """The split on the model's own layer with the best mean over classes on the search split."""
    ledger = Ledger.read(folder.ledger)
    own = [Candidate(space.prototypes[0], rho) for rho in space.rhos]
    return max(own, key=lambda c: fmean(fmean(ledger.scores(SEARCH, intent, c.id) or [0.0]) for intent in INTENT_IDS))


def print_scores(title: str, columns: dict[str, Scores]) -> None:
    """A table of percentages, intents down, ways across."""
    table = Table("intent", *columns, title=title, title_justify="left")
    for intent in INTENT_IDS:
        table.add_row(intent, *(f"{100 * scores[intent]:.1f}" for scores in columns.values()))
    table.add_row("mean", *(f"{100 * fmean(scores.values()):.1f}" for scores in columns.values()))
    Console(width=120).print(table)


def write_card(curves: dict[float, Scores], unpruned: Scores, pictures: int, stages: str) -> None:
    """Put the curves between the card's markers."""
    card = MODEL_DIR / "README.md"
    head, marker, rest = card.read_text(encoding="utf-8").partition("<!-- rho-curves -->")
    _, end, tail = rest.partition("<!-- /rho-curves -->")
    if not marker or not end:
        raise SystemExit(f"{card} has no place for the curves")
    lines = [
        "",
        f"Accuracy in percent over the split ratio rho, stages {stages}, {pictures} fresh pictures, printed by",
        f"`python benchmarks/mini_accuracy.py --pictures {pictures} --write-card` ({machine()}; commit {commit()}):",
        "",
        "| intent | unpruned | " + " | ".join(f"{rho:g}" for rho in curves) + " |",
        "|---" * (len(curves) + 2) + "|",
    ]
    for intent in INTENT_IDS:
        cells = " | ".join(f"{100 * scores[intent]:.0f}" for scores in curves.values())
        lines.append(f"| {intent} | {100 * unpruned[intent]:.0f} | {cells} |")
    card.write_text(f"{head}{marker}\n" + "\n".join(lines) + f"\n\n{end}{tail}", encoding="utf-8")


def random_ninth(pictures: int) -> Scores:
    """Accuracy with 16 of 144 visual tokens, drawn at random before the decoder."""
    model, processor = load_mini(MODEL_DIR)
    return packed_accuracy(
        model,
        QuestionPacker(processor.tokenizer),
        draw_pictures(HELD_OUT_SEED, pictures),
        picture_seed=HELD_OUT_SEED,
        device=torch.device("cpu"),
        random_keep=16,
    )


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, default=100, help="samples per class of every calibration")
    parser.add_argument("--pictures", type=int, default=200, help="fresh pictures to test on")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"), help="where the calibrations lie")
    parser.add_argument("--write-card", action="store_true", help="write the curves into the model card")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args(list(arguments) if arguments is not None else None)


def main() -> None:
    """Calibrate, test, print."""
    options = parse()
    loaded = load_model("mini")
    space = make_space(loaded.spec.default_layer)
    samples, store = fresh_questions(loaded, options.pictures, options.runs)
    columns: dict[str, Scores] = {}
    rows: list[Row] = []
    for share in SHARES:
        folder = calibrated(share, options.per_class, options.runs)
        profile = read_profile(folder.profile)
        evaluator = Evaluator(loaded, store, profile.budget.stages, max_new_tokens=16)
        if not columns:
            columns["all tokens"] = score(evaluator, samples, None)
            columns["random 1/9"] = random_ninth(options.pictures)
        single = best_single_rho(space, folder)
        ways = {
            "default": dict.fromkeys(INTENT_IDS, space.default),
            "calibrated": by_profile(profile, samples),
            f"rho {single.rho:g}": dict.fromkeys(INTENT_IDS, single),
        }
        for name, choice in ways.items():
            columns[f"{share} {name}"] = score(evaluator, samples, choice)
        changed = sum(spec.decision == "searched" for spec in profile.classes)
        gain = fmean(columns[f"{share} calibrated"].values()) - fmean(columns[f"{share} default"].values())
        rows.append(Row(f"{share}: classes changed", changed, "of 9"))
        rows.append(Row(f"{share}: calibrated minus default, mean", 100 * gain, "points", ">= 0", gain >= 0))
    loss = fmean(columns["all tokens"].values()) - fmean(columns["random 1/9"].values())
    full = columns["all tokens"]
    rows += [
        Row("all tokens, mean over intents", 100 * fmean(full.values()), "%", ">= 95", fmean(full.values()) >= 0.95),
        Row("all tokens, worst intent", 100 * min(full.values()), "%", ">= 88", min(full.values()) >= 0.88),
        Row("random 1/9 before the decoder costs", 100 * loss, "points", ">= 15", loss >= 0.15),
    ]
    if options.write_card:
        curves = {
            rho: score(evaluator, samples, dict.fromkeys(INTENT_IDS, Candidate(space.prototypes[0], rho)))
            for rho in RHO_GRID
        }
        stages = ", ".join(
            f"{stage.keep} {Stage(stage.after_layer, stage.keep).place}" for stage in profile.budget.stages
        )
        write_card(curves, full, options.pictures, stages)
    if options.json:
        rows += [
            Row(f"{way}: {intent}", 100 * s, "%") for way, scores in columns.items() for intent, s in scores.items()
        ]
    else:
        print_scores(f"mini: exact answers in percent, {options.pictures} fresh pictures", columns)
    show("mini under pruning", rows, options.json)


if __name__ == "__main__":
    main()
