"""The discrete space: what is in it for any tower, and that its digest sees every change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claspkit.calib.space import DEFAULT_RHO, RHO_GRID, make_space
from claspkit.profiles.errors import UsageError


@given(st.integers(1, 60))
def test_every_depth_gives_the_same_named_prototypes(default_layer: int) -> None:
    """Five names, layers inside the tower's used part, weights on the simplex, the model's own layer everywhere."""
    space = make_space(default_layer)
    assert [p.name for p in space.prototypes] == ["default", "deep", "middle", "shallow", "hybrid"]
    for prototype in space.prototypes:
        assert prototype.layers == tuple(sorted(set(prototype.layers)))
        assert 0 <= prototype.layers[0] <= prototype.layers[-1] == default_layer
        assert sum(prototype.weights) == pytest.approx(1)


def test_llava_has_three_to_four_layers_over_the_depth() -> None:
    """LLaVA-1.5 reads layer 23 of 24: the supports that its depth gives."""
    layers = {p.name: p.layers for p in make_space(23).prototypes}
    assert layers == {
        "default": (23,),
        "deep": (17, 20, 23),
        "middle": (6, 12, 17, 23),
        "shallow": (3, 6, 12, 23),
        "hybrid": (3, 12, 23),
    }


def test_candidates_start_with_the_default_and_hold_it_once() -> None:
    """The whole grid, the default configuration first: ties go to it."""
    space = make_space(7)
    ids = [candidate.id for candidate in space.candidates]
    assert ids[0] == f"default/{DEFAULT_RHO:g}"
    assert len(ids) == len(set(ids)) == 5 * len(RHO_GRID)
    assert all(space.find(name).id == name for name in ids)


@pytest.mark.parametrize("rho", [0.3333333, 1 / 3])
def test_a_split_that_a_name_cannot_hold_is_refused(rho: float) -> None:
    """Two such would share a name, and with it their scores."""
    with pytest.raises(UsageError, match=f"--rho {rho!r}: .* take 0.333333"):
        make_space(7, (0.5, rho))
    assert make_space(7, (0.333333,)).candidates[1].rho == 0.333333


def test_digest_sees_every_change() -> None:
    """Another depth or grid is another space."""
    assert make_space(7).sha256 == make_space(7).sha256
    assert len({make_space(7).sha256, make_space(8).sha256, make_space(7, (0.5,)).sha256}) == 3
