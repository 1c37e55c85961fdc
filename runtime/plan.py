"""What a batch is to be pruned like: the profile's rows for the batch's intents, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from claspkit.profiles.budget import BEFORE_DECODER, keep_for
from claspkit.profiles.errors import UsageError

from .selection import ITERATIONS, TIE_TOLERANCE, split_budget

if TYPE_CHECKING:  # reading a profile needs pydantic, pruning by a plan does not
    from claspkit.profiles.profile import Profile

SALIENCY = "text"
"""Reference rows of the saliency: the prompt's text rows after the picture (method.md section 3)."""

FEATURES = ("aligned", "hidden")
"""What cosines are taken of; see :attr:`PrunePlan.features`. A profile has the first."""


@dataclass(frozen=True)
class RowPlan:
    """How one sample is fused and split.

    Attributes:
        layers: vision layers fused, hidden_states indexing.
        weights: their shares, on the simplex.
        rho: share of every stage's budget that goes to attention pivots.
        keeps: tokens that the stages keep of this sample, one number per stage, as in :attr:`PrunePlan.stages`; None
            takes the numbers there.
    """

    layers: tuple[int, ...]
    weights: tuple[float, ...]
    rho: float
    keeps: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PrunePlan:
    """How a batch is pruned: one schedule, one row plan per prompt.

    Attributes:
        stages: (after_layer, keep) pairs, ascending; decoder layers > after_layer see ``keep`` visual tokens. Layer
            -1 is a stage before the decoder. A row may keep numbers of its own at the same layers.
        rows: one per prompt of the batch.
        saliency: "text" (prompt rows after the picture), "last" (the last prompt row) or "cls" (the vision encoder).
        iterations: rounds of spherical k-means.
        tie_tolerance: cosines closer than this are equal.
        positions: "keep" leaves kept tokens their position ids, "renumber" closes the gaps at every stage.
        scaling: "absolute" or "share", see :func:`claspkit.profiles.budget.keep_for`.
        visual_tokens: tokens of the reference picture that a share refers to; needed for "share" alone.
        features: "aligned" takes cosines of the visual tokens as they enter the decoder, the same for all stages;
            "hidden" takes them of the hidden states that leave the stage's own layer, anew at every stage.
    """

    stages: tuple[tuple[int, int], ...]
    rows: tuple[RowPlan, ...]
    saliency: str = SALIENCY
    iterations: int = ITERATIONS
    tie_tolerance: float = TIE_TOLERANCE
    positions: str = "keep"
    scaling: str = "absolute"
    visual_tokens: int | None = None
    features: str = FEATURES[0]

    def __post_init__(self) -> None:
        layers = [layer for layer, _ in self.stages]
        if layers != sorted(set(layers)) or any(layer < BEFORE_DECODER for layer in layers):
            raise UsageError(f"the stages {self.stages} must ascend in layer, from {BEFORE_DECODER} (the entrance) on")
        if any(keep < 1 for _, keep in self.stages):
            raise UsageError(f"the stages {self.stages} must keep at least one token each")
        if self.features not in FEATURES:
            raise UsageError(f"features {self.features!r} do not exist; there are: {', '.join(FEATURES)}")
        if BEFORE_DECODER in layers and self.saliency != "cls":
            raise UsageError(
                f"a stage before the decoder has no attention of the decoder's to go by: saliency {self.saliency!r} "
                "must be 'cls'"
            )
        for index, row in enumerate(self.rows):
            if row.keeps is not None:
                self._check_keeps(index, row.keeps)

    @classmethod
    def from_profile(cls, profile: Profile, intents: Sequence[str]) -> PrunePlan:
        """Look up every intent's class in the profile."""
        rows = []
        for intent in intents:
            spec = profile.for_intent(intent)
            keeps = None if spec.stages is None else tuple(stage.keep for stage in spec.stages)
            rows.append(RowPlan(tuple(spec.layers), tuple(spec.weights), spec.rho, keeps))
        return cls(
            stages=tuple((stage.after_layer, stage.keep) for stage in profile.budget.stages),
            rows=tuple(rows),
            saliency=profile.selection.saliency,
            iterations=profile.selection.kmeans_iterations,
            tie_tolerance=profile.selection.tie_tolerance,
            positions=profile.selection.positions,
            scaling=profile.budget.scaling,
            visual_tokens=profile.model.visual_tokens,
            features=profile.selection.features,
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """Every vision layer that some row needs, ascending."""
        return tuple(sorted({layer for row in self.rows for layer in row.layers}))

    def weights(self, layers: Sequence[int] | None = None) -> Tensor:
        """Fusion weights over ``layers`` (:attr:`layers` if not given), (B, L) float64."""
        order = list(self.layers if layers is None else layers)
        table = torch.zeros(len(self.rows), len(order), dtype=torch.float64)
        for index, row in enumerate(self.rows):
            for layer, weight in zip(row.layers, row.weights, strict=True):
                table[index, order.index(layer)] += weight
        return table

    def fuses_alike(self) -> bool:
        """Whether all rows have the same layers and weights, so that it does not matter whose picture is whose."""
        return len({(row.layers, row.weights) for row in self.rows}) == 1

    def keeps(self, tokens: Sequence[int], pictures: Sequence[int]) -> list[list[int]]:
        """Tokens every stage keeps of every row: one list per stage, one count per row.

        Args:
            tokens: visual tokens per row.
            pictures: pictures per row.
        """
        if self.scaling == "share" and self.visual_tokens is None:
            raise UsageError("a budget that is a share of a picture's tokens needs the reference picture's token count")
        reference = self.visual_tokens or 1
        return [
            [
                keep_for(keep if row.keeps is None else row.keeps[stage], n, count, reference, self.scaling)
                for row, n, count in zip(self.rows, tokens, pictures, strict=True)
            ]
            for stage, (_, keep) in enumerate(self.stages)
        ]

    def pivots(self, keeps: Sequence[int]) -> list[int]:
        """Attention pivots of every row for a stage that keeps ``keeps`` tokens."""
        return [split_budget(row.rho, keep) if keep else 0 for row, keep in zip(self.rows, keeps, strict=True)]

    def _check_keeps(self, index: int, keeps: tuple[int, ...]) -> None:
        """Refuse numbers that the stages cannot keep one after the other."""
        shown = f"row {index} of the plan keeps {keeps}"
        if len(keeps) != len(self.stages):
            raise UsageError(f"{shown}: one number per stage is needed, and there are {len(self.stages)} stages")
        if any(keep < 1 for keep in keeps):
            raise UsageError(f"{shown}: every stage keeps at least one token")
        if any(later > earlier for earlier, later in pairwise(keeps)):
            raise UsageError(f"{shown}: a stage cannot keep more tokens than the one before it left")
