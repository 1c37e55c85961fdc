"""The paper's selection as plain loops in float64, one sample at a time: the oracle of the tensor version.

Written from method.md sections 4 to 8 in feature space, without a Gram matrix.
"""

from __future__ import annotations

import math

import numpy as np


def reference_select(
    saliency: np.ndarray, features: np.ndarray, keep: int, pivots: int, iterations: int = 5, tie: float = 1e-6
) -> tuple[list[int], list[int]]:
    """Return (kept, pivots) of one sample: saliency (N,), features (N, D)."""
    tokens = len(saliency)
    if keep >= tokens:
        return list(range(tokens)), []
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
    centres = [units[i].copy() for i in by_redundancy[: keep - pivots]]
    owner: dict[int, int] = {}
    for _ in range(iterations):
        for i in pool:
            cosines = [float(units[i] @ centre) for centre in centres]
            if cosines:
                owner[i] = cosines.index(max(cosines))
        for m in range(len(centres)):
            members = [i for i in pool if owner[i] == m]
            total = sum((units[i] for i in members), np.zeros(features.shape[1]))
            if members and float(total @ total) > tie:
                centres[m] = total / math.sqrt(float(total @ total))
    medoids = []
    for m, centre in enumerate(centres):
        members = [i for i in pool if owner[i] == m]
        if not members:
            continue
        best = max(float(units[i] @ centre) for i in members)
        near = [i for i in members if float(units[i] @ centre) >= best - tie]
        medoids.append(min(near, key=lambda i: (-saliency[i], i)))
    kept = set(chosen) | set(medoids)
    for i in by_redundancy:
        if len(kept) == keep:
            break
        kept.add(i)
    return sorted(kept), sorted(chosen)
