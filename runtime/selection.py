"""Dual-stage selection of visual tokens: attention pivots, then similarity completion (CLASP Eq. 11-18).

Pure tensor functions, batched over samples that may differ in tokens, in budget and in split. No Python loop over
samples or clusters; the tie rules of ``method.md`` make the result deterministic. Nothing waits for the accelerator
unless a caller asks for the check of the numbers.

Shape alphabet: B samples, N visual tokens still alive, R tokens kept, K cluster slots, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from claspkit.profiles.errors import NotFiniteError

from .clusters import medoids
from .cosines import ITERATIONS, Cosines, GramCosines
from .gram import cosine_gram

__all__ = ["ITERATIONS", "TIE_TOLERANCE", "Selection", "cosine_gram", "select", "split_budget"]

TIE_TOLERANCE = 1e-6
"""Cosines closer than this are equal; also the squared norm under which a cluster sum counts as zero."""


@dataclass(frozen=True)
class Selection:
    """The kept set of one stage.

    Attributes:
        kept: (B, R) int64, indices into the N tokens given, ascending over the real slots, which come first.
        pivot: (B, R) bool, True for attention pivots, False for similarity completion.
        real: (B, R) bool, False in slots that a row with a smaller count leaves unused; ``kept`` holds an index there
            that is valid and means nothing.
        finite: (B,) bool, False where saliency or features held NaN or infinity: the row's kept set means nothing.
            Not looked at, and True, where the batch keeps everything.
    """

    kept: Tensor
    pivot: Tensor
    real: Tensor
    finite: Tensor

    def check(self, what: str) -> None:
        """Wait for the accelerator and refuse rows that are not finite; ``what`` names the data, in the plural.

        Raises:
            NotFiniteError: names the rows.
        """
        if not bool(self.finite.all()):
            rows = ", ".join(str(row) for row, fine in enumerate(self.finite.tolist()) if not fine)
            raise NotFiniteError(
                f"{what} hold NaN, infinity or values that overflow in row {rows} of the batch (counted from 0); no "
                "tokens can be selected from them. Look at that row's picture and prompt; if they are sound, load "
                "the model in bfloat16 or float32"
            )


def split_budget(rho: float, keep: int) -> int:
    """Return M_att, the attention pivots among ``keep`` tokens: ``floor(rho * keep + 1/2)`` (Eq. 11, 34).

    A product within 1e-9 below a half counts as the half: 0.7 * 5 is 3.5 to a person, 3.4999999999999996 to a float.
    """
    if not 0.0 <= rho <= 1.0 or keep < 1:
        raise ValueError(f"split_budget needs 0 <= rho <= 1 and keep >= 1, got rho = {rho}, keep = {keep}")
    return min(keep, math.floor(rho * keep + 0.5 + 1e-9))


def select(
    saliency: Tensor,
    similar: Cosines | Tensor,
    keep: int | Sequence[int],
    pivots: Sequence[int],
    *,
    valid: Tensor | None = None,
    iterations: int = ITERATIONS,
    tie_tolerance: float = TIE_TOLERANCE,
    check: bool = True,
) -> Selection:
    """Keep exactly the budget of every sample: its most salient tokens, then medoids of the least redundant rest.

    Args:
        saliency: (B, N), any floating dtype.
        similar: cosines of the tokens, from :func:`claspkit.runtime.cosines.cosines`, or (B, N, N) from
            :func:`cosine_gram`.
        keep: tokens to keep, one count for all samples or one each (which may be 0); a sample that has no more tokens
            than that keeps all of them.
        pivots: M_att per sample, from :func:`split_budget`.
        valid: (B, N) bool, False for padding: never kept, and without influence on the rest, whatever it holds.
        iterations: rounds of spherical k-means.
        tie_tolerance: see :data:`TIE_TOLERANCE`.
        check: refuse numbers that are not finite, which waits for the accelerator; otherwise the caller does, by
            :meth:`Selection.check`.

    Returns:
        The kept set in original order; R is the largest ``keep``, at most N.

    Raises:
        ValueError: shapes or counts that do not fit.
        NotFiniteError: with ``check``, NaN or infinity.
    """
    rows, tokens = saliency.shape
    keeps = [keep] * rows if isinstance(keep, int) else list(keep)
    _check_shapes(saliency, similar, valid, keeps, pivots)
    if (isinstance(keep, int) and keep < 1) or any(not 0 <= p <= k for p, k in zip(pivots, keeps, strict=True)):
        raise ValueError(f"select: keep = {keep} needs pivot counts in 0..keep for every row, got {list(pivots)}")
    size = min(max(keeps, default=0), tokens)
    if all(count >= tokens for count in keeps):
        return _everything(saliency, valid)

    saliency = saliency.detach() if saliency.dtype == torch.float64 else saliency.detach().float()
    similar = similar if isinstance(similar, Cosines) else _wrap(similar, valid)
    sound = saliency.isfinite() if valid is None else saliency.isfinite() | ~valid
    finite = sound.all(dim=1) & similar.finite
    if valid is not None:
        saliency = saliency.masked_fill(~valid, -torch.inf)
    ranked, is_pivot, target = _choose(saliency, similar, keeps, pivots, valid, iterations, tie_tolerance)
    ranked = ranked[:, :size]
    if target is None:
        kept = ranked.sort(dim=1).values
        pivot, real = is_pivot.gather(1, kept), torch.ones_like(kept, dtype=torch.bool)
    else:
        real = (torch.arange(size, device=saliency.device) < target).expand_as(ranked)
        kept = ranked.masked_fill(~real, tokens).sort(dim=1).values.clamp_max(tokens - 1)
        pivot = is_pivot.gather(1, kept) & real
    found = Selection(kept, pivot, real, finite)
    if check:
        found.check("saliency or features")
    return found


def _choose(
    saliency: Tensor,
    similar: Cosines,
    keeps: Sequence[int],
    pivots: Sequence[int],
    valid: Tensor | None,
    iterations: int,
    tie_tolerance: float,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens, those to keep first (B, N); pivots (B, N) bool; how many are kept (B or 1, 1), None for R of every row.

    Pivots and medoids go before the rest, which stands in order of redundancy: what slots left empty are given to.
    What the host knows shapes the work: counts are host integers, only N_i of padded rows is not.
    """
    tokens, device = saliency.shape[1], saliency.device
    part = [count < tokens for count in keeps]  # rows that may lose tokens, for all the host knows
    heads = [p if open_ else 0 for p, open_ in zip(pivots, part, strict=True)]
    wanted = [k - p if open_ else 0 for k, p, open_ in zip(keeps, pivots, part, strict=True)]
    if valid is None and all(part) and len(set(heads)) == len(set(wanted)) == 1:
        return _choose_alike(saliency, similar, heads[0], wanted[0], iterations, tie_tolerance)
    count, target = _column(heads, device), _column([min(k, tokens) for k in keeps], device)
    open_rows = None if all(part) else _column([int(open_) for open_ in part], device) > 0
    if valid is not None:
        alive = valid.sum(dim=1, keepdim=True)
        open_rows = target < alive
        target = target.minimum(alive)

    order = torch.sort(saliency, dim=1, descending=True, stable=True).indices[:, : max(heads)]
    shown = (torch.arange(order.shape[1], device=device) < count).expand_as(order)
    if open_rows is not None:
        shown = shown & open_rows
    is_pivot = torch.zeros_like(saliency, dtype=torch.bool).scatter_(1, order, shown)
    chosen, redundancy = is_pivot, torch.zeros_like(saliency)
    slots = max(wanted)
    if slots:
        outside = is_pivot if valid is None else is_pivot | ~valid
        redundancy = _redundancy(similar, order, shown, count, heads, wanted, valid)
        by_redundancy = torch.sort(redundancy.masked_fill(outside, torch.inf), dim=1, stable=True).indices
        pool, shut = ~outside, None
        if len({number for number, open_ in zip(wanted, part, strict=True) if open_}) > 1:
            own = _column(wanted, device)
            shut = torch.arange(slots, device=device) >= own
            pool = pool & (own > 0)
        seeds = by_redundancy[:, :slots]
        chosen = chosen | medoids(similar, saliency, pool, seeds, shut, iterations, tie_tolerance)
    if open_rows is not None:
        chosen = torch.where(open_rows, chosen, True if valid is None else valid)
    rank = redundancy.masked_fill(chosen, -torch.inf)
    rank = rank if valid is None else rank.masked_fill(~valid, torch.inf)
    return torch.sort(rank, dim=1, stable=True).indices, is_pivot, target


def _choose_alike(
    saliency: Tensor, similar: Cosines, head: int, wanted: int, iterations: int, tie_tolerance: float
) -> tuple[Tensor, Tensor, None]:
    """:func:`_choose` for rows without padding that all have the same counts: the usual batch, without its masks."""
    order = torch.sort(saliency, dim=1, descending=True, stable=True).indices[:, :head]
    is_pivot = torch.zeros_like(saliency, dtype=torch.bool).scatter_(1, order, True)
    if not wanted:
        return order, is_pivot, None
    redundancy = similar.nearest(order) if head else similar.mean(None)
    seeds = torch.sort(redundancy.masked_fill(is_pivot, torch.inf), dim=1, stable=True).indices[:, :wanted]
    chosen = is_pivot | medoids(similar, saliency, ~is_pivot, seeds, None, iterations, tie_tolerance)
    rank = redundancy.masked_fill(chosen, -torch.inf)
    return torch.sort(rank, dim=1, stable=True).indices, is_pivot, None


def _redundancy(
    similar: Cosines,
    order: Tensor,
    shown: Tensor,
    count: Tensor,
    heads: Sequence[int],
    wanted: Sequence[int],
    valid: Tensor | None,
) -> Tensor:
    """``r_i = max over pivots j of <u_i, u_j>``; without pivots the mean cosine to all tokens (Eq. 13). -> (B, N)."""
    bare = any(number > 0 and not head for number, head in zip(wanted, heads, strict=True))
    if not max(heads):
        return similar.mean(valid)
    # A slot that a row leaves unused repeats the row's first pivot, which cannot change a maximum.
    nearest = similar.nearest(torch.where(shown, order, order[:, :1]))
    return torch.where(count > 0, nearest, similar.mean(valid)) if bare else nearest


def _everything(saliency: Tensor, valid: Tensor | None) -> Selection:
    rows, tokens = saliency.shape
    finite = torch.ones(rows, dtype=torch.bool, device=saliency.device)
    if valid is None:
        everything = torch.arange(tokens, device=saliency.device).expand(rows, tokens)
        real = torch.ones_like(everything, dtype=torch.bool)
    else:
        sorted_ = torch.sort((~valid).to(torch.uint8), dim=1, stable=True)
        everything, real = sorted_.indices, sorted_.values == 0
    return Selection(everything, torch.zeros_like(real), real, finite)


def _wrap(gram: Tensor, valid: Tensor | None) -> GramCosines:
    """A matrix from outside as cosines; what its padding holds is taken out."""
    gram = gram.detach() if gram.dtype == torch.float64 else gram.detach().float()
    if valid is not None:
        gram = torch.where(valid[:, :, None] & valid[:, None, :], gram, 0.0)
    return GramCosines(gram, gram.sum(dim=(1, 2)).isfinite())  # a sum is not finite where a part is not


def _column(counts: Sequence[int], device: torch.device) -> Tensor:
    """Counts as (B, 1) int64, or (1, 1) where all are equal, without waiting for the device."""
    if len(set(counts)) == 1:
        return torch.full((1, 1), counts[0], device=device)
    return torch.tensor(counts)[:, None].to(device, non_blocking=True)


def _check_shapes(
    saliency: Tensor, similar: Cosines | Tensor, valid: Tensor | None, keeps: Sequence[int], pivots: Sequence[int]
) -> None:
    rows, tokens = saliency.shape
    fits = similar.tokens == tokens if isinstance(similar, Cosines) else similar.shape == (rows, tokens, tokens)
    if not fits or len(pivots) != rows or len(keeps) != rows or (valid is not None and valid.shape != (rows, tokens)):
        alike = f"{similar.tokens} tokens" if isinstance(similar, Cosines) else f"{tuple(similar.shape)}"
        raise ValueError(
            f"select: saliency is (B, N) = {(rows, tokens)}, gram is {alike}, {len(keeps)} budgets, {len(pivots)} "
            f"pivot counts, valid is {None if valid is None else tuple(valid.shape)}"
        )
