"""The paper's selection as plain loops in float64, one sample at a time: the oracle of the tensor version.

Written from method.md sections 4 to 8 in feature space, without a Gram matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass
class Margin:
    """How far every decision was from going the other way, so that single precision can be held to the clear ones.

    Attributes:
        order: smallest distance between two cosines that were compared: neighbours in the order of redundancy, and
            the two best centres of a token.
        tie: smallest distance of a member's cosine from the line below which it no longer ties with the medoid, and
            of a cluster sum's squared norm from counting as zero.
    """

    order: float = math.inf
    tie: float = math.inf

    def compare(self, values: Sequence[float]) -> None:
        """Note the distance of the two largest values."""
        if len(values) > 1:
            first, second = sorted(values, reverse=True)[:2]
            self.order = min(self.order, first - second)

    def touch(self, distance: float) -> None:
        """Note a distance from a tolerance."""
        self.tie = min(self.tie, abs(distance))


@dataclass(frozen=True)
class Traced:
    """The kept set and the pivots, ascending, and how clear the decisions were."""

    kept: list[int]
    pivots: list[int]
    margin: Margin = field(default_factory=Margin)


def reference_select(
    saliency: np.ndarray,
    features: np.ndarray,
    keep: int,
    pivots: int,
    iterations: int = 5,
    tie: float = 1e-6,
    valid: np.ndarray | None = None,
) -> tuple[list[int], list[int]]:
    """Return (kept, pivots) of one sample: saliency (N,), features (N, D), valid (N,) bool."""
    traced = trace_select(saliency, features, keep, pivots, iterations, tie, valid)
    return traced.kept, traced.pivots


def trace_select(
    saliency: np.ndarray,
    features: np.ndarray,
    keep: int,
    pivots: int,
    iterations: int = 5,
    tie: float = 1e-6,
    valid: np.ndarray | None = None,
) -> Traced:
    """As :func:`reference_select`, with the margins. Padding is taken out first, and the indices put back."""
    if valid is not None:
        real = np.flatnonzero(valid)
        inner = trace_select(saliency[real], features[real], keep, pivots, iterations, tie)
        return Traced([int(real[i]) for i in inner.kept], [int(real[i]) for i in inner.pivots], inner.margin)
    tokens, margin = len(saliency), Margin()
    if keep >= tokens:
        return Traced(list(range(tokens)), [])
    units = []
    for row in features.astype(np.float64):
        norm = math.sqrt(float(row @ row))
        units.append(row / norm if norm > 0 else row * 0.0)
    chosen = sorted(range(tokens), key=lambda i: (-saliency[i], i))[:pivots]
    pool = [i for i in range(tokens) if i not in chosen]
    if chosen:
        redundancy = {i: max(float(units[i] @ units[j]) for j in chosen) for i in pool}
    else:
        redundancy = {i: sum(float(units[i] @ units[j]) for j in range(tokens)) / tokens for i in pool}
    by_redundancy = sorted(pool, key=lambda i: (redundancy[i], i))
    if keep > pivots:
        for before, after in pairwise(by_redundancy):
            margin.order = min(margin.order, redundancy[after] - redundancy[before])
    centres = [units[i].copy() for i in by_redundancy[: keep - pivots]]
    owner: dict[int, int] = {}
    for _ in range(iterations):
        for i in pool:
            cosines = [float(units[i] @ centre) for centre in centres]
            if cosines:
                owner[i] = cosines.index(max(cosines))
                margin.compare(cosines)
        for m in range(len(centres)):
            members = [i for i in pool if owner[i] == m]
            total = sum((units[i] for i in members), np.zeros(features.shape[1]))
            if members:
                margin.touch(float(total @ total) - tie)
            if members and float(total @ total) > tie:
                centres[m] = total / math.sqrt(float(total @ total))
    medoids = []
    for m, centre in enumerate(centres):
        members = [i for i in pool if owner.get(i) == m]
        if not members:
            continue
        best = max(float(units[i] @ centre) for i in members)
        near = [i for i in members if float(units[i] @ centre) >= best - tie]
        for i in members:
            margin.touch(float(units[i] @ centre) - (best - tie))
        medoids.append(min(near, key=lambda i: (-saliency[i], i)))
    kept = set(chosen) | set(medoids)
    for i in by_redundancy:
        if len(kept) == keep:
            break
        kept.add(i)
    return Traced(sorted(kept), sorted(chosen), margin)
