"""Which class gets which budget: against every allocation there is."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.calib.allocation import allocate

scores = st.one_of(st.none(), st.integers(0, 20).map(lambda found: found / 20), st.floats(0, 1))


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[list[float | None]], list[int]]:
    """Up to six classes by four budgets; some budgets cannot be had."""
    budgets = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(scores, min_size=budgets, max_size=budgets), min_size=1, max_size=6))
    costs = draw(st.lists(st.integers(1, 12), min_size=budgets, max_size=budgets))
    return [[row[0] if row[0] is not None else 0.5, *row[1:]] for row in rows], costs


def total(rows: list[list[float | None]], choice: tuple[int, ...]) -> int | None:
    """Summed score in the solver's unit; None where a class cannot have its budget."""
    values = [row[budget] for row, budget in zip(rows, choice, strict=True)]
    return None if None in values else sum(round(value * 10**9) for value in values if value is not None)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_nothing_that_can_be_afforded_is_better(problem: tuple[list[list[float | None]], list[int]]) -> None:
    """Equal to plain enumeration in score, within the limit, and of equals none moves fewer classes."""
    rows, costs = problem
    found = allocate(rows, costs)
    limit = len(rows) * costs[0]
    assert sum(costs[budget] for budget in found) <= limit
    best = max(
        (score, -sum(budget > 0 for budget in choice))
        for choice in product(range(len(costs)), repeat=len(rows))
        if sum(costs[budget] for budget in choice) <= limit and (score := total(rows, choice)) is not None
    )
    assert (total(rows, found), -sum(budget > 0 for budget in found)) == best
    assert allocate(rows, costs) == found


def test_compute_goes_where_it_helps() -> None:
    """One class needs tokens, one does not: the second pays for the first, and no more than it costs."""
    assert allocate([[0.5, 0.9, 0.2], [0.8, 0.8, 0.8], [0.7, 0.71, 0.3]], [10, 14, 6]) == (1, 2, 0)
    assert allocate([[0.5, 0.9], [0.8, 0.8]], [10, 14]) == (0, 0)


@pytest.mark.parametrize("classes", [1, 2, 9, 26])
def test_a_tie_is_one_budget_for_all(classes: int) -> None:
    """Where nothing is better than the first budget, nobody moves, however cheap the others are."""
    assert allocate([[0.7, 0.7, 0.7]] * classes, [10, 14, 6]) == (0,) * classes
    assert allocate([[0.1 + 0.2, 0.3, 0.3]] * classes, [10, 10, 6]) == (0,) * classes


def test_many_classes_and_budgets_are_no_matter() -> None:
    """26 classes and 6 budgets, with costs of real size: exact sums, and the limit holds to the last operation."""
    costs = [428313600, 478694912, 377242368, 450000001, 399999999, 700000003]
    rows: list[list[float | None]] = [
        [0.5 + 0.01 * ((7 * number + 3 * budget) % 11) for budget in range(6)] for number in range(26)
    ]
    found = allocate(rows, costs)
    assert sum(costs[budget] for budget in found) <= 26 * costs[0]
    gained, before = total(rows, found), total(rows, (0,) * 26)
    assert gained is not None
    assert before is not None
    assert gained > before
