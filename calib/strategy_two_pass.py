"""The paper's two passes (Algorithm 2): all prototypes at the default's split, then all splits of the best one."""

from __future__ import annotations

from collections.abc import Sequence

from .halving import mean
from .space import Candidate, Space
from .strategies import Request, Strategy


class TwoPass(Strategy):
    """Every candidate of a pass on every sample; blind to what a split does to the other prototypes."""

    def __init__(self, space: Space, sizes: Sequence[int]) -> None:
        """Search ``space`` on blocks of these many samples."""
        super().__init__(space, sizes)
        self._means: dict[str, float] = {}

    def ask(self) -> list[Request]:
        """The first pass; once it is told, the second."""
        rho = self.space.default.rho
        passes = [self.space.candidate(prototype, rho) for prototype in self.space.prototypes]
        if all(candidate.id in self._means for candidate in passes):
            winner = max(passes, key=lambda candidate: self._means[candidate.id]).prototype
            passes = [self.space.candidate(winner, value) for value in self.space.rhos]
        return [Request(c, len(self.sizes)) for c in passes if c.id not in self._means]

    def tell(self, candidate: Candidate, scores: list[float]) -> None:
        """Keep the mean; one that is not finite cannot win."""
        self._means[candidate.id] = mean(scores)

    def bound(self) -> int:
        """One evaluation per prototype and split; the candidate of both passes counts once."""
        shared = self.space.default.rho in self.space.rhos
        return (len(self.space.prototypes) + len(self.space.rhos) - shared) * sum(self.sizes)

    def best(self) -> Candidate:
        """Largest mean; the earlier candidate on a tie."""
        return max(self.space.candidates, key=lambda candidate: self._means.get(candidate.id, float("-inf")))
