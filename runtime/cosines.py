"""Cosines between visual tokens in two exact forms: one Gram matrix for all stages, or unit vectors.

Both answer the same three questions (nearest pivot, mean cosine, clusters around seeds), with the same result in exact
arithmetic (``method.md`` section 8). In Gram space a stage costs no O(D) work at all, but the matrix has to pay for
itself; :func:`gram_is_cheaper` is the rule. Nothing here waits for the accelerator.

Shape alphabet: B samples, N visual tokens alive, R tokens kept, K cluster slots, D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .gram import (
    gather_rows,
    gram_matrix,
    membership,
    repeat_rows,
    sums_by_addition,
    sums_by_product,
    symmetric_product,
    unit_vectors,
)

ITERATIONS = 5
"""Rounds of spherical k-means; the best of the paper's ablation over 3, 5, 7, 9 and 11."""


@dataclass(frozen=True)
class StageWork:
    """What one stage has to do, in host integers, of the largest row of the batch.

    Attributes:
        alive: tokens entering.
        keep: tokens kept.
        pivots: attention pivots among them; the smallest count in the batch, which leaves most to completion.
    """

    alive: int
    keep: int
    pivots: int


class Centres(ABC):
    """K cluster centres per sample; each round of k-means makes the next ones."""

    @abstractmethod
    def cosines(self) -> Tensor:
        """Cosine of every token with every centre, (B, K, N); 0 for a centre without direction."""

    @abstractmethod
    def recentred(self, cluster: Tensor, tolerance: float) -> Centres:
        """Centres in the middle of their clusters: (B, N) int64 in 0..K, where K means none.

        A cluster that is empty, or whose sum has a squared norm of at most ``tolerance``, keeps its centre.
        """


class Cosines(ABC):
    """Cosines between the visual tokens alive.

    Attributes:
        tokens: N.
        finite: (B,) bool, False where the row's features held NaN or infinity.
    """

    def __init__(self, tokens: int, finite: Tensor) -> None:
        self.tokens = tokens
        self.finite = finite

    @abstractmethod
    def take(self, kept: Tensor, work: Sequence[StageWork]) -> Cosines:
        """Keep only the survivors (B, R) int64; ``work`` lists the stages still to come, the next one first."""

    @abstractmethod
    def repeated(self, copies: int) -> Cosines:
        """The same cosines for a batch in which these B samples come ``copies`` times, copy after copy."""

    @abstractmethod
    def nearest(self, places: Tensor) -> Tensor:
        """Largest cosine of every token with the tokens at ``places`` (B, P), P >= 1 -> (B, N)."""

    @abstractmethod
    def mean(self, valid: Tensor | None) -> Tensor:
        """Mean cosine of every token with all tokens, or with the valid ones (B, N) bool -> (B, N)."""

    @abstractmethod
    def centres(self, seeds: Tensor) -> Centres:
        """Centres on the tokens ``seeds`` (B, K)."""


class GramCosines(Cosines):
    """All pairwise cosines, (B, N, N), computed once."""

    def __init__(self, gram: Tensor, finite: Tensor) -> None:
        super().__init__(gram.shape[1], finite)
        self.gram = gram

    def take(self, kept: Tensor, work: Sequence[StageWork]) -> GramCosines:
        """Rows and columns of the survivors; the matrix is there, whatever ``work`` is."""
        rows = gather_rows(self.gram, kept)
        return GramCosines(rows.gather(2, kept[:, None, :].expand(-1, kept.shape[1], -1)), self.finite)

    def repeated(self, copies: int) -> GramCosines:
        """The matrix, copied: reading is what it is for."""
        return GramCosines(repeat_rows(self.gram, copies), repeat_rows(self.finite, copies))

    def nearest(self, places: Tensor) -> Tensor:
        """Read from the pivots' rows."""
        return gather_rows(self.gram, places).amax(dim=1)

    def mean(self, valid: Tensor | None) -> Tensor:
        """The mean of every column."""
        if valid is None:
            return self.gram.mean(dim=1)
        return (self.gram * valid[:, :, None]).sum(dim=1) / valid.sum(dim=1, keepdim=True).clamp_min(1)

    def centres(self, seeds: Tensor) -> Centres:
        """The first similarities are the seeds' own rows."""
        # A seed's norm is 1, and one without direction has cosines of 0 whatever they are divided by.
        return _GramCentres(self.gram, gather_rows(self.gram, seeds))


class _GramCentres(Centres):
    """Cluster sums ``s_m``, known only by their cosines ``<u_i, s_m> / |s_m|`` (B, K, N)."""

    def __init__(self, gram: Tensor, cosine: Tensor) -> None:
        self._gram = gram
        self._cosine = cosine

    def cosines(self) -> Tensor:
        return self._cosine

    def recentred(self, cluster: Tensor, tolerance: float) -> Centres:
        clusters = self._cosine.shape[1]
        if self._gram.device.type == "cpu":
            sums = sums_by_addition(self._gram, cluster, clusters)
            inside = sums.gather(1, cluster.clamp_max(clusters - 1)[:, None, :])[:, 0]
            square = sums.new_zeros(sums.shape[0], clusters + 1).scatter_add_(1, cluster, inside)[:, :clusters, None]
            moved = square > tolerance
            # lerp with a weight of 0 or 1 copies one side exactly, several times faster than where.
            sums *= torch.where(moved, square.rsqrt(), 0.0)
            return _GramCentres(self._gram, torch.lerp(self._cosine, sums, moved.to(sums.dtype)))
        member = membership(cluster, clusters, self._gram.dtype)
        sums = sums_by_product(self._gram, member)
        # The diagonal of all products of sums and clusters: more arithmetic than a masked sum, in one launch.
        square = (sums @ member.transpose(1, 2)).diagonal(dim1=1, dim2=2)[:, :, None]
        return _GramCentres(self._gram, torch.where(square > tolerance, sums * square.rsqrt(), self._cosine))


class DirectCosines(Cosines):
    """Unit vectors (B, N, D), from which cosines are computed where they are needed."""

    def __init__(self, units: Tensor, finite: Tensor, iterations: int = ITERATIONS) -> None:
        super().__init__(units.shape[1], finite)
        self.units = units
        self._iterations = iterations

    def take(self, kept: Tensor, work: Sequence[StageWork]) -> Cosines:
        """Vectors of the survivors, or their Gram matrix where that is now cheaper."""
        units = gather_rows(self.units, kept)
        if gram_is_cheaper(units.shape[2], work, self._iterations):
            return GramCosines(symmetric_product(units), self.finite)
        return DirectCosines(units, self.finite, self._iterations)

    def repeated(self, copies: int) -> DirectCosines:
        """The vectors, copied."""
        units, finite = repeat_rows(self.units, copies), repeat_rows(self.finite, copies)
        return DirectCosines(units, finite, self._iterations)

    def nearest(self, places: Tensor) -> Tensor:
        """One product of the pivots with all tokens, 2 N P D."""
        return (gather_rows(self.units, places) @ self.units.transpose(1, 2)).amax(dim=1)

    def mean(self, valid: Tensor | None) -> Tensor:
        """One product with the mean vector, 2 N D."""
        if valid is None:
            middle = self.units.mean(dim=1)
        else:
            middle = (self.units * valid[:, :, None]).sum(dim=1) / valid.sum(dim=1, keepdim=True).clamp_min(1)
        return (self.units @ middle[:, :, None])[:, :, 0]

    def centres(self, seeds: Tensor) -> Centres:
        """The seeds' own vectors."""
        return _DirectCentres(self.units, gather_rows(self.units, seeds))


class _DirectCentres(Centres):
    """Centres as vectors (B, K, D)."""

    def __init__(self, units: Tensor, vectors: Tensor) -> None:
        self._units = units
        self._vectors = vectors

    def cosines(self) -> Tensor:
        return self._vectors @ self._units.transpose(1, 2)

    def recentred(self, cluster: Tensor, tolerance: float) -> Centres:
        clusters = self._vectors.shape[1]
        if self._units.device.type == "cpu":
            sums = sums_by_addition(self._units, cluster, clusters)
        else:
            sums = sums_by_product(self._units, membership(cluster, clusters, self._units.dtype))
        square = sums.square().sum(dim=2, keepdim=True)
        return _DirectCentres(self._units, torch.where(square > tolerance, sums * square.rsqrt(), self._vectors))


def cosines(
    features: Tensor,
    work: Sequence[StageWork],
    valid: Tensor | None = None,
    *,
    iterations: int = ITERATIONS,
    copies: int = 1,
) -> Cosines:
    """Cosines of the visual tokens in the form that is cheaper for the stages to come.

    The first stage at which forming the Gram matrix costs no more than what the stages still to come would spend in
    direct form makes it (2 n^2 D, multiply + add); stages before run direct.

    Args:
        features: (B, N, D), any floating dtype and strides; half precision is lifted to float32.
        work: the stages to come, the next one first.
        valid: (B, N) bool, False for padding, whose features may be anything.
        iterations: rounds of spherical k-means.
        copies: how many times these samples are selected from, in different ways; all of them share one matrix.

    Returns:
        Cosines of copies * B samples, copy after copy.

    Raises:
        ValueError: shapes that do not fit.
    """
    if features.dim() != 3 or (valid is not None and valid.shape != features.shape[:2]):
        raise ValueError(
            f"cosines: features must be (B, N, D) and valid (B, N), got {tuple(features.shape)} and "
            f"{None if valid is None else tuple(valid.shape)}"
        )
    found: Cosines
    if gram_is_cheaper(features.shape[2], work, iterations, copies):
        found = GramCosines(*gram_matrix(features, valid))
    else:
        found = DirectCosines(*unit_vectors(features, valid), iterations)
    return found.repeated(copies)


def gram_is_cheaper(
    width: int, work: Sequence[StageWork], iterations: int = ITERATIONS, copies: int = 1
) -> bool:
    """Whether to form the Gram matrix now: 2 n^2 D is no more than what ``work`` would cost in direct form.

    Direct, a stage of n tokens with p pivots and m completed ones takes 2 n p D for the redundancy, 2 n m D for each of
    T assignments and the medoids, and 2 n D for each of T updates; the mean that stands in for p = 0 costs as much
    as two pivots. A stage that keeps everything, or pivots only, needs no cosines.

    Args:
        width: D.
        work: the stages to come, the next one first; all of them would use this one matrix.
        iterations: T.
        copies: selections that would share the matrix, each costing this in direct form.
    """
    direct = 0
    for stage in work:
        completed = stage.keep - stage.pivots
        if stage.keep < stage.alive and completed > 0:
            products = max(stage.pivots, 2) + (iterations + 1) * completed + iterations
            direct += 2 * copies * stage.alive * products * width
    return direct > 0 and 2 * work[0].alive ** 2 * width <= direct
