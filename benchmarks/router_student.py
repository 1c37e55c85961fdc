"""What the student costs and how good it is: processor time a prompt, bytes, and scores on the reference test part.

    OMP_NUM_THREADS=1 python benchmarks/router_student.py [--model FILE] [--repeats 20] [--json]

The rules are scored beside it. Timed are the prompts of the training part, repeatedly: a word met again is looked up
and not hashed anew, as in service.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from _common import ROOT, Row, show

from claspkit.profiles.intents import merge
from claspkit.router.backends import Backend, BackendOptions, make_backend
from claspkit.router.scoring import score
from claspkit.router.student import MAX_FILE, SHIPPED

REFERENCE = ROOT / "router" / "reference" / "prompts.jsonl"
MICROSECONDS, STUDENT, SURE, RULES = 50.0, 0.90, 0.95, 0.80


def at_least(what: str, value: float, bar: float) -> Row:
    """A share that should be no smaller."""
    return Row(what, value, "", f">= {bar:g}", value >= bar)


def timing(backend: Backend, prompts: list[str], repeats: int) -> tuple[float, float, float]:
    """Microseconds of processor time a prompt: lower quartile, median, upper quartile."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        backend.label(prompts)
        times.append(1e6 * (time.process_time() - start) / len(prompts))
    low, _, high = quantiles(times, n=4)
    return low, median(times), high


def measure(options: argparse.Namespace) -> list[Row]:
    """All rows."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in REFERENCE.read_text(encoding="utf-8").splitlines()]
    timed = [row["prompt"] for row in rows if row["part"] == "train"]
    tested = [row for row in rows if row["part"] == "test"]
    truth, prompts = [merge(row["fine"]) for row in tested], [row["prompt"] for row in tested]
    student = make_backend("student", BackendOptions(model=str(options.model)))
    found = score(truth, student.label(prompts))
    rules = score(truth, make_backend("rules").label(prompts))
    size = options.model.stat().st_size
    low, many, high = timing(student, timed, options.repeats)
    lowest, one, highest = timing(student, timed[:1], options.repeats)
    unit, fits = "us/prompt", many <= MICROSECONDS
    return [
        Row(f"student, {len(timed)} prompts at once", many, unit, f"<= {MICROSECONDS:g}", fits, low, high),
        Row("student, a call with one prompt", one, unit, low=lowest, high=highest),
        Row("student's file", size, "bytes", f"<= {MAX_FILE}", size <= MAX_FILE),
        at_least(f"student, accuracy on {len(tested)} test prompts", found.accuracy, STUDENT),
        at_least("student, accuracy on the surest 85 %", found.accuracy_at_coverage, SURE),
        Row("student, expected calibration error", found.calibration_error, ""),
        Row("student, macro F1", found.macro_f1, ""),
        at_least("rules alone, accuracy", rules.accuracy, RULES),
    ]


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED, help="a student's file; default: the shipped one")
    parser.add_argument("--repeats", type=int, default=20, help="at least 2")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if options.repeats < 2:
        parser.error("--repeats must be at least 2")
    return options


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and print."""
    options = parse(arguments)
    show("The student router", measure(options), options.json)


if __name__ == "__main__":
    main()
