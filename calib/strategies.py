"""Search strategies behind one ask / tell contract; one file each, one row in ``STRATEGIES``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

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
        """Report a candidate's per-sample scores, in sample order, over the blocks asked for.

        NaN stands where there is none: such a candidate must not win, unless it is the default and nobody else can.
        """

    @abstractmethod
    def bound(self) -> int:
        """Candidate evaluations that the search takes, at most; what is left of them at its end was saved."""

    @abstractmethod
    def best(self) -> Candidate:
        """Return the winner on the search split; ties go to the earlier candidate, the default being first."""


class MakeStrategy(Protocol):
    """A row of :data:`STRATEGIES`."""

    def __call__(self, space: Space, sizes: Sequence[int], seed: int = 0) -> Strategy:
        """Build it for ``space`` and a split whose blocks hold ``sizes`` samples; ``seed`` is that of the run."""


def _race(space: Space, sizes: Sequence[int], seed: int = 0) -> Strategy:
    from .strategy_race import Race

    return Race(space, sizes)


def _two_pass(space: Space, sizes: Sequence[int], seed: int = 0) -> Strategy:
    from .strategy_two_pass import TwoPass

    return TwoPass(space, sizes)


def _exhaustive(space: Space, sizes: Sequence[int], seed: int = 0) -> Strategy:
    from .strategy_exhaustive import Exhaustive

    return Exhaustive(space, sizes)


def _random(space: Space, sizes: Sequence[int], seed: int = 0) -> Strategy:
    from .strategy_refine import random_points

    return random_points(space, sizes, seed)


def _tpe(space: Space, sizes: Sequence[int], seed: int = 0) -> Strategy:
    from .strategy_refine import tpe_points

    return tpe_points(space, sizes, seed)


STRATEGIES: dict[str, MakeStrategy] = {
    "race": _race,
    "two-pass": _two_pass,
    "exhaustive": _exhaustive,
    "random": _random,
    "tpe": _tpe,
}

RACES = ("race", "random", "tpe")
"""Those that begin with a race over the whole grid."""

_BY_OPTUNA = ("random", "tpe")


def strategy_facts(name: str) -> dict[str, str]:
    """What decides the points of a strategy beside its name: the version of Optuna where that proposes them."""
    return {"optuna": version("optuna")} if name in _BY_OPTUNA else {}
