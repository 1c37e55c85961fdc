"""Every candidate on every block: the ground truth the other strategies are measured against."""

from __future__ import annotations

from statistics import fmean

from .space import Candidate, Space
from .strategies import Request, Strategy


class Exhaustive(Strategy):
    """Evaluates the whole space and takes the largest mean."""

    def __init__(self, space: Space, blocks: int) -> None:
        """Search all of ``space``."""
        super().__init__(space, blocks)
        self._means: dict[str, float] = {}

    def ask(self) -> list[Request]:
        """Everything that has not been told yet, at once."""
        return [
            Request(candidate, self.blocks) for candidate in self.space.candidates if candidate.id not in self._means
        ]

    def tell(self, candidate: Candidate, scores: list[float]) -> None:
        """Keep the mean."""
        self._means[candidate.id] = fmean(scores)

    def best(self) -> Candidate:
        """Largest mean; the earlier candidate on a tie."""
        return max(self.space.candidates, key=lambda candidate: self._means.get(candidate.id, float("-inf")))
