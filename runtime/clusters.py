"""Similarity completion: spherical k-means over the tokens that are no pivots, and the medoid of every cluster.

CLASP Eq. 14-17 and 36-41. The tie rules of ``method.md`` sections 7 and 8 make the result deterministic. There is a
fixed number of rounds, and no loop over samples or clusters.

Shape alphabet: B samples, N visual tokens alive, K cluster slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cosines import Cosines
from .gram import membership


def medoids(
    similar: Cosines,
    saliency: Tensor,
    pool: Tensor,
    seeds: Tensor,
    shut: Tensor | None,
    iterations: int,
    tie_tolerance: float,
) -> Tensor:
    """Cluster the pool around its seeds and return the medoids.

    Args:
        similar: cosines of the N tokens.
        saliency: (B, N), decides between members equally near their centre.
        pool: (B, N) bool, the tokens to cluster.
        seeds: (B, K) int64, the first centres.
        shut: (B, K) bool, slots that the sample does not use; None if all use all.
        iterations: rounds of k-means, at least 0; without any there are no clusters.
        tie_tolerance: cosines closer than this are equal; also the squared norm under which a cluster sum is zero.

    Returns:
        (B, N) bool, one token per cluster that is not empty.
    """
    slots = seeds.shape[1]
    centres = similar.centres(seeds)
    cosine = centres.cosines()
    cluster = torch.full_like(pool, slots, dtype=torch.int64)
    for _ in range(iterations):
        if shut is not None:
            cosine = cosine.masked_fill(shut[:, :, None], -torch.inf)
        cluster = torch.where(pool, cosine.max(dim=1).indices, slots)  # max takes the first of equals
        centres = centres.recentred(cluster, tie_tolerance)
        cosine = centres.cosines()
    if iterations and cosine.device.type != "cpu":
        return _nearest_in_rows(cosine, membership(cluster, slots, torch.bool), saliency, tie_tolerance)
    own = cosine.gather(1, cluster.clamp_max(slots - 1)[:, None, :])[:, 0]
    return _nearest_members(own, saliency, cluster, slots, tie_tolerance)


def _nearest_members(own: Tensor, saliency: Tensor, cluster: Tensor, slots: int, tie_tolerance: float) -> Tensor:
    """The member of largest cosine with its own centre; near-ties go to saliency, then to the lowest index."""
    near = (cluster < slots) & (own >= _best(own, cluster, slots) - tie_tolerance)
    weight = saliency.masked_fill(~near, -torch.inf)
    near &= weight == _best(weight, cluster, slots)
    # The place counted from the end: the largest is the lowest index.
    place = torch.arange(near.shape[1], 0, -1, device=near.device).expand_as(near).masked_fill(~near, 0)
    return near & (place == _best(place, cluster, slots))


def _nearest_in_rows(cosine: Tensor, member: Tensor, saliency: Tensor, tie_tolerance: float) -> Tensor:
    """:func:`_nearest_members` as maxima over rows of (B, K, N): more arithmetic in fewer launches."""
    own = torch.where(member, cosine, -torch.inf)
    best = own.amax(dim=2, keepdim=True)
    # In an empty cluster everything is near, and its pick goes to a column of its own.
    weight = torch.where(own >= best - tie_tolerance, saliency[:, None, :], -torch.inf)
    pick = torch.where(best[:, :, 0] > -torch.inf, weight.max(dim=2).indices, saliency.shape[1])
    found = torch.zeros(len(saliency), saliency.shape[1] + 1, dtype=torch.bool, device=saliency.device)
    return found.scatter_(1, pick, True)[:, :-1]


def _best(values: Tensor, cluster: Tensor, slots: int) -> Tensor:
    """For every token the largest value in its cluster: (B, N), (B, N) in 0..K -> (B, N)."""
    best = values.new_zeros(values.shape[0], slots + 1)
    best = best.scatter_reduce_(1, cluster, values, reduce="amax", include_self=False)
    return best.gather(1, cluster)
