"""Products that selection is made of: unit vectors, the Gram matrix of cosines, sums of rows per cluster.

The accelerator's forms differ from the processor's where the same arithmetic is fastest in another shape; the tests
hold the two to each other. Nothing here waits for the accelerator.

Shape alphabet: B samples, N visual tokens, K clusters, C columns of what is summed, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BAND = 96  # columns of the symmetric product at once: 7/12 of the full work at N = 576, in blocks still fast
_HALVES = (torch.float16, torch.bfloat16)


def cosine_gram(features: Tensor) -> Tensor:
    """Return all pairwise cosines ``G = U U^T``.

    Args:
        features: (B, N, D), finite; half precision is lifted to float32.

    Returns:
        (B, N, N), float64 for float64 input and float32 otherwise. Rows of a zero-norm token are 0.
    """
    return gram_matrix(features)[0]


def gram_matrix(features: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return all pairwise cosines and where they can be trusted.

    The inner products are taken first and divided by the norms found on their diagonal, which saves two passes over
    the features and lets half precision be multiplied as it is. A token whose squared norm is below the smallest
    normal number has no direction: its cosines are 0.

    Args:
        features: (B, N, D), any floating dtype and strides.
        valid: (B, N) bool, False for padding, whose features may be anything; its cosines are 0.

    Returns:
        (B, N, N) cosines, float64 for float64 input and float32 otherwise, and (B,) bool, False where a valid token
        holds NaN or infinity, or is so long that its squared norm overflows.
    """
    product = _inner(features.detach())
    square = product.diagonal(dim1=1, dim2=2)
    if valid is not None:
        square = torch.where(valid, square, 0.0)
    finite = square.isfinite().all(dim=1)
    inverse = _inverse_root(square)
    product.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])
    if valid is not None:
        product = torch.where(valid[:, :, None] & valid[:, None, :], product, 0.0)
    return product, finite


def unit_vectors(features: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return every token divided by its norm, and where that can be trusted.

    Args:
        features: (B, N, D), any floating dtype and strides.
        valid: (B, N) bool, False for padding, which becomes 0.

    Returns:
        (B, N, D) in float64 for float64 input and float32 otherwise, 0 for a token without direction, and (B,) bool
        as in :func:`gram_matrix`.
    """
    wide = features.detach() if features.dtype == torch.float64 else features.detach().float()
    square = torch.linalg.vector_norm(wide, dim=2).square()
    if valid is not None:
        square = torch.where(valid, square, 0.0)
    units = wide * _inverse_root(square)[:, :, None]
    if valid is not None:
        units = torch.where(valid[:, :, None], units, 0.0)
    return units, square.isfinite().all(dim=1)


def symmetric_product(rows: Tensor) -> Tensor:
    """Return ``X X^T`` of (B, N, D) as (B, N, N).

    On the processor it is built in bands of columns from the diagonal down, each mirrored across it. An accelerator
    does the whole product in one launch.
    """
    batch, tokens, _ = rows.shape
    if rows.device.type != "cpu" or tokens < 2 * _BAND:
        return rows @ rows.transpose(1, 2)
    out = rows.new_empty(batch, tokens, tokens)
    for start in range(0, tokens, _BAND):
        stop = min(start + _BAND, tokens)
        out[:, start:, start:stop] = rows[:, start:] @ rows[:, start:stop].transpose(1, 2)
        out[:, start:stop, stop:] = out[:, stop:, start:stop].transpose(1, 2)
    return out


def sums_by_addition(rows: Tensor, cluster: Tensor, clusters: int) -> Tensor:
    """Sum the rows of every cluster, adding each row to its cluster: N x C additions.

    The processor's form: nine times the speed of :func:`sums_by_product` at N = 576, K = 60 (float32). On an
    accelerator the additions would meet in no fixed order and the last bits would change from run to run.

    Args:
        rows: (B, N, C).
        cluster: (B, N) int64 in 0..K; K means none.
        clusters: K.

    Returns:
        (B, K, C); 0 for an empty cluster.
    """
    batch, tokens, columns = rows.shape
    places = cluster + torch.arange(batch, device=cluster.device)[:, None] * (clusters + 1)
    sums = rows.new_zeros(batch * (clusters + 1), columns)
    sums.index_add_(0, places.reshape(-1), rows.reshape(batch * tokens, columns))
    return sums.view(batch, clusters + 1, columns)[:, :clusters]


def sums_by_product(rows: Tensor, member: Tensor) -> Tensor:
    """Sum the rows of every cluster as a matrix product: the accelerator's form, in the same order in every run.

    Args:
        rows: (B, N, C).
        member: (B, K, N) of the rows' dtype, from :func:`membership`.

    Returns:
        (B, K, C).
    """
    return member @ rows


def membership(cluster: Tensor, clusters: int, dtype: torch.dtype) -> Tensor:
    """One-hot membership (B, K, N) of (B, N) cluster numbers in 0..K, where K means none."""
    batch, tokens = cluster.shape
    member = torch.zeros(batch, clusters + 1, tokens, dtype=dtype, device=cluster.device)
    return member.scatter_(1, cluster[:, None, :], 1)[:, :clusters]


def gather_rows(rows: Tensor, places: Tensor) -> Tensor:
    """Take rows (B, N, C) at (B, R) int64 -> (B, R, C), as whole rows: a copy, where gather would pick elements."""
    batch, tokens, columns = rows.shape
    if batch == 1:
        return rows[0].index_select(0, places[0])[None]
    flat = places + torch.arange(batch, device=places.device)[:, None] * tokens
    return rows.reshape(batch * tokens, columns).index_select(0, flat.reshape(-1)).view(batch, -1, columns)


def repeat_rows(part: Tensor, copies: int) -> Tensor:
    """(B, ...) -> (copies * B, ...), copy after copy; the same tensor for one copy."""
    return torch.cat([part] * copies) if copies > 1 else part


def _inner(features: Tensor) -> Tensor:
    """Inner products (B, N, N), accumulated and returned in float32, float64 for float64 input."""
    if features.dtype in _HALVES and features.is_cuda and torch.version.hip is None:
        # Products of two halves are exact in float32: only the speed differs from lifting first.
        return torch.bmm(features, features.transpose(1, 2), out_dtype=torch.float32)
    return symmetric_product(features if features.dtype == torch.float64 else features.float())


def _inverse_root(square: Tensor) -> Tensor:
    """``1 / sqrt(x)``, and 0 where x is not a normal positive number."""
    return torch.where(square >= torch.finfo(square.dtype).tiny, square.rsqrt(), 0.0)
