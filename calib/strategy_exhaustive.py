"""Every candidate on every block: the ground truth the other strategies are measured against."""

from __future__ import annotations

from collections.abc import Sequence

from .halving import mean
from .space import Candidate, Space
from .strategies import Request, Strategy


class Exhaustive(Strategy):
    """Evaluates the whole space and takes the largest mean."""

    def __init__(self, space: Space, sizes: Sequence[int]) -> None:
        """Search all of ``space``."""
        super().__init__(space, sizes)
        self._means: dict[str, float] = {}

    def ask(self) -> list[Request]:
        """Everything that has not been told yet, at once."""
        return [Request(c, len(self.sizes)) for c in self.space.candidates if c.id not in self._means]

    def tell(self, candidate: Candidate, scores: list[float]) -> None:
        """Keep the mean; one that is not finite cannot win."""
        self._means[candidate.id] = mean(scores)

    def bound(self) -> int:
        """All of them."""
        return len(self.space.candidates) * sum(self.sizes)

    def best(self) -> Candidate:
        """Largest mean; the earlier candidate on a tie."""
        return max(self.space.candidates, key=lambda candidate: self._means.get(candidate.id, float("-inf")))
