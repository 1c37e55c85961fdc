"""Schedules: the published lists, their scaling, their means and their cost."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.profiles.budget import (
    LISTS,
    MAX_STAGES,
    Stage,
    explicit_budget,
    make_budget,
    mean_tokens,
    prefill_flops,
    round_half_up,
    stage_layers,
    tokens_entering,
)
from claspkit.profiles.errors import UsageError

LLAMA_7B = {"text_tokens": 60, "depth": 32, "width": 4096, "ffn": 11008, "heads": 32, "kv_heads": 32, "vocab": 32000}


def keeps(nominal: int, tokens: int, depth: int, schedule: str = "plain") -> tuple[int, ...]:
    return tuple(stage.keep for stage in make_budget(nominal, tokens, depth, schedule).stages)


@pytest.mark.parametrize(
    ("depth", "layers"), [(32, (2, 6, 15)), (40, (3, 8, 19)), (28, (2, 5, 13)), (8, (1, 2, 4)), (5, (1, 2, 3))]
)
def test_stage_layers(depth: int, layers: tuple[int, ...]) -> None:
    assert stage_layers(depth) == layers


def test_lists_at_their_own_size() -> None:
    assert [keeps(n, 576, 32) for n in (192, 128, 64)] == [(300, 200, 118), (238, 108, 60), (66, 34, 20)]
    assert [keeps(n, 576, 32, "recycled") for n in (192, 128, 64)] == [(300, 200, 110), (303, 110, 36), (66, 30, 17)]


def test_lists_scaled() -> None:
    assert keeps(16, 144, 8) == (17, 9, 5)
    assert keeps(640, 2880, 32) == (1190, 540, 300)
    assert keeps(320, 2880, 32) == (330, 170, 100)
    assert keeps(191, 576, 32) == keeps(193, 576, 32) == keeps(192, 576, 32)
    assert make_budget(193, 576, 32).nominal == 193


def test_only_the_plain_lists_average_to_their_nominal() -> None:
    for nominal in (192, 128, 64):
        assert make_budget(nominal, 576, 32).mean_leaving == pytest.approx(nominal, rel=0.03)
    budget = make_budget(192, 576, 32)
    assert (budget.mean_leaving, budget.mean_entering) == (6158 / 32, (6158 + 576 - 118) / 32)
    assert make_budget(192, 576, 32, "recycled").mean_leaving == pytest.approx(188.2, abs=0.05)
    assert make_budget(192, 576, 32, "recycled").mean_entering == 202.75


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((160, 2880, 32), "alone average to 180.*960, 640, 320"),
        ((100, 576, 32), "no published list.*192, 128, 64"),
        ((0, 576, 32), "no published list"),
        ((-64, 576, 32), "no published list"),
        ((600, 576, 32), "no published list"),
        ((2, 6, 32), "your own stages"),
        ((192, 576, 4), "too shallow"),
        ((192, 576, 32, "clever"), "plain, recycled"),
    ],
)
def test_what_no_list_has_is_refused_with_the_choice(arguments: tuple[int, int, int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_budget(*arguments)


@settings(max_examples=50)
@given(st.integers(9, 5000), st.integers(5, 100), st.sampled_from(sorted(LISTS)), st.integers(0, 2))
def test_every_scaled_list_is_runnable(tokens: int, depth: int, schedule: str, which: int) -> None:
    share = sorted(LISTS[schedule])[which]
    budget = make_budget(round_half_up(tokens * share), tokens, depth, schedule)
    layers = [stage.after_layer for stage in budget.stages]
    kept = [stage.keep for stage in budget.stages]
    assert layers == sorted(set(layers))
    assert layers[0] >= 1
    assert layers[-1] <= depth - 2
    assert tokens >= kept[0] >= kept[1] >= kept[2] >= 1
    assert explicit_budget(budget.stages, tokens, depth).stages == budget.stages
    assert 0 < budget.mean_leaving <= budget.mean_entering <= tokens


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "0 stages"),
        ([(layer, 5) for layer in range(1, MAX_STAGES + 2)], "9 stages"),
        ([(0, 5)], "must be larger than 0"),
        ([(2, 5), (2, 4)], "larger than 2"),
        ([(6, 5), (2, 4)], "larger than 6"),
        ([(31, 5)], "at most 30"),
        ([(2, 577)], "577 tokens cannot be kept of the 576"),
        ([(2, 5), (3, 6)], "6 tokens cannot be kept of the 5"),
    ],
)
def test_stages_that_cannot_run_are_refused(stages: list[tuple[int, int]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        explicit_budget([Stage(*stage) for stage in stages], 576, 32)


def test_impossible_stages_cannot_be_made() -> None:
    for layer, keep in ((-1, 5), (1, 0)):
        with pytest.raises(UsageError, match="impossible"):
            Stage(layer, keep)


def test_an_explicit_budget_is_named_after_its_mean() -> None:
    budget = explicit_budget([Stage(2, 100)], 200, 10)
    assert (budget.nominal, budget.schedule) == (120, "explicit")
    assert budget.mean_leaving == 120.0
    assert budget.mean_entering == 130.0
    assert tokens_entering(budget.stages, 200, 10) == [200] * 3 + [100] * 7
    assert mean_tokens([], 200, 10) == 200.0


def test_rounding_is_half_up() -> None:
    assert [round_half_up(Fraction(number, 2)) for number in (1, 3, 4, 5, 33)] == [1, 2, 2, 3, 17]


@pytest.mark.parametrize(("nominal", "tera"), [(192, 3.43), (128, 2.62), (64, 1.81)])
def test_flops_of_a_7b_decoder(nominal: int, tera: float) -> None:
    assert prefill_flops((), 576, **LLAMA_7B) / 1e12 == pytest.approx(8.34, abs=0.005)
    stages = make_budget(nominal, 576, 32, "recycled").stages
    assert prefill_flops(stages, 576, **LLAMA_7B) / 1e12 == pytest.approx(tera, abs=0.005)


def test_flops_of_one_small_layer_by_hand() -> None:
    # 3 tokens, width 4, 2 heads of 2, 1 key-value head, FFN 5: q and o 2*4*4, k and v 2*4*2, FFN 3*4*5; 6 pairs.
    by_hand = 2 * 3 * (32 + 16 + 60) + 2 * 2 * 6 * 4 + 2 * 4 * 7
    assert prefill_flops((), 2, 1, 1, 4, 5, 2, 1, 7) == by_hand
    assert prefill_flops((), 2, 1, 1, 4, 5, 2, 1, 7, head_width=4) > by_hand
