"""What routing errors cost, as arithmetic: known answers, properties, and the expectation worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claspkit.calib.study_policy import (
    FEWEST,
    Grid,
    cost,
    draw,
    forced_default,
    hit_order,
    random_errors,
    rerouted,
    scored,
    wrong_classes,
)

SHARES = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.4, 0.5, 1.0])


def make_grid(samples: int, classes: int, seed: int = 0, own: bool = True) -> Grid:
    """Random scores of samples in random classes; with ``own``, each class has a configuration to itself."""
    random = np.random.default_rng(seed)
    columns = np.arange(classes) if own else np.zeros(classes, dtype=np.int64)
    return Grid(
        uids=[f"{number:016x}" for number in range(samples)],
        pictures=[f"picture {number // 3}" for number in range(samples)],
        truth=random.integers(0, classes, samples),
        columns=columns,
        scores=random.random((samples, int(columns.max()) + 1)),
        default=classes - 1,
    )


grids = st.builds(make_grid, st.integers(1, 60), st.integers(FEWEST, 9), st.integers(0, 99))


def test_known_answer() -> None:
    """Four samples, three classes, by hand: all to the default, and everyone to the one wrong class there is."""
    scores = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.25, 0.0, 1.0], [1.0, 1.0, 0.0]])
    grid = Grid(["a", "b", "c", "d"], ["p", "p", "q", "q"], np.array([0, 1, 2, 0]), np.arange(3), scores, 2)
    assert scored(grid, grid.truth).tolist() == [1.0, 1.0, 1.0, 1.0]
    everywhere = cost(grid, forced_default(grid, [draw(grid, 0)], 1.0), 0)
    assert (everywhere.score, everywhere.difference, everywhere.changed) == (0.375, -0.625, 0.75)
    assert everywhere.deviation is None
    wrong = random_errors(grid, [draw(grid, 0)], 1.0)[0]
    assert wrong[[0, 1, 3]].tolist() == [1, 0, 1]  # of two classes beside the default, the other one
    assert wrong[2] in (0, 1)


def test_classes_that_share_a_configuration_cost_nothing() -> None:
    """Another class, the same configuration: changed, not moved, and no difference at all."""
    grid = make_grid(50, 5, own=False)
    found = cost(grid, random_errors(grid, [draw(grid, seed) for seed in range(3)], 0.4), 0)
    assert found.changed == pytest.approx(0.4)
    assert (found.moved, found.difference, found.ci_low, found.ci_high, found.deviation) == (0, 0, 0, 0, 0)


@given(grids)
def test_without_errors_it_is_the_reference(grid: Grid) -> None:
    """A share of 0 leaves every class, under both kinds of error."""
    draws = [draw(grid, seed) for seed in range(2)]
    for routed in (*forced_default(grid, draws, 0), *random_errors(grid, draws, 0)):
        assert (routed == grid.truth).all()
    found = cost(grid, random_errors(grid, draws, 0), 0)
    assert found.score == pytest.approx(float(scored(grid, grid.truth).mean()))
    assert (found.changed, found.moved, found.difference, found.ci_low, found.ci_high) == (0, 0, 0, 0, 0)


@given(grids)
def test_default_for_all_is_the_default_configuration(grid: Grid) -> None:
    """A share of 1: every sample has the default's column."""
    (routed,) = forced_default(grid, [draw(grid, 0)], 1)
    assert (scored(grid, routed) == grid.scores[:, grid.columns[grid.default]]).all()


@given(grids, st.integers(0, 99))
def test_a_wrong_class_is_wrong_and_not_the_default(grid: Grid, seed: int) -> None:
    """Never the sample's own, never the default, always one there is."""
    wrong = wrong_classes(grid.uids, grid.truth, len(grid.columns), grid.default, seed)
    assert not (wrong == grid.truth).any()
    assert not (wrong == grid.default).any()
    assert ((wrong >= 0) & (wrong < len(grid.columns))).all()


@given(grids, SHARES, st.integers(0, 9))
def test_shares_are_exact_up_to_rounding(grid: Grid, share: float, seed: int) -> None:
    """As many samples are hit as the share says, and a wrong class changes each of them."""
    (routed,) = random_errors(grid, [draw(grid, seed)], share)
    assert abs(int((routed != grid.truth).sum()) - share * len(grid.uids)) <= 0.5
    hits = rerouted(np.zeros_like(grid.truth), hit_order(grid.uids, seed), share, 1)
    assert int(hits.sum()) == int((routed != grid.truth).sum())


@given(grids, st.integers(0, 9))
def test_larger_shares_add_samples(grid: Grid, seed: int) -> None:
    """Who is hit at 10 % is hit at 40 %, by the same class."""
    (few,), (many,) = (random_errors(grid, [draw(grid, seed)], share) for share in (0.1, 0.4))
    hit = few != grid.truth
    assert (many[hit] == few[hit]).all()


def test_a_seed_decides_everything() -> None:
    """The same seed twice is the same draw; another one hits others, with other classes."""
    grid = make_grid(200, 9)
    first, again, other = (draw(grid, seed) for seed in (4, 4, 5))
    assert first.wrong is not None
    assert again.wrong is not None
    assert other.wrong is not None
    assert (first.order == again.order).all()
    assert (first.wrong == again.wrong).all()
    assert (first.order != other.order).any()
    assert (first.wrong != other.wrong).any()


def test_who_is_hit_does_not_depend_on_the_order_of_samples() -> None:
    """Samples in reverse: the same uids come first."""
    uids = [f"{number:016x}" for number in range(50)]
    backwards = uids[::-1]
    assert [uids[n] for n in hit_order(uids, 1)] == [backwards[n] for n in hit_order(backwards, 1)]


def test_the_mean_over_seeds_is_the_expectation() -> None:
    """Both costs are linear in the share; many seeds come near what that gives, within four standard errors."""
    grid, share = make_grid(60, 5), 0.4  # 24 samples, no rounding
    draws = [draw(grid, seed) for seed in range(400)]
    rows, own = np.arange(60), scored(grid, grid.truth)
    others = [
        grid.scores[row, [c for c in range(5) if c not in (grid.truth[row], grid.default)]].mean() for row in rows
    ]
    for routed, instead in (
        (forced_default(grid, draws, share), grid.scores[:, grid.default]),
        (random_errors(grid, draws, share), np.array(others)),
    ):
        found = cost(grid, routed, 0)
        assert found.deviation is not None
        expected = float((own + share * (instead - own)).mean())
        assert abs(found.score - expected) < 4 * found.deviation / 20  # the root of 400


def test_too_few_classes_have_no_wrong_one() -> None:
    """Two classes, one of them the default: refused when asked for, left out of a draw."""
    grid = make_grid(10, 2)
    with pytest.raises(ValueError, match="3 classes"):
        wrong_classes(grid.uids, grid.truth, 2, grid.default, 0)
    assert random_errors(grid, [draw(grid, 0)], 0.4) == []
