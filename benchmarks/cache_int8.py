"""What storing features as int8 changes on mini: kept tokens, answers and scores, against float16.

    python benchmarks/cache_int8.py [--per-class 40] [--runs runs/bench] [--json]

Fresh questions of every class, one store of all vision layers per dtype, filled from the same model. At the budgets 1/3
and 1/9 every named prototype answers every question from each store, at the default split ratio. Counted are visual
tokens kept with float16 features and not with the others, after the first stage and after the last, answers that read
differently, and questions whose score is another. bfloat16 stands beside int8 as a measure: a format that nobody minds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from _common import Row, show

from claspkit.cache.encoder import feature_key
from claspkit.cache.extract import extract
from claspkit.cache.layout import image_bytes
from claspkit.cache.store import FeatureStore
from claspkit.cache.tensors import to_tensor
from claspkit.calib.config import RunConfig
from claspkit.calib.folder import RunFolder, read_samples
from claspkit.calib.images import open_image
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.progress import Reporter
from claspkit.calib.samples import Sample
from claspkit.calib.scorers import score_answer
from claspkit.calib.space import DEFAULT_RHO, Candidate, make_space
from claspkit.profiles.budget import make_budget
from claspkit.runtime.fusion import fuse
from claspkit.runtime.inputs import decode_answers
from claspkit.runtime.models import LoadedModel, load_model
from claspkit.runtime.plan import PrunePlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.replay import inputs_from_grids

SEED = 2_000_000  # of the pictures; no calibration draws from it
BLOCK = 32
BASE, OTHERS = "float16", ("int8", "bfloat16")


@dataclass
class Outcome:
    """What a run gave: per question the kept tokens of every stage, the answer and its score."""

    kept: list[list[set[int]]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def stores(loaded: LoadedModel, folder: RunFolder, samples: Sequence[Sample]) -> dict[str, FeatureStore]:
    """A store per dtype with all vision layers of the samples' pictures."""
    openers = {s.image_sha256: (lambda name=s.image: open_image(name, folder.images)) for s in samples}
    found = {}
    for dtype in (BASE, *OTHERS):
        where, key = folder.root / f"cache-{dtype}", feature_key(loaded, dtype=dtype)
        with FeatureStore.open(where, key, write=True) as store:
            extract(loaded, openers, store, batch_size=BLOCK)
        found[dtype] = FeatureStore.open(where, key)
    return found


def answer(
    loaded: LoadedModel,
    store: FeatureStore,
    samples: Sequence[Sample],
    stages: tuple[tuple[int, int], ...],
    candidate: Candidate,
) -> Outcome:
    """Prune and answer from cached features, block by block."""
    model, family, outcome = loaded.model, loaded.family, Outcome()
    facts = family.facts(model)
    for start in range(0, len(samples), BLOCK):
        block = samples[start : start + BLOCK]
        records = [store.read(sample.image_sha256, candidate.prototype.layers) for sample in block]
        layers = to_tensor(np.stack(records, axis=1), store.key.dtype).to(model.dtype)
        inputs = inputs_from_grids(loaded, [()] * len(block), [sample.prompt for sample in block])
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        visual = torch.isin(ids, torch.tensor(family.placeholder_ids(model)))
        plan = PrunePlan(
            stages, (candidate.row,) * len(block), scaling=facts.scaling, visual_tokens=facts.visual_tokens
        )
        with torch.inference_mode():
            weights = torch.tensor(candidate.prototype.weights, dtype=torch.float64).expand(len(block), -1)
            tokens = family.project(model, fuse(layers, weights))
            embeds = model.get_input_embeddings()(ids).masked_scatter(visual[:, :, None], tokens)
        with torch.inference_mode(), apply_plan(model, family, plan) as surgery:
            surgery.expect(visual)
            made = model.generate(
                inputs_embeds=embeds, attention_mask=mask, max_new_tokens=16, do_sample=False, num_beams=1
            )
            for row in range(len(block)):
                outcome.kept.append([{token for token, _ in stage.row(row)} for stage in surgery.last])
        answers = decode_answers(loaded, made)
        outcome.answers += answers
        outcome.scores += [score_answer(sample, text) for sample, text in zip(block, answers, strict=True)]
    return outcome


def changed(base: Outcome, other: Outcome) -> dict[str, float]:
    """Shares in percent: tokens of the base no longer kept (first and last stage), other answers, other scores."""

    def lost(stage: int) -> float:
        pairs = [(a[stage], b[stage]) for a, b in zip(base.kept, other.kept, strict=True)]
        return sum(len(a - b) for a, b in pairs) / sum(len(a) for a, _ in pairs)

    def differ(one: Sequence[object], two: Sequence[object]) -> float:
        return fmean(a != b for a, b in zip(one, two, strict=True))

    return {
        "kept tokens changed, first stage": 100 * lost(0),
        "kept tokens changed, last stage": 100 * lost(-1),
        "answers changed": 100 * differ(base.answers, other.answers),
        "scores changed": 100 * differ(base.scores, other.scores),
        "mean score, difference": 100 * (fmean(other.scores) - fmean(base.scores)),
    }


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, default=40, help="questions per class")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"), help="where pictures and stores lie")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args(list(arguments) if arguments is not None else None)


def main() -> None:
    """Fill the stores, answer, compare."""
    options = parse()
    folder = RunFolder(options.runs / f"int8-{options.per_class}")
    Pipeline(RunConfig(model="mini", per_class=options.per_class, seed=SEED), folder, Reporter()).run(until="label")
    samples, loaded = read_samples(folder).samples, load_model("mini")
    opened = stores(loaded, folder, samples)
    sizes = {dtype: image_bytes(store.key) for dtype, store in opened.items()}
    rows = [Row(f"{dtype}: bytes per picture, share of {BASE}", sizes[dtype] / sizes[BASE], "") for dtype in OTHERS]
    facts = loaded.family.facts(loaded.model)
    for name, divisor in (("1/3", 3), ("1/9", 9)):
        budget = make_budget(facts.visual_tokens // divisor, facts.visual_tokens, facts.decoder_depth)
        stages = tuple((stage.after_layer, stage.keep) for stage in budget.stages)
        found: dict[str, list[dict[str, float]]] = {dtype: [] for dtype in OTHERS}
        scores = []
        for prototype in make_space(loaded.spec.default_layer).prototypes:
            candidate = Candidate(prototype, DEFAULT_RHO)
            outcomes = {d: answer(loaded, store, samples, stages, candidate) for d, store in opened.items()}
            scores.append(100 * fmean(outcomes[BASE].scores))
            for dtype in OTHERS:
                found[dtype].append(changed(outcomes[BASE], outcomes[dtype]))
        rows.append(Row(f"{name}, {BASE}: mean score", fmean(scores), "%"))
        for dtype, shares in found.items():
            for what in shares[0]:
                unit = "points" if "difference" in what else "%"
                rows.append(Row(f"{name}, {dtype}: {what}", fmean(share[what] for share in shares), unit))
    show(f"mini, {len(samples)} questions x 5 prototypes: {' and '.join(OTHERS)} against {BASE}", rows, options.json)


if __name__ == "__main__":
    main()
