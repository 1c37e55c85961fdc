"""Search strategies behind one ask / tell contract; one file each, one row in ``STRATEGIES``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .space import Candidate, Space


@dataclass(frozen=True)
class Request:
    """Work a strategy asks for: one candidate on the first ``blocks`` blocks of a class's search split."""

    candidate: Candidate
    blocks: int


class Strategy(ABC):
    """Chooses what to evaluate for one class. Deterministic: the same answers lead to the same questions.

    A run that was interrupted rebuilds a strategy by asking it again and telling it what the ledger holds.
    """

    def __init__(self, space: Space, sizes: Sequence[int]) -> None:
        """Search ``space`` on a split whose blocks hold ``sizes`` samples."""
        self.space = space
        self.sizes = tuple(sizes)

    @abstractmethod
    def ask(self) -> list[Request]:
        """Return the next requests, which may share work; an empty list ends the search."""

    @abstractmethod
    def tell(self, candidate: Candidate, scores: list[float]) -> None:
        """Report a candidate's per-sample scores, in sample order, over the blocks asked for."""

    @abstractmethod
    def bound(self) -> int:
        """Candidate evaluations that the search takes, at most; what is left of them at its end was saved."""

    @abstractmethod
    def best(self) -> Candidate:
        """Return the winner on the search split; ties go to the earlier candidate, the default being first."""


def _race(space: Space, sizes: Sequence[int]) -> Strategy:
    from .strategy_race import Race

    return Race(space, sizes)


def _two_pass(space: Space, sizes: Sequence[int]) -> Strategy:
    from .strategy_two_pass import TwoPass

    return TwoPass(space, sizes)


def _exhaustive(space: Space, sizes: Sequence[int]) -> Strategy:
    from .strategy_exhaustive import Exhaustive

    return Exhaustive(space, sizes)


STRATEGIES: dict[str, Callable[[Space, Sequence[int]], Strategy]] = {
    "race": _race,
    "two-pass": _two_pass,
    "exhaustive": _exhaustive,
}
