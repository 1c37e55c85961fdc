"""What scoring 15 letters saves over writing JSON: prompts per second of both modes of the teacher, in one run.

    python benchmarks/router_teacher.py [--model FOLDER] [--device cpu] [--prompts 96] [--repeats 5] [--json]

Letters: batches of 16, the instructions' keys and values computed once. JSON: one prompt at a time, greedily, as many
new tokens as a right answer has in the model's own tokens, no repairs; so what is compared is the least that JSON
costs. JSON in batches stands beside it. Without --model a Qwen3 of random weights is made, so small that calls and not
arithmetic decide; on a model of size the figures are others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from _common import Row, show
from tiny_teacher import save_teacher

from claspkit.router.backend_transformers import TransformersBackend
from claspkit.router.backend_transformers_json import TransformersJsonBackend
from claspkit.router.backends import BackendOptions
from claspkit.router.json_mode import opening

BATCH = 16
BAR = 5.0
ANSWER = '{"intent": "object_counting"}'
THINGS = ("dogs", "red cars on the left", "signs", "people who are waiting for the bus", "cups")
FORMS = ("How many {} are there?", "What colour are the {}?", "Where are the {} in this picture?", "Why {}?")


def questions(count: int) -> list[str]:
    """Different prompts of everyday length."""
    return [
        f"{FORMS[number % 4].format(THINGS[number // 4 % 5])} Look at row {number}." for number in range(count)
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long it takes; what it returns has been read back from the device."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(what: str, count: int, times: list[float]) -> Row:
    """Prompts per second: median and quartiles."""
    rates = [count / value for value in times]
    low, _, high = quantiles(rates, n=4)
    return Row(what, median(rates), "prompts/s", low=low, high=high)


def measure(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Time the modes in turn, so that a slow minute of the machine meets all of them."""
    model = BackendOptions(model=str(folder), device=options.device, batch_size=BATCH)
    letters, written = TransformersBackend(model), TransformersJsonBackend(model)
    written.max_new_tokens = len(written._encode(ANSWER))
    prompts = questions(options.prompts)
    few = prompts[: max(1, options.prompts // 4)]
    talks = [opening(prompt) for prompt in prompts]
    work: dict[str, Callable[[], object]] = {
        "letters": lambda: letters.label(prompts),
        "one": lambda: [written.reply([opening(prompt)]) for prompt in few],
        "batched": lambda: written.reply(talks),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for name in work:
        work[name]()
    for _ in range(options.repeats):
        for name in work:
            times[name].append(seconds(work[name]))
    shares = {"one": len(prompts) / len(few), "batched": 1.0}
    rows = [
        rate(f"letters, batches of {BATCH}, shared prefix", len(prompts), times["letters"]),
        rate(f"JSON, one by one, {written.max_new_tokens} tokens", len(few), times["one"]),
        rate(f"JSON, batches of {BATCH}", len(prompts), times["batched"]),
    ]
    for name, what in (("one", "letters / JSON one by one"), ("batched", "letters / JSON batched")):
        ratios = [shares[name] * other / mine for other, mine in zip(times[name], times["letters"], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        bar = name == "one"
        rows.append(Row(what, middle, "x", f">= {BAR:g}" if bar else "", middle >= BAR if bar else None, low, high))
    return rows


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a causal language model; default: random weights")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--prompts", type=int, default=96, help="prompts per repeat")
    parser.add_argument("--repeats", type=int, default=5, help="at least 2")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if options.prompts < 1 or options.repeats < 2:
        parser.error("--prompts must be at least 1 and --repeats at least 2")
    return options


def main(arguments: Iterable[str] | None = None) -> None:
    """Make or take the model, and measure."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as made:
        folder = options.model or save_teacher(Path(made) / "teacher")
        name = options.model.name if options.model else "tiny random Qwen3"
        show(f"Teacher's modes, {name}, {options.device}", measure(options, folder), options.json)


if __name__ == "__main__":
    main()
