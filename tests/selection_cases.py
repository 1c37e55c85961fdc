"""Random ragged batches for the tests of selection, and how to run them in either form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from claspkit.runtime.cosines import Cosines, DirectCosines, GramCosines
from claspkit.runtime.gram import gram_matrix, unit_vectors
from claspkit.runtime.selection import Selection, select

FORMS = ("gram", "direct")


@dataclass(frozen=True)
class Case:
    """One batch: saliency (B, N), features (B, N, D), valid (B, N), and a budget and a split per row."""

    saliency: torch.Tensor
    features: torch.Tensor
    valid: torch.Tensor
    keep: list[int]
    pivots: list[int]


def draw_case(generator: np.random.Generator, rows: int, most: int) -> Case:
    """Draw a batch of up to ``most`` tokens; padding anywhere holds NaN, infinity or large numbers."""
    tokens, width = int(generator.integers(1, most + 1)), int(generator.integers(3, 9))
    saliency = generator.random((rows, tokens), dtype=np.float32)
    features = generator.normal(size=(rows, tokens, width)).astype(np.float32)
    missing = generator.choice([0.0, 0.3, 1.0], size=(rows, 1), p=[0.7, 0.28, 0.02])
    valid = generator.random((rows, tokens)) >= missing
    rubbish = generator.choice([np.nan, np.inf, 1e30, 3.0], size=(rows, tokens)).astype(np.float32)
    keep, pivots = [], []
    for row in range(rows):
        real = int(valid[row].sum())
        keep.append(int(generator.integers(1, max(real, 1) + 2)) if real else 0)
        pivots.append(int(generator.integers(0, keep[-1] + 1)) if generator.random() < 0.8 else 0)
    return Case(
        torch.from_numpy(np.where(valid, saliency, rubbish)),
        torch.from_numpy(np.where(valid[:, :, None], features, rubbish[:, :, None])),
        torch.from_numpy(valid),
        keep,
        pivots,
    )


def similarity(form: str, features: torch.Tensor, valid: torch.Tensor | None = None) -> Cosines:
    """Cosines of (B, N, D) in the form of that name."""
    if form == "gram":
        return GramCosines(*gram_matrix(features, valid))
    return DirectCosines(*unit_vectors(features, valid))


def run_case(case: Case, form: str, dtype: torch.dtype) -> Selection:
    """Select a case in one form and dtype."""
    features = case.features.to(dtype)
    similar = similarity(form, features, case.valid)
    return select(case.saliency.to(dtype), similar, case.keep, case.pivots, valid=case.valid)


def as_lists(found: Selection) -> list[tuple[list[int], list[int]]]:
    """(kept, pivots) per row, real slots only."""
    return [
        (kept[real].tolist(), kept[real & pivot].tolist())
        for kept, pivot, real in zip(found.kept, found.pivot, found.real, strict=True)
    ]
