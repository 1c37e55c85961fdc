"""What sharing saves: FLOPs per candidate, and the wall clock of a whole calibration against the loop without it.

    python benchmarks/evaluator.py                 both tables
    python benchmarks/evaluator.py --part flops    FLOPs alone, no calibration of mini

FLOPs: the splits of one prototype on a LLaVA of 32 decoder layers, 576 visual tokens, 35 tokens of text before the
picture and 25 after it. Independent runs take every candidate through the whole decoder. They are counted twice: by
torch's counter, which sees every product that is computed, selection included; and in token-layers and query-key pairs,
which say what a 7B decoder of the same depth would compute. The pass of the shared prefix, once per run, is left out.

Wall clock: mini is calibrated with the search as shipped. The loop without sharing encodes the picture and generates
for every candidate of the grid on every search sample, one after the other, and then the same on the holdout. It is
timed on pairs drawn at random, and its whole is that mean times the number of its evaluations; --whole runs it all.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _common import Row, show
from _random_llava import SHAPES, Bench, build, make_bench
from torch.utils.flop_counter import FlopCounterMode

from claspkit.calib.config import RunConfig
from claspkit.calib.finished import FinishedRun, read_finished
from claspkit.calib.folder import RunFolder
from claspkit.calib.images import open_image
from claspkit.calib.ledger import HOLDOUT, SEARCH, UNPRUNED
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.progress import Reporter
from claspkit.calib.samples import Sample
from claspkit.calib.search import ClassData
from claspkit.calib.space import RHO_GRID, Candidate
from claspkit.profiles.budget import make_budget
from claspkit.profiles.cost import layer_flops
from claspkit.runtime.decoder_inputs import DecoderInputs, keys_and_values, prefix_inputs, without_prefix
from claspkit.runtime.greedy import answer
from claspkit.runtime.inputs import batch_inputs, decode_answers
from claspkit.runtime.models import LoadedModel, load_model
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.work import Work, count_work

BARS = {192: 0.75, 128: 0.65, 64: 0.45}
"""Share of the FLOPs of independent runs, at most, by nominal budget of 576 tokens."""
FASTER = 10.0
TEXT, BEFORE = 60, 35
PROMPTS, RHOS = 1, RHO_GRID[1:]
TOKENS = 5  # of an answer, where later tokens are counted too


def independent(bench: Bench, plan: PrunePlan, tokens: int) -> tuple[int, Work, torch.Tensor]:
    """One candidate by itself: FLOPs as torch counts them, work, answers (B, tokens)."""
    with (
        torch.inference_mode(),
        apply_plan(bench.model, bench.family, plan) as surgery,
        count_work(bench.family.decoder_layers(bench.model)) as work,
        FlopCounterMode(display=False) as counter,
    ):
        surgery.expect(bench.visual)
        found = bench.model.generate(**bench.inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=None)
    return counter.get_total_flops(), work, found


def shared(bench: Bench, plans: Sequence[PrunePlan], tokens: int, drafts: list[list[int]]) -> tuple[int, Work, Any]:
    """All candidates at once, behind a prefix that went through the decoder before."""
    mask = bench.inputs["attention_mask"]
    positions = torch.arange(mask.shape[1]).expand(mask.shape)
    whole = DecoderInputs(bench.inputs["inputs_embeds"], mask, positions, bench.visual, (1,) * len(mask))
    prefix = keys_and_values(bench.model, bench.family, prefix_inputs(whole, BEFORE))
    together = replace(plans[0], rows=tuple(row for plan in plans for row in plan.rows))
    with FlopCounterMode(display=False) as counter:
        found = answer(
            bench.model,
            bench.family,
            without_prefix(whole, prefix),
            together,
            tokens,
            copies=len(plans),
            drafts=drafts,
        )
    return counter.get_total_flops(), found.work, found.ids


def same_beginning(bench: Bench) -> Bench:
    """Give all prompts the first one's text before the picture."""
    embeds = bench.inputs["inputs_embeds"].clone()
    embeds[:, :BEFORE] = embeds[:1, :BEFORE]
    return replace(bench, inputs={**bench.inputs, "inputs_embeds": embeds})


def flops_rows(shape_name: str) -> list[Row]:
    """Shares of independent runs' FLOPs, for every budget."""
    shape = SHAPES[shape_name]
    torch.manual_seed(0)
    model = build(shape, "cpu", torch.float32)
    model.set_attn_implementation("eager")  # its products are counted, whatever the machine
    model.generation_config.eos_token_id = None
    bench = same_beginning(make_bench(model, shape, PROMPTS, TEXT))
    layer, visual = bench.family.facts(model).default_layer, shape.side**2
    big = SHAPES["llava-1.5-7b"]

    def flops_7b(work: Work) -> float:
        return layer_flops(work.token_layers, work.pairs, big.width, big.ffn, big.heads, big.heads)

    rows: list[Row] = []
    for nominal, bar in BARS.items():
        scaled = nominal * visual // 576
        stages = tuple((s.after_layer, s.keep) for s in make_budget(scaled, visual, shape.depth).stages)
        plans = [PrunePlan(stages, (RowPlan((layer,), (1.0,), rho),) * PROMPTS) for rho in RHOS]
        for tokens in (1, TOKENS):
            singles = [independent(bench, plan, tokens) for plan in plans]
            drafts = singles[0][2].tolist() if tokens > 1 else []
            counted, work, ids = shared(bench, plans, tokens, drafts)
            equal = torch.equal(ids, torch.cat([single[2] for single in singles]))
            alone = Work(sum(s[1].token_layers for s in singles), sum(s[1].pairs for s in singles))
            what = f"budget {nominal}/576, {tokens} token{'s' * (tokens > 1)}"
            limit = {"bar": f"<= {bar}"} if tokens == 1 else {}
            ratios = {
                "counted by torch, small decoder": counted / sum(s[0] for s in singles),
                "token-layers and pairs, 7B decoder": flops_7b(work) / flops_7b(alone),
            }
            for name, value in ratios.items():
                holds = value <= bar if tokens == 1 else None
                rows.append(Row(f"{what}: {name}", value, "of independent", **limit, holds=holds))
            rows.append(Row(f"{what}: answers equal", float(equal), "", "all", equal))
    return rows


def calibrated(folder: Path, per_class: int, budget: str) -> tuple[FinishedRun, float]:
    """A calibration of mini from scratch, and its seconds from the command to the profile, model loading included."""
    start = time.perf_counter()
    config = RunConfig(model="mini", per_class=per_class, budget=budget)
    Pipeline(config, RunFolder(folder), Reporter(quiet=True)).run()
    seconds = time.perf_counter() - start
    return read_finished(folder), seconds


def evaluations(run: FinishedRun) -> list[tuple[str, ClassData, Sample, Candidate | None]]:
    """Everything that the loop without sharing evaluates."""
    found: list[tuple[str, ClassData, Sample, Candidate | None]] = []
    winners = run.winners()
    for data in run.classes:
        found += [(SEARCH, data, sample, candidate) for candidate in run.space.candidates for sample in data.search]
        compared = dict.fromkeys((None, run.space.default, winners[data.intent]))
        found += [(HOLDOUT, data, sample, candidate) for candidate in compared for sample in data.holdout]
    return found


def naive(run: FinishedRun, loaded: LoadedModel, sample: Sample, candidate: Candidate | None) -> str:
    """Open the picture, encode it, prune, generate."""
    facts = loaded.family.facts(loaded.model)
    stages = tuple((s.after_layer, s.keep) for s in run.profile.budget.stages) if candidate else ()
    row = candidate.row if candidate else RowPlan((facts.default_layer,), (1.0,), 1.0)
    plan = PrunePlan(stages, (row,), scaling=facts.scaling, visual_tokens=facts.visual_tokens)
    picture = open_image(sample.image, run.folder.images, sample.image_sha256)
    inputs = batch_inputs(loaded, [picture], [sample.prompt])
    with torch.inference_mode(), apply_plan(loaded.model, loaded.family, plan):
        made = loaded.model.generate(**inputs, max_new_tokens=run.config.max_new_tokens, do_sample=False, num_beams=1)
    return decode_answers(loaded, made[:, inputs["input_ids"].shape[1] :])[0]


def recorded(run: FinishedRun, split: str, data: ClassData, sample: Sample, candidate: Candidate | None) -> str | None:
    """What the calibration recorded for it; None where its search left that candidate before this sample."""
    samples = data.search if split == SEARCH else data.holdout
    place = [each.uid for each in samples].index(sample.uid)
    block, row = divmod(place, run.config.block_size)
    uids = [each.uid for each in samples[block * run.config.block_size : (block + 1) * run.config.block_size]]
    entry = run.ledger.get(split, data.intent, candidate.id if candidate else UNPRUNED, block, uids)
    return entry.answers[row] if entry is not None else None


def clock_rows(per_class: int, budget: str, pairs: int | None) -> list[Row]:
    """A calibration against the loop, and how many of the loop's answers it recorded."""
    with tempfile.TemporaryDirectory() as folder:
        run, seconds = calibrated(Path(folder) / "run", per_class, budget)
        loaded, work = load_model("mini"), evaluations(run)
        drawn = work if pairs is None else random.Random(0).sample(work, min(pairs, len(work)))
        naive(run, loaded, drawn[0][2], drawn[0][3])  # the first one pays for what is made once
        answers, spent = [], 0.0
        for _, _, sample, candidate in drawn:
            start = time.perf_counter()
            answers.append(naive(run, loaded, sample, candidate))
            spent += time.perf_counter() - start
        found = [(recorded(run, *each), said) for each, said in zip(drawn, answers, strict=True)]
        both = [(ours, said) for ours, said in found if ours is not None]
        equal = sum(ours == said for ours, said in both) / len(both)
        loop, done = spent / len(drawn) * len(work), run.ledger.evaluations
    what = f"mini, {per_class} a class, budget {budget}"
    extent = "all of it timed" if pairs is None else f"{len(drawn)} timed"
    return [
        Row(f"{what}: calibration from scratch", seconds, "s"),
        Row(f"{what}: its evaluations", float(done), ""),
        Row(f"{what}: loop, {len(work)} evaluations, {extent}", loop, "s"),
        Row(f"{what}: loop over calibration", loop / seconds, "times", f">= {FASTER:g}", loop / seconds >= FASTER),
        Row(f"{what}: answers both have, {len(both)}: equal", equal, "share", "1", equal == 1),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--part", choices=("both", "flops", "clock"), default="both")
    parser.add_argument("--shape", choices=("tiny", "small"), default="small", help="of the decoder for FLOPs")
    parser.add_argument("--per-class", type=int, default=100, help="samples per class of the calibration")
    parser.add_argument("--budget", default="1/3")
    parser.add_argument("--pairs", type=int, default=300, help="evaluations of the loop that are timed")
    parser.add_argument("--whole", action="store_true", help="run the whole loop")
    options = parser.parse_args(argv)
    rows = flops_rows(options.shape) if options.part != "clock" else []
    if options.part != "flops":
        rows += clock_rows(options.per_class, options.budget, None if options.whole else options.pairs)
    show("Sharing in the evaluator", rows, options.json)


if __name__ == "__main__":
    main()
