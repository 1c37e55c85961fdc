"""What a finished calibration says about the scatter of paired differences, and what its holdout could show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .finished import FinishedRun
from .finite import all_finite
from .ledger import HOLDOUT
from .power import Spread, detectable, measure, samples_needed


@dataclass(frozen=True)
class Observed:
    """The holdout of one class whose best candidate is not the default.

    Attributes:
        intent: class id.
        candidate: id of the search's best.
        differences: (samples,) float64, that candidate's scores minus the default's.
        pictures: the picture of every sample.
    """

    intent: str
    candidate: str
    differences: np.ndarray
    pictures: Sequence[str]


def observe(run: FinishedRun) -> list[Observed]:
    """The paired holdout differences of every class that was tested; none where the default won every search."""
    found, default = [], run.space.default
    winners = run.winners()
    for data in run.classes:
        winner = winners[data.intent]
        if winner != default:
            ours, theirs = (run.ledger.scores(HOLDOUT, data.intent, c.id) for c in (winner, default))
            if not (all_finite(ours) and all_finite(theirs)):
                continue  # it was not tested either
            pictures = [sample.image_sha256 for sample in data.holdout]
            found.append(Observed(data.intent, winner.id, np.array(ours) - np.array(theirs), pictures))
    return found


def observed_spread(observed: Sequence[Observed]) -> Spread:
    """The spread over all classes together; without disagreement if there is no class."""
    if not observed:
        return Spread(0.0)
    return measure([row.differences for row in observed], [row.pictures for row in observed])


def observed_rows(observed: Sequence[Observed], difference: float, alpha: float, power: float) -> list[dict[str, Any]]:
    """One JSON object per class: its own spread, the samples it needs, and the difference its holdout could show.

    Args:
        observed: the classes.
        difference: true difference of mean scores to be found.
        alpha: level of one class's test.
        power: probability of finding it.
    """
    rows = []
    for row in observed:
        spread = measure([row.differences], [row.pictures])
        enough = difference <= spread.disagreement
        rows.append(
            {
                "intent": row.intent,
                "candidate": row.candidate,
                "holdout_samples": len(row.differences),
                "disagreement": spread.disagreement,
                "questions_per_picture": spread.per_picture,
                "correlation": spread.correlation,
                "needed": samples_needed(difference, spread, alpha, power) if enough else None,
                "detectable": detectable(len(row.differences), spread, alpha, power),
            }
        )
    return rows
