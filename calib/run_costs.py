"""What a search took, what sharing saved of it, and what asking every candidate about everything would have taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .ledger import HOLDOUT, SEARCH, UNPRUNED, Cost, Entry, Ledger
from .search import MIN_SAMPLES, ClassData
from .space import Space


@dataclass(frozen=True)
class RunCosts:
    """Counts and decoder FLOPs of a run so far, as its ledger has them.

    FLOPs are of the decoder's layers; the vision encoder is not in them. "Alone" is one prompt at a time, token by
    token, nothing shared.

    Attributes:
        evaluations: on the search split; one is one candidate on one sample.
        exhaustive_evaluations: those of asking every candidate about every search sample, over all budgets.
        holdout_evaluations: on the holdout, the stock model's included.
        pictures: different pictures of the samples used; each is encoded once.
        flops: of the search, as computed.
        flops_alone: of the same evaluations alone.
        flops_exhaustive: of ``exhaustive_evaluations`` alone, at the mean cost of a class's own evaluations. None where
            a class that has candidates to ask has no score with a cost yet.
        holdout_flops: of the holdout, as computed.
        holdout_flops_alone: of the same alone.
        token_layers: tokens that went through a decoder layer, search and holdout, as computed.
        token_layers_alone: of the same alone.
        bytes_read: of cached features, search and holdout.
        drafted: answers that were guessed and confirmed without a step of decoding, search and holdout.
        counted: whether the ledger has costs at all; older ones have none.
    """

    evaluations: int
    exhaustive_evaluations: int
    holdout_evaluations: int
    pictures: int
    flops: float
    flops_alone: float
    flops_exhaustive: float | None
    holdout_flops: float
    holdout_flops_alone: float
    token_layers: float
    token_layers_alone: float
    bytes_read: float
    drafted: int
    counted: bool

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def run_costs(
    classes: Sequence[ClassData], spaces: Sequence[Space], ledger: Ledger | None, *, only: Space | None = None
) -> RunCosts:
    """Add up what a run's ledger says.

    Args:
        classes: the samples used.
        spaces: the candidates, one space per budget.
        ledger: the scores; None before the first.
        only: count what was asked at this budget alone. Of what budgets share, each candidate has its part; the stock
            model belongs to no budget.
    """
    entries = ledger.entries() if ledger else []
    if only is not None:
        spaces = (only,)
        entries = [entry for entry in entries if entry.candidate != UNPRUNED and _is_of(entry, only)]
    search = [entry for entry in entries if entry.split == SEARCH]
    holdout = [entry for entry in entries if entry.split == HOLDOUT]
    searched = [data for data in classes if min(len(data.search), len(data.holdout)) >= MIN_SAMPLES]
    alls = [_exhaustive(data, spaces, search) for data in searched]
    done, kept = _total(search), _total(holdout)
    both = done + kept
    return RunCosts(
        evaluations=_evaluations(search),
        exhaustive_evaluations=sum(len(data.search) * len(space.candidates) for data in searched for space in spaces),
        holdout_evaluations=_evaluations(holdout),
        pictures=len({sample.image_sha256 for data in classes for sample in (*data.search, *data.holdout)}),
        flops=done.flops,
        flops_alone=done.flops_alone,
        flops_exhaustive=sum(each for each in alls if each is not None) if alls and None not in alls else None,
        holdout_flops=kept.flops,
        holdout_flops_alone=kept.flops_alone,
        token_layers=both.token_layers,
        token_layers_alone=both.token_layers_alone,
        bytes_read=both.bytes_read,
        drafted=both.drafted,
        counted=done.flops > 0,
    )


def _exhaustive(data: ClassData, spaces: Sequence[Space], search: Sequence[Entry]) -> float | None:
    """FLOPs of every candidate on a class's search split alone; None where a budget has no cost to go by."""
    total = 0.0
    for space in spaces:
        mine = [entry for entry in search if entry.intent == data.intent and _is_of(entry, space)]
        flops, asked = _total(mine).flops_alone, _evaluations(mine)
        if not flops:
            return None
        total += flops / asked * len(data.search) * len(space.candidates)
    return total


def _is_of(entry: Entry, space: Space) -> bool:
    """Whether a candidate belongs to a space's budget."""
    return entry.candidate.partition("@")[2] == (str(space.further.nominal) if space.further else "")


def _total(entries: Sequence[Entry]) -> Cost:
    return sum((entry.cost for entry in entries), Cost())


def _evaluations(entries: Sequence[Entry]) -> int:
    return sum(len(entry.scores) for entry in entries)
