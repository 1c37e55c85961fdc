"""Which class gets which budget: the best mean score for the compute that one budget for all of them would take."""

from __future__ import annotations

from collections.abc import Sequence

_UNIT = 10**9  # scores are compared as whole numbers of this fraction, so that sums are exact and ties are ties

_State = tuple[int, int, tuple[int, ...]]  # score in units, minus the classes moved, the budgets so far


def allocate(scores: Sequence[Sequence[float | None]], costs: Sequence[int]) -> tuple[int, ...]:
    """Give every class a budget so that the summed score is as large as it can be without costing more than before.

    Exact: all sums of costs are gone through class by class, and of every sum the best way to it is kept, unless a
    cheaper one is as good. Ties go to the allocation that moves fewer classes, so that one budget for all wins where
    nothing is better than it.

    Args:
        scores: class by budget, finite; None where a class cannot have that budget. The first budget is what all
            classes have now, so every class has a score there.
        costs: of every budget, the same for every class, > 0.

    Returns:
        per class the number of its budget; the sum of costs is at most that of the first budget for all.
    """
    limit, cheapest = len(scores) * costs[0], min(costs)
    states: dict[int, _State] = {0: (0, 0, ())}
    for number, row in enumerate(scores, 1):
        room = limit - (len(scores) - number) * cheapest
        following: dict[int, _State] = {}
        for spent, (score, moved, choice) in states.items():
            for budget, own in enumerate(row):
                total = spent + costs[budget]
                if own is None or total > room:
                    continue
                state = (score + round(own * _UNIT), moved - (budget > 0), (*choice, budget))
                if total not in following or _rank(state) > _rank(following[total]):
                    following[total] = state
        states = _undominated(following)
    return max(states.values(), key=_rank)[2]


def _undominated(states: dict[int, _State]) -> dict[int, _State]:
    """Those for which no cheaper one is as good."""
    kept: dict[int, _State] = {}
    best: tuple[int, int] | None = None
    for spent in sorted(states):
        value = states[spent][:2]
        if best is None or value > best:
            kept[spent], best = states[spent], value
    return kept


def _rank(state: _State) -> tuple[int, int, tuple[int, ...]]:
    """Larger is better; of equals, the one that gives earlier classes earlier budgets."""
    score, moved, choice = state
    return score, moved, tuple(-budget for budget in choice)
