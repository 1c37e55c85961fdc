"""Scores that a calibration of mini recorded: what the benchmark of the search plays back, and how they got here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import ROOT, commit

from claspkit.calib.folder import RunFolder
from claspkit.calib.ledger import SEARCH, Ledger
from claspkit.calib.space import Space, make_space
from claspkit.profiles.intents import INTENT_IDS

SCORES = ROOT / "benchmarks" / "mini_scores.json"
DEFAULT_LAYER = 7  # of mini
OPTIONS = ("model", "per_class", "budget", "holdout", "strategy", "seed")


@dataclass(frozen=True)
class Recorded:
    """What one exhaustive search scored.

    Attributes:
        space: what it searched.
        block_size: samples per block.
        classes: class id -> (candidates, samples) float64 of zeros and ones; a column is one sample, so that what
            candidates have in common is kept.
    """

    space: Space
    block_size: int
    classes: dict[str, np.ndarray]

    def sizes(self, samples: int) -> list[int]:
        """Samples per block of a split of so many."""
        full, rest = divmod(samples, self.block_size)
        return [self.block_size] * full + ([rest] if rest else [])


def read_recorded(path: Path = SCORES) -> Recorded:
    """Read the recorded scores.

    Raises:
        ValueError: the candidates are not those of today's space, in its order, or a class has a row too many or few,
            rows of unequal length, or another digit than 0 and 1.
    """
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    space = make_space(found["default_layer"])
    names = [candidate.id for candidate in space.candidates]
    if found["candidates"] != names:
        raise ValueError(
            f"{path.name} holds {len(found['candidates'])} candidates which are not the space's {len(names)}, in this "
            f"order; record it anew with: {found['command']}"
        )
    classes = {intent: _matrix(path, intent, rows, len(names)) for intent, rows in found["classes"].items()}
    return Recorded(space, found["block_size"], classes)


def record(run: Path, path: Path = SCORES) -> None:
    """Write the search scores of a finished run of mini, one digit per sample and one line per candidate.

    Args:
        run: its folder; an exhaustive search over the space of mini.
        path: the file to write.

    Raises:
        ValueError: the run searched another space, not all of it, or scores other than 0 and 1.
        KeyError: the folder's configuration lacks a field.
        OSError: the folder has no configuration.
    """
    facts = json.loads((run / "config.lock.json").read_text(encoding="utf-8"))["facts"]
    ledger, space = Ledger.read(RunFolder(run).ledger), make_space(DEFAULT_LAYER)
    if facts["space"] != space.sha256 or facts["strategy"] != "exhaustive":
        raise ValueError(f"{run} is no exhaustive search of mini's space, but {facts['strategy']} of {facts['space']}")
    classes = {}
    for intent in INTENT_IDS:
        found = [ledger.scores(SEARCH, intent, candidate.id) for candidate in space.candidates]
        classes[intent] = ["".join(f"{score:g}" for score in scores) for scores in found]
        _matrix(run, intent, classes[intent], len(space.candidates))
    head = {
        "about": "Search scores of mini: per class a line of digits per candidate, one digit per sample.",
        "command": "claspkit calibrate " + " ".join(f"--{name.replace('_', '-')} {facts[name]}" for name in OPTIONS),
        "commit": commit(),
        "default_layer": DEFAULT_LAYER,
        "block_size": facts["block_size"],
        "candidates": [candidate.id for candidate in space.candidates],
    }
    path.write_text(json.dumps({**head, "classes": classes}, indent=1) + "\n", encoding="utf-8")


def _matrix(path: Path, intent: str, rows: list[str], candidates: int) -> np.ndarray:
    lengths = {len(row) for row in rows}
    if len(rows) != candidates or len(lengths) != 1 or not set("".join(rows)) <= {"0", "1"}:
        raise ValueError(
            f"{path.name}, class {intent!r}: {len(rows)} rows of {sorted(lengths)} characters, where {candidates} rows "
            "of one length, all 0 and 1, are due"
        )
    return np.array([[digit == "1" for digit in row] for row in rows], dtype=float)
