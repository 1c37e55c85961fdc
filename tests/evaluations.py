"""Small data for evaluations of mini: a few of its own questions beside their pictures, in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from house import ROOT

from claspkit.calib.data_mini import MiniSource
from claspkit.calib.samples import Sample
from claspkit.calib.sources import SourceOptions

PROFILE = ROOT / "docs" / "example-profile.json"
SEED = 3_141_592  # no calibration of the tests draws from it


def drawn(folder: Path, count: int) -> list[Sample]:
    """Questions of mini's; their pictures lie in ``folder``."""
    options = SourceOptions("mini", "mini", folder, per_class=count, seed=SEED, max_rows=count)
    return MiniSource(options).load().samples


def write_rows(
    folder: Path,
    samples: Sequence[Sample],
    name: str = "rows.jsonl",
    more: Callable[[int], dict[str, Any]] = lambda _: {},
) -> Path:
    """A data file of these questions, beside their pictures; ``more`` gives further fields of a row."""
    path = folder / name
    rows = [
        {"image": sample.image, "prompt": sample.prompt, "answers": list(sample.answers), **more(number)}
        for number, sample in enumerate(samples)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path
