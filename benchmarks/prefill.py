"""What pruning makes of a prefill: its speed against the limit, what selecting costs, what stays in the cache.

    python benchmarks/prefill.py [--shape small] [--device cpu] [--dtype float32] [--batch 1] [--budget 192]
                                 [--text 60] [--repeats 15] [--threads 2] [--json]

The model is a LLaVA of random weights: no checkpoint is read, and speed does not depend on what weights hold. Four ways
take turns in every repeat, so that they meet the same machine: the unpruned model, the pruned one, the pruned one with
*fixed indices* (the same hooks, but what to keep is known from a pass before, so that nothing is scored or clustered),
and selection alone, on the tensors that the pruned pass gave it. Ratios are taken within a repeat; every figure is the
median over the repeats, with its quartiles. The vision tower counts in the end-to-end rows only.

Needs torch, transformers and this checkout; nothing has to be installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median, quantiles
from typing import Any

import torch
from _common import Row, show
from _launches import launches, on_meta
from _random_llava import SHAPES, Bench, Shape, build, make_bench
from torch import Tensor
from transformers import __version__ as transformers_version

from claspkit.profiles.budget import LIST_TOKENS, Budget, make_budget, round_half_up
from claspkit.profiles.cost import kv_bytes, prefill_flops
from claspkit.runtime import prefill, stages
from claspkit.runtime.cosines import Centres, Cosines, StageWork, cosines
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.saliency import reference_attention
from claspkit.runtime.selection import Selection, select, split_budget

RHO = 0.7  # of every stage's budget to pivots: the middle of the published splits
BARRED, UNBARRED = "llava-1.5-7b", "tiny"  # the model whose selection has a bar; one too small for the clock
CALLED_IN = {"cosines": prefill, "select": prefill, "reference_attention": stages}  # who asks for selection's parts
LAUNCH_FREE = 8  # rows from which an accelerator is held to the FLOP limit: below, reading weights is the limit

Run = Callable[[], Any]
Way = Callable[[], AbstractContextManager[Run]]


@dataclass
class Record:
    """What selection was given and what it found in one pruned pass, in the order of the calls.

    Attributes:
        work: the stages in numbers.
        features: arguments of the one call of ``cosines``.
        scored: arguments of every call of ``reference_attention``, and its result.
        chosen: arguments of every call of ``select``, and its result.
    """

    work: list[StageWork]
    features: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    scored: list[tuple[tuple[Any, ...], dict[str, Any], Tensor]] = field(default_factory=list)
    chosen: list[tuple[tuple[Any, ...], dict[str, Any], Selection]] = field(default_factory=list)

    def on_meta(self) -> Record:
        """The same calls on tensors without contents."""
        return Record(self.work, on_meta(self.features), on_meta(self.scored), on_meta(self.chosen))

    def replay(self) -> list[Selection]:
        """Select again from the same tensors: cosines, then saliency, choice and survivors of every stage."""
        similar, found = cosines(*self.features[0], **self.features[1]), []
        for index, (scored, chosen) in enumerate(zip(self.scored, self.chosen, strict=True)):
            reference_attention(*scored[0], **scored[1])
            saliency, _, *rest = chosen[0]
            found.append(select(saliency, similar, *rest, **chosen[1]))
            if self.work[index + 1 :]:
                similar = similar.take(found[-1].kept, self.work[index + 1 :])
        return found


class _Known(Cosines):
    """Stands where cosines would, and is never asked for one."""

    def take(self, kept: Tensor, work: Sequence[StageWork]) -> Cosines:
        return self

    def repeated(self, copies: int) -> Cosines:
        return self

    def nearest(self, places: Tensor) -> Tensor:
        raise AssertionError("fixed indices need no cosines")

    def mean(self, valid: Tensor | None) -> Tensor:
        raise AssertionError("fixed indices need no cosines")

    def centres(self, seeds: Tensor) -> Centres:
        raise AssertionError("fixed indices need no clusters")


def make_plan(budget: Budget, shape: Shape) -> PrunePlan:
    """The schedule, with two vision layers fused so that the end-to-end rows pay for fusion."""
    pairs = tuple((stage.after_layer, stage.keep) for stage in budget.stages)
    layers = (shape.tower_depth // 2, shape.tower_depth - 1)
    return PrunePlan(pairs, (RowPlan(layers, (0.5, 0.5), RHO),))


def pruned(bench: Bench, plan: PrunePlan) -> Way:
    """The pruned prefill as a way to take turns."""

    @contextmanager
    def way() -> Iterator[Run]:
        with apply_plan(bench.model, bench.family, plan) as surgery:

            def run() -> Any:
                surgery.expect(bench.visual)
                return bench.prefill()

            yield run

    return way


def pruned_whole(bench: Bench, plan: PrunePlan) -> Way:
    """The pruned model with its tower as a way to take turns."""

    @contextmanager
    def way() -> Iterator[Run]:
        with apply_plan(bench.model, bench.family, plan):
            yield bench.whole

    return way


@contextmanager
def replaced(**names: Any) -> Iterator[None]:
    """Other functions under these names, where the runtime calls them, inside the block."""
    before = {name: vars(CALLED_IN[name])[name] for name in names}
    for name, function in names.items():
        setattr(CALLED_IN[name], name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(CALLED_IN[name], name, function)


def record(bench: Bench, plan: PrunePlan) -> tuple[Record, Any]:
    """One pruned pass, with all that selection was given; returns the record and the pass's output."""
    tokens = int(bench.visual[0].sum())
    keeps = [keep for _, keep in plan.stages]
    alive = (tokens, *keeps[:-1])
    found = Record([StageWork(n, keep, split_budget(RHO, keep)) for n, keep in zip(alive, keeps, strict=True)])

    def watched_cosines(*args: Any, **kwargs: Any) -> Cosines:
        found.features = (args, kwargs)
        return cosines(*args, **kwargs)

    def watched_attention(*args: Any, **kwargs: Any) -> Tensor:
        found.scored.append((args, kwargs, reference_attention(*args, **kwargs)))
        return found.scored[-1][2]

    def watched_select(*args: Any, **kwargs: Any) -> Selection:
        found.chosen.append((args, kwargs, select(*args, **kwargs)))
        return found.chosen[-1][2]

    watched = replaced(cosines=watched_cosines, reference_attention=watched_attention, select=watched_select)
    with watched, pruned(bench, plan)() as run:
        return found, run()


def fixed(bench: Bench, plan: PrunePlan, known: Record) -> Way:
    """The pruned prefill with what to keep taken from a record."""

    @contextmanager
    def way() -> Iterator[Run]:
        none = _Known(known.work[0].alive, known.chosen[0][2].finite)
        scores: Iterator[Tensor] = iter(())
        choices: Iterator[Selection] = iter(())

        def start(*_: Any, **__: Any) -> Cosines:  # the first that a prompt asks for
            nonlocal scores, choices
            scores = iter([result for _, _, result in known.scored])
            choices = iter([result for _, _, result in known.chosen])
            return none

        with (
            replaced(
                cosines=start,
                reference_attention=lambda *_, **__: next(scores),
                select=lambda *_, **__: next(choices),
            ),
            pruned(bench, plan)() as run,
        ):
            yield run

    return way


def measure(ways: dict[str, Way], repeats: int, device: str) -> dict[str, list[float]]:
    """Milliseconds of every way in every repeat; the order turns over between repeats, the first does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            with ways[name]() as run:
                took = _milliseconds(run, device)
            if turn:
                times[name].append(took)
    return times


def _milliseconds(run: Run, device: str) -> float:
    if device == "cpu":
        started = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - started)
    torch.cuda.synchronize()
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    before.record()
    run()
    after.record()
    torch.cuda.synchronize()
    return float(before.elapsed_time(after))


def timed(
    what: str,
    values: Sequence[float],
    unit: str,
    *,
    most: float | None = None,
    least: float | None = None,
) -> Row:
    """A row of the repeats' median and quartiles, held to one bar at most."""
    value = median(values)
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (value,) * 3
    if most is not None:
        return Row(what, value, unit, f"<= {most:g}", value <= most, low, high)
    if least is not None:
        return Row(what, value, unit, f">= {least:g}", value >= least, low, high)
    return Row(what, value, unit, low=low, high=high)


def ratios(above: Sequence[float], below: Sequence[float], scale: float = 1.0) -> list[float]:
    """Quotients within the repeats."""
    return [a / b / scale for a, b in zip(above, below, strict=True)]


def cached_bytes(output: Any) -> int:
    """Bytes of keys and values that a pass left in its cache."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers)


def rows_of(bench: Bench, shape: Shape, options: argparse.Namespace, budgets: Sequence[Budget]) -> list[Row]:
    """All rows of one batch size."""
    batch, on_cpu, told = bench.visual.shape[0], options.device == "cpu", options.shape != UNBARRED
    stock = {"full": bench.prefill, "token": bench.token, "whole": bench.whole}
    ways: dict[str, Way] = {way: lambda run=run: nullcontext(run) for way, run in stock.items()}  # type: ignore[misc]
    exact: list[Row] = []
    for budget in budgets:
        plan = make_plan(budget, shape)
        known, output = record(bench, plan)
        ways[f"pruned {budget.nominal}"] = pruned(bench, plan)
        ways[f"fixed {budget.nominal}"] = fixed(bench, plan, known)
        ways[f"select {budget.nominal}"] = lambda known=known: nullcontext(known.replay)  # type: ignore[misc]
        if budget is budgets[0]:
            ways["pruned whole"] = pruned_whole(bench, plan)
        exact += exact_rows(bench, shape, options, budget, output, ways[f"fixed {budget.nominal}"])
        count = launches(known.on_meta().replay).total()
        exact.append(Row(f"B {batch}, {budget.nominal}/{budget.visual_tokens}: launches of selection", count, ""))
    times = measure(ways, options.repeats, options.device)
    name = f"B {batch}"
    rows = [
        timed(f"{name}, unpruned prefill", times["full"], "ms"),
        timed(f"{name}, one token", times["token"], "ms"),
    ]
    for budget in budgets:
        mine, still, alone = (times[f"{way} {budget.nominal}"] for way in ("pruned", "fixed", "select"))
        what = f"{name}, {budget.nominal}/{budget.visual_tokens}"
        limit = flops(shape, (), options.text) / flops(shape, budget.stages, options.text)
        speed = ratios(times["full"], mine)
        ms = 1.0 if options.shape == BARRED and not on_cpu and batch == 1 else None
        share = 0.9 if told and (on_cpu or batch >= LAUNCH_FREE) else None
        rows += [
            timed(f"{what}: pruned prefill", mine, "ms"),
            timed(f"{what}: with fixed indices", still, "ms"),
            timed(f"{what}: pruned / fixed indices", ratios(mine, still), "", most=1.1 if told else None),
            timed(f"{what}: selection alone, {len(budget.stages)} stages", alone, "ms", most=ms),
            timed(f"{what}: selection / pruned prefill", ratios(alone, mine, 0.01), "%"),
            timed(f"{what}: unpruned / pruned prefill", speed, "x"),
            Row(f"{what}: FLOP limit of that", limit, "x"),
            timed(f"{what}: speed-up / FLOP limit", [value / limit for value in speed], "", least=share),
        ]
    rows += exact
    ended = f"{name}, {budgets[0].nominal}/{budgets[0].visual_tokens}: with tower"
    return [
        *rows,
        timed(f"{ended}, unpruned", times["whole"], "ms"),
        timed(f"{ended}, pruned", times["pruned whole"], "ms"),
        timed(f"{ended}, unpruned / pruned", ratios(times["whole"], times["pruned whole"]), "x"),
    ]


def exact_rows(
    bench: Bench, shape: Shape, options: argparse.Namespace, budget: Budget, output: Any, known: Way
) -> list[Row]:
    """What does not depend on the clock: bytes in the cache, and that fixed indices compute the same thing."""
    what = f"B {bench.visual.shape[0]}, {budget.nominal}/{budget.visual_tokens}"
    size = torch.empty(0, dtype=bench.model.dtype).element_size()
    predicted = bench.visual.shape[0] * kv_bytes(
        budget.stages,
        budget.visual_tokens,
        options.text,
        shape.depth,
        shape.heads,
        shape.width // shape.heads,
        size,
    )
    with known() as run:
        same = torch.equal(run().logits, output.logits)
    found = cached_bytes(output)
    near = abs(found / predicted - 1) <= 0.01
    return [
        Row(f"{what}: cache after the prefill", found / 2**20, "MiB"),
        Row(f"{what}: cache / predicted", found / predicted, "", "within 1 %", near),
        Row(f"{what}: fixed indices give the same logits", float(same), "", "1", same),
    ]


def flops(shape: Shape, kept: Sequence[Any], text: int) -> int:
    """Floating-point operations of a prompt's prefill with the output head for one token."""
    sizes = (shape.depth, shape.width, shape.ffn, shape.heads, shape.heads)
    return prefill_flops(kept, shape.side**2, text, *sizes, vocab=shape.vocab)


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="small", choices=list(SHAPES), help="sizes of the model")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where it runs")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="float32 on cpu, bfloat16 on cuda")
    parser.add_argument("--batch", type=int, action="append", help="prompts at once; repeatable (1; on cuda 1 and 8)")
    parser.add_argument(
        "--budget",
        type=int,
        action="append",
        help=f"tokens of {LIST_TOKENS}, scaled to the shape's picture; repeatable (192, 128 and 64)",
    )
    parser.add_argument("--text", type=int, default=60, help="text tokens around the picture")
    parser.add_argument("--repeats", type=int, default=15, help="times that everything takes a turn")
    parser.add_argument("--threads", type=int, default=2, help="threads of the processor")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if options.repeats < 1 or options.text < 2:
        parser.error("--repeats needs at least 1, --text at least 2: a token before the picture and one after it")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no such device here; leave it out to run on the processor")
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    options.batch = options.batch or ([1] if options.device == "cpu" else [1, LAUNCH_FREE])
    options.budget = options.budget or [192, 128, 64]
    return options


def main(arguments: Iterable[str] | None = None) -> None:
    """Build, time, print."""
    options = parse(arguments)
    shape = SHAPES[options.shape]
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    scaled = [round_half_up(Fraction(budget * shape.side**2, LIST_TOKENS)) for budget in options.budget]
    budgets = [make_budget(nominal, shape.side**2, shape.depth) for nominal in scaled]
    rows: list[Row] = []
    with torch.inference_mode():
        model = build(shape, options.device, getattr(torch, options.dtype))
        for batch in options.batch:
            rows += rows_of(make_bench(model, shape, batch, options.text), shape, options, budgets)
    where = "" if options.device == "cpu" else f" {torch.cuda.get_device_name()}"
    show(
        f"prefill: {options.shape}, {options.device}{where}, {options.dtype}, {options.text} text tokens, "
        f"{options.threads} thread(s), median of {options.repeats}, torch {torch.__version__}, "
        f"transformers {transformers_version}",
        rows,
        options.json,
    )


if __name__ == "__main__":
    main()
