"""A run's budgets: each has a space, verdicts and a profile of its own; samples, features and passes are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from claspkit.profiles.budget import Budget

from .search import Verdict
from .space import Candidate, FurtherBudget, Space


@dataclass(frozen=True)
class BudgetResult:
    """What a run found at one of its budgets.

    Attributes:
        budget: the schedule.
        space: the candidates at it.
        verdicts: one per class, corrected by Holm over the classes tested at this budget.
    """

    budget: Budget
    space: Space
    verdicts: Sequence[Verdict]


def budget_spaces(space: Space, budgets: Sequence[Budget]) -> tuple[Space, ...]:
    """The same prototypes and splits at every budget; the candidates of the first one are as in a run without others.

    Args:
        space: of the first budget.
        budgets: at least one; all prune after the same layers.
    """
    others = (FurtherBudget(one.nominal, tuple(stage.keep for stage in one.stages)) for one in budgets[1:])
    return (space, *(replace(space, further=further) for further in others))


def find_candidate(spaces: Sequence[Space], candidate_id: str) -> Candidate:
    """Return the candidate of that id, whichever budget it belongs to; KeyError as of :meth:`Space.find`."""
    for space in spaces:
        try:
            return space.find(candidate_id)
        except KeyError:
            continue
    raise KeyError(candidate_id)
