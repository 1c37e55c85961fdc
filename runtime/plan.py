"""What a batch is to be pruned like: the profile's rows for the batch's intents, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from claspkit.profiles.profile import Profile

from .selection import ITERATIONS, TIE_TOLERANCE, split_budget

SALIENCY = "text"
"""Reference rows of the saliency: the prompt's text rows after the picture (method.md section 3)."""


@dataclass(frozen=True)
class RowPlan:
    """How one sample is fused and split.

    Attributes:
        layers: vision layers fused, hidden_states indexing.
        weights: their shares, on the simplex.
        rho: share of every stage's budget that goes to attention pivots.
    """

    layers: tuple[int, ...]
    weights: tuple[float, ...]
    rho: float


@dataclass(frozen=True)
class PrunePlan:
    """How a batch is pruned: one rectangular budget, one row plan per sample.

    Attributes:
        stages: (after_layer, keep) pairs, ascending; decoder layers > after_layer see ``keep`` visual tokens.
        rows: one per sample of the batch.
        saliency: "text" (prompt rows after the picture) or "last" (the last prompt row).
        iterations: rounds of spherical k-means.
        tie_tolerance: cosines closer than this are equal.
    """

    stages: tuple[tuple[int, int], ...]
    rows: tuple[RowPlan, ...]
    saliency: str = SALIENCY
    iterations: int = ITERATIONS
    tie_tolerance: float = TIE_TOLERANCE

    @classmethod
    def from_profile(cls, profile: Profile, intents: Sequence[str]) -> PrunePlan:
        """Look up every intent's class in the profile."""
        rows = []
        for intent in intents:
            spec = profile.for_intent(intent)
            rows.append(RowPlan(tuple(spec.layers), tuple(spec.weights), spec.rho))
        return cls(
            stages=tuple((stage.after_layer, stage.keep) for stage in profile.budget.stages),
            rows=tuple(rows),
            saliency=profile.selection.saliency,
            iterations=profile.selection.kmeans_iterations,
            tie_tolerance=profile.selection.tie_tolerance,
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """Every vision layer that some row needs, ascending."""
        return tuple(sorted({layer for row in self.rows for layer in row.layers}))

    def weights(self) -> Tensor:
        """Fusion weights over :attr:`layers`, (B, L) float64."""
        table = torch.zeros(len(self.rows), len(self.layers), dtype=torch.float64)
        for index, row in enumerate(self.rows):
            for layer, weight in zip(row.layers, row.weights, strict=True):
                table[index, self.layers.index(layer)] += weight
        return table

    def pivots(self, keep: int) -> list[int]:
        """Attention pivots of every row for a stage that keeps ``keep`` tokens."""
        return [split_budget(row.rho, keep) for row in self.rows]
