"""Small calibrations of mini for the tests: few splits, few samples, everything else real."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from claspkit.calib.config import RunConfig
from claspkit.calib.folder import RunFolder, read_samples
from claspkit.calib.outcome import Outcome
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.progress import Reporter

SMALL = RunConfig(model="mini", per_class=24, budget="1/9", rhos=(0.2,), max_new_tokens=4)
SMALL_OPTIONS = ("--model", "mini", "--per-class", "24", "--budget", "1/9", "--rho", "0.2", "--max-new-tokens", "4")


def calibrate(folder: Path, **changes: object) -> Outcome:
    """Run (or resume) the small calibration in this process."""
    outcome = Pipeline(replace(SMALL, **changes), RunFolder(folder), Reporter(quiet=True)).run()  # type: ignore[arg-type]
    assert outcome is not None
    return outcome


def run_until(
    stage: str,
    folder: Path,
    *,
    quiet: bool = True,
    fresh: bool = False,
    workers: int = 1,
    search_workers: int = 1,
    **changes: object,
) -> None:
    """Run (or resume) the small calibration up to a stage in this process."""
    config = replace(SMALL, **changes)  # type: ignore[arg-type]
    pipeline = Pipeline(config, RunFolder(folder), Reporter(quiet=quiet))
    pipeline.run(until=stage, fresh=fresh, cache_workers=workers, search_workers=search_workers)


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start the small calibration in a process of its own, as a user would."""
    command = [sys.executable, "-c", "from claspkit.calib.cli import calibrate_main; calibrate_main()"]
    return subprocess.Popen(
        [*command, *SMALL_OPTIONS, "--out", str(folder), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def data_of(folder: Path, intents: Sequence[str], per_class: int = 24) -> Path:
    """Write a data file with mini's samples of some classes, beside their pictures; the other classes stay empty."""
    run = folder / "drawn"
    run_until("samples", run, per_class=per_class)
    rows = [
        {"image": sample.image, "prompt": sample.prompt, "answers": list(sample.answers), "scorer": sample.scorer}
        for sample in read_samples(RunFolder(run)).samples
        if sample.intent_hint in intents
    ]
    path = run / "images" / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
