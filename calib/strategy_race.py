"""A race by successive halving over the whole space, with the default running along."""

from __future__ import annotations

from collections.abc import Sequence

from .halving import rungs, survivors
from .space import Candidate, Space
from .strategies import Request, Strategy

FIRST_CUT = 5
"""One candidate in this many survives the first rung, where the field is widest and a sample dearest."""

CUT = 2
"""One in this many survives every later rung."""


class Race(Strategy):
    """Every candidate on a few samples, fewer and fewer candidates on more and more, until one is left.

    The first rung has the whole grid, because the best split is not the same for every prototype. All candidates of a
    rung see the same samples, in the run's hash order; whoever clearly trails the leader is dropped at once. The
    default is never dropped: whoever wins must be better on the same samples.
    """

    def __init__(self, space: Space, sizes: Sequence[int]) -> None:
        """Search ``space`` on blocks of these many samples."""
        super().__init__(space, sizes)
        self._scores: dict[str, list[float]] = {}
        self._rungs, self._rung = rungs(sizes), 0
        self._field = list(space.candidates)

    def ask(self) -> list[Request]:
        """The field of the next rung; nothing when the race is over."""
        while self._has_all():
            others = [candidate for candidate in self._field if candidate != self.space.default]
            kept = self._ranked(others)[: _left(len(others), self._rung)]
            if len(kept) < 2 or self._rung + 1 == len(self._rungs):
                return []
            self._field = [candidate for candidate in self._field if candidate in {self.space.default, *kept}]
            self._rung += 1
        blocks = self._rungs[self._rung]
        return [Request(candidate, blocks) for candidate in self._field if not self._has(candidate)]

    def tell(self, candidate: Candidate, scores: list[float]) -> None:
        """Keep the scores; a candidate is told again when it has more of them."""
        self._scores[candidate.id] = scores

    def best(self) -> Candidate:
        """The best of those that are left, on the samples of the last rung; the default on a tie."""
        ranked = self._ranked(self._field)
        return ranked[0] if ranked else self.space.default

    def bound(self) -> int:
        """Candidate evaluations that a race takes if nobody is dropped before the halving does it."""
        reached = [sum(self.sizes[:blocks]) for blocks in self._rungs]
        others, total = len(self.space.candidates) - 1, 0
        for number, samples in enumerate(reached):
            total += (others + 1) * (samples - (reached[number - 1] if number else 0))
            others = _left(others, number)
            if others < 2:
                break
        return total

    def _ranked(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that do not clearly trail the best, the best first, on the samples of the current rung."""
        samples = sum(self.sizes[: self._rungs[self._rung]])
        found = survivors({c.id: self._scores[c.id][:samples] for c in candidates}, len(candidates))
        named = {candidate.id: candidate for candidate in candidates}
        return [named[name] for name in found]

    def _has(self, candidate: Candidate) -> bool:
        return len(self._scores.get(candidate.id, ())) >= sum(self.sizes[: self._rungs[self._rung]])

    def _has_all(self) -> bool:
        return all(self._has(candidate) for candidate in self._field)


def _left(others: int, rung: int) -> int:
    """How many of a field survive a rung."""
    return -(-others // (FIRST_CUT if rung == 0 else CUT))
