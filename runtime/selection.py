"""Dual-stage selection of visual tokens: attention pivots, then similarity completion (CLASP Eq. 11-18).

Pure tensor functions, batched over samples, in Gram space (``method.md`` section 8): one matrix of cosines serves
every stage and every split. No Python loop over samples or clusters; the tie rules make the result deterministic.

Shape alphabet: B samples, N visual tokens still alive, R tokens kept, K cluster slots, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TIE_TOLERANCE = 1e-6
"""Cosines closer than this are equal; also the squared norm under which a cluster sum counts as zero."""

ITERATIONS = 5
"""Rounds of spherical k-means; the best of the paper's ablation over 3, 5, 7, 9 and 11."""


@dataclass(frozen=True)
class Selection:
    """The kept set of one stage.

    Attributes:
        kept: (B, R) int64, indices into the N tokens given, ascending in every row.
        pivot: (B, R) bool, True for attention pivots, False for similarity completion.
    """

    kept: Tensor
    pivot: Tensor


def split_budget(rho: float, keep: int) -> int:
    """Return M_att, the attention pivots among ``keep`` tokens: ``floor(rho * keep + 1/2)`` (Eq. 11, 34).

    A product within 1e-9 below a half counts as the half: 0.7 * 5 is 3.5 to a person, 3.4999999999999996 to a float.
    """
    if not 0.0 <= rho <= 1.0 or keep < 1:
        raise ValueError(f"split_budget needs 0 <= rho <= 1 and keep >= 1, got rho = {rho}, keep = {keep}")
    return min(keep, math.floor(rho * keep + 0.5 + 1e-9))


def cosine_gram(features: Tensor) -> Tensor:
    """Return all pairwise cosines ``G = U U^T``.

    Args:
        features: (B, N, D), finite; half precision is lifted to float32 first.

    Returns:
        (B, N, N), float64 for float64 input and float32 otherwise. Rows of a zero-norm token are 0.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    norm = wide.norm(dim=-1, keepdim=True)
    units = torch.where(norm > 0, wide / norm.clamp_min(torch.finfo(wide.dtype).tiny), 0.0)
    return units @ units.transpose(-1, -2)


def select(
    saliency: Tensor,
    gram: Tensor,
    keep: int,
    pivots: Sequence[int],
    *,
    iterations: int = ITERATIONS,
    tie_tolerance: float = TIE_TOLERANCE,
) -> Selection:
    """Keep exactly ``keep`` tokens per sample: the most salient ones, then medoids of the least redundant rest.

    Args:
        saliency: (B, N), finite.
        gram: (B, N, N), cosines from :func:`cosine_gram`.
        keep: R, tokens to keep; all tokens are kept where ``keep >= N``.
        pivots: M_att per sample, from :func:`split_budget`.
        iterations: rounds of spherical k-means.
        tie_tolerance: see :data:`TIE_TOLERANCE`.

    Returns:
        The kept set in original order, R = min(keep, N).

    Raises:
        ValueError: shapes or counts that do not fit.
    """
    rows, tokens = saliency.shape
    if gram.shape != (rows, tokens, tokens) or len(pivots) != rows:
        raise ValueError(
            f"select: saliency is (B, N) = {tuple(saliency.shape)}, gram is {tuple(gram.shape)}, "
            f"{len(pivots)} pivot counts"
        )
    if keep < 1 or any(not 0 <= count <= keep for count in pivots):
        raise ValueError(f"select: keep = {keep} needs pivot counts in 0..{keep}, got {list(pivots)}")
    if keep >= tokens:
        everything = torch.arange(tokens, device=saliency.device).expand(rows, tokens)
        return Selection(everything, torch.zeros_like(everything, dtype=torch.bool))

    counts = torch.tensor(pivots, device=saliency.device)[:, None]
    is_pivot = _rank(-saliency) < counts
    redundancy = _redundancy(gram, is_pivot)
    slots = keep - min(pivots)
    if slots == 0:
        chosen = is_pivot
    else:
        medoid = _completion(saliency, gram, ~is_pivot, redundancy, keep - counts, slots, iterations, tie_tolerance)
        chosen = _fill(is_pivot | medoid, redundancy, keep)
    kept = torch.sort((~chosen).to(torch.uint8), dim=1, stable=True).indices[:, :keep]
    return Selection(kept, is_pivot.gather(1, kept))


def _rank(values: Tensor) -> Tensor:
    """Rank of every entry in its row, 0 for the smallest; ties go to the lowest index. (B, N) -> (B, N) int64."""
    order = torch.sort(values, dim=1, stable=True).indices
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _redundancy(gram: Tensor, is_pivot: Tensor) -> Tensor:
    """``r_i = max over pivots j of G_ij``; without pivots the mean cosine to all tokens (Eq. 13). -> (B, N)."""
    nearest = gram.masked_fill(~is_pivot[:, None, :], -torch.inf).amax(dim=2)
    return torch.where(is_pivot.any(dim=1, keepdim=True), nearest, gram.mean(dim=2))


def _completion(
    saliency: Tensor,
    gram: Tensor,
    pool: Tensor,
    redundancy: Tensor,
    wanted: Tensor,
    slots: int,
    iterations: int,
    tie_tolerance: float,
) -> Tensor:
    """Medoids of spherical k-means over the pool (Eq. 14-17, 36-41).

    ``wanted`` (B, 1) is M_sim per sample, ``slots`` the largest of them; slots beyond a sample's own are shut.
    Returns (B, N) bool. A cluster that ends empty yields no medoid: the caller fills its slot.
    """
    rows, tokens = saliency.shape
    seeds = torch.sort(redundancy.masked_fill(~pool, torch.inf), dim=1, stable=True).indices[:, :slots]
    shut = torch.arange(slots, device=saliency.device) >= wanted
    # similarity[i, m] = <u_i, s_m> for the cluster sum s_m; at first s_m is the seed itself.
    similarity = gram.gather(2, seeds[:, None, :].expand(rows, tokens, slots))
    square = gram.diagonal(dim1=1, dim2=2).gather(1, seeds)
    member = torch.zeros_like(similarity)
    for _ in range(iterations):
        owner = _cosine(similarity, square).masked_fill(shut[:, None, :], -torch.inf).argmax(dim=2, keepdim=True)
        member = torch.zeros_like(similarity).scatter_(2, owner, 1.0) * (pool[:, :, None] & ~shut[:, None, :])
        sums = gram @ member
        sum_square = (sums * member).sum(dim=1)
        moved = (member.sum(dim=1) > 0) & (sum_square > tie_tolerance)
        similarity = torch.where(moved[:, None, :], sums, similarity)
        square = torch.where(moved, sum_square, square)
    return _medoids(saliency, _cosine(similarity, square), member > 0, tie_tolerance)


def _cosine(similarity: Tensor, square: Tensor) -> Tensor:
    """``<u_i, c_m>`` from sums and their squared norms; 0 for a centre without direction. -> (B, N, K)."""
    norm = square.clamp_min(0).sqrt()
    return torch.where(norm > 0, 1 / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0)[:, None, :] * similarity


def _medoids(saliency: Tensor, cosine: Tensor, member: Tensor, tie_tolerance: float) -> Tensor:
    """The member nearest its centre, per cluster; near-ties go to saliency, then to the lowest index. -> (B, N)."""
    own = cosine.masked_fill(~member, -torch.inf)
    near = own >= own.amax(dim=1, keepdim=True) - tie_tolerance
    weight = saliency[:, :, None].expand_as(own).masked_fill(~(near & member), -torch.inf)
    first = weight.argmax(dim=1)
    filled = member.any(dim=1)
    return (
        torch.zeros_like(member[:, :, 0], dtype=torch.uint8).scatter_reduce_(
            1, first, filled.to(torch.uint8), reduce="amax"
        )
        > 0
    )


def _fill(chosen: Tensor, redundancy: Tensor, keep: int) -> Tensor:
    """Give every slot left empty to the unselected token of smallest redundancy. -> (B, N) with ``keep`` True."""
    spare = _rank(redundancy.masked_fill(chosen, torch.inf))
    missing = keep - chosen.sum(dim=1, keepdim=True)
    return chosen | (spare < missing)
