"""What a run's results took, against what they take without sharing and without stopping early."""

from __future__ import annotations

from typing import Any

from .ledger import UNPRUNED, Ledger


def decoder_costs(ledger: Ledger, exhaustive: int) -> dict[str, Any]:
    """The decoder's part, as JSON for the summary.

    Args:
        ledger: all results; those of an older release carry no costs and count as nothing.
        exhaustive: candidate evaluations of an exhaustive search alone.

    Returns:
        FLOPs, token-layers (tokens through decoder layers) and bytes of features read. ``alone`` is the same results
        one prompt at a time, token by token; ``exhaustive_alone`` extrapolates that to every candidate on every search
        sample, by the mean of the pruned evaluations. ``drafted`` counts answers confirmed without a decoding step.
    """
    cost = ledger.cost
    pruned = [entry for entry in ledger.entries() if entry.candidate != UNPRUNED]
    evaluations = sum(len(entry.scores) for entry in pruned)
    alone = sum(entry.cost.flops_alone for entry in pruned)
    return {
        "flops": cost.flops,
        "flops_alone": cost.flops_alone,
        "flops_exhaustive_alone": alone / evaluations * exhaustive if evaluations else 0.0,
        "token_layers": cost.token_layers,
        "token_layers_alone": cost.token_layers_alone,
        "bytes_read": cost.bytes_read,
        "drafted": cost.drafted,
        "drafted_share": cost.drafted / ledger.evaluations if ledger.evaluations else 0.0,
    }


def show_flops(flops: float) -> str:
    """FLOPs with the prefix that leaves one to three digits before the point."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if flops >= factor:
            return f"{flops / factor:.3g} {prefix}FLOP"
    return f"{flops / 1e6:.3g} MFLOP"
