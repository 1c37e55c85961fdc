"""Schedules: the published lists, their scaling, their means and their cost."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.profiles.budget import (
    BEFORE_DECODER,
    LISTS,
    MAX_STAGES,
    Budget,
    Stage,
    allowed_budgets,
    budget_floor,
    explicit_budget,
    keep_for,
    make_budget,
    mean_tokens,
    prunes_before_decoder,
    round_half_up,
    stage_layers,
    tokens_entering,
    tokens_leaving,
)
from claspkit.profiles.errors import UsageError


def keeps(nominal: int, tokens: int, depth: int, schedule: str = "plain") -> tuple[int, ...]:
    return tuple(stage.keep for stage in make_budget(nominal, tokens, depth, schedule).stages)


@pytest.mark.parametrize(
    ("depth", "layers"), [(32, (2, 6, 15)), (40, (3, 8, 19)), (28, (2, 5, 13)), (8, (1, 2, 4)), (5, (1, 2, 3))]
)
def test_stage_layers(depth: int, layers: tuple[int, ...]) -> None:
    """Layers 2, 6 and 15 of 32 at other depths, rounded half up and all different."""
    assert stage_layers(depth) == layers


def test_lists_at_their_own_size() -> None:
    """The published numbers for 576 tokens and 32 layers."""
    assert [keeps(n, 576, 32) for n in (192, 128, 64)] == [(300, 200, 118), (238, 108, 60), (66, 34, 20)]
    assert [keeps(n, 576, 32, "recycled") for n in (192, 128, 64)] == [(300, 200, 110), (303, 110, 36), (66, 30, 17)]


def test_lists_scaled() -> None:
    """Other sizes in proportion; off by one in the nominal takes the same list."""
    assert keeps(16, 144, 8) == (17, 9, 5)
    assert keeps(640, 2880, 32) == (1190, 540, 300)
    assert keeps(320, 2880, 32) == (330, 170, 100)
    assert keeps(191, 576, 32) == keeps(193, 576, 32) == keeps(192, 576, 32)
    assert make_budget(193, 576, 32).nominal == 193


def test_only_the_plain_lists_average_to_their_nominal() -> None:
    """Within 3 % for the plain lists; the recycled one falls short."""
    for nominal in (192, 128, 64):
        assert make_budget(nominal, 576, 32).mean_leaving == pytest.approx(nominal, rel=0.03)
    budget = make_budget(192, 576, 32)
    assert (budget.mean_leaving, budget.mean_entering) == (6158 / 32, (6158 + 576 - 118) / 32)
    assert make_budget(192, 576, 32, "recycled").mean_leaving == pytest.approx(188.2, abs=0.05)
    assert make_budget(192, 576, 32, "recycled").mean_entering == 202.75


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((160, 2880, 32), "160 of 2880 .* alone average to 180. .*181 to 2880 .*960, 640, 320.*before:160"),
        ((180, 2880, 32), "alone average to 180"),
        ((32, 576, 32), "alone average to 36. .*37 to 576 .*192, 128, 64.*2:288.*before:32"),
        ((36, 576, 32, "interpolated"), "alone average to 36"),
        ((100, 576, 32, "recycled"), "'recycled' has only 192, 128, 64, and schedule 'plain' any other"),
        ((0, 576, 32), "a number of those tokens"),
        ((-64, 576, 32), "a number of those tokens"),
        ((600, 576, 32), "37 to 576"),
        ((192, 576, 4), "too shallow"),
        ((192, 576, 32, "clever"), "plain, recycled, interpolated"),
    ],
)
def test_what_cannot_be_is_refused_with_the_choice(arguments: tuple[int, int, int], says: str) -> None:
    """Below the floor, above everything, a list that has no such budget: the text says what can be had."""
    with pytest.raises(UsageError, match=says):
        make_budget(*arguments)


@settings(max_examples=50)
@given(st.integers(9, 5000), st.integers(5, 100), st.sampled_from(sorted(LISTS)), st.integers(0, 2))
def test_every_scaled_list_is_runnable(tokens: int, depth: int, schedule: str, which: int) -> None:
    """Any size and depth: ascending layers, shrinking tokens, means in order."""
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


def anchors(tokens: int, depth: int) -> list[Budget]:
    """The published lists of these sizes, smallest first."""
    return [make_budget(nominal, tokens, depth) for nominal in sorted(allowed_budgets(tokens))]


@settings(max_examples=200)
@given(st.integers(64, 5000), st.integers(5, 100), st.data())
def test_any_budget_above_the_floor_is_met(tokens: int, depth: int, data: st.DataObject) -> None:
    """A schedule made between the lists runs, and its mean of leaving tokens is the nominal to within one."""
    nominal = data.draw(st.integers(budget_floor(tokens, depth) + 1, tokens))
    budget = make_budget(nominal, tokens, depth, "interpolated")
    kept = [stage.keep for stage in budget.stages]
    assert (budget.nominal, budget.schedule) == (nominal, "interpolated")
    assert [stage.after_layer for stage in budget.stages] == list(stage_layers(depth))
    assert tokens >= kept[0] >= kept[1] >= kept[2] >= 1
    assert explicit_budget(budget.stages, tokens, depth).stages == budget.stages
    assert abs(budget.mean_leaving - nominal) <= 1


@settings(max_examples=100)
@given(st.integers(64, 5000), st.integers(5, 100), st.data())
def test_more_budget_never_keeps_less(tokens: int, depth: int, data: st.DataObject) -> None:
    """Interpolated schedules grow with their nominal, stage by stage, and lie between the lists around them."""
    nominal = data.draw(st.integers(budget_floor(tokens, depth) + 1, tokens - 1))
    less, more = (
        [stage.keep for stage in make_budget(n, tokens, depth, "interpolated").stages] for n in (nominal, nominal + 1)
    )
    assert all(a <= b for a, b in zip(less, more, strict=True))
    for listed in anchors(tokens, depth):
        kept = [stage.keep for stage in listed.stages]
        if listed.mean_leaving <= nominal - 1:
            assert all(a <= b + 1 for a, b in zip(kept, less, strict=True))
        if listed.mean_leaving >= nominal + 1:
            assert all(a + 1 >= b for a, b in zip(kept, less, strict=True))


def test_interpolated_schedules_by_hand() -> None:
    """Half way between two lists, everything, and the least there is."""
    # Means of the lists: (576 * 2 + 4 * 300 + 9 * 200 + 17 * 118) / 32 = 192.4375, and 128.03125 for 238/108/60.
    # 160 lies (160 - 128.03125) / 64.40625 = 0.49636 of the way: 268.77, 153.67, 88.79.
    assert keeps(160, 576, 32) == (269, 154, 89)
    assert make_budget(160, 576, 32).schedule == "interpolated"
    assert keeps(576, 576, 32) == (576, 576, 576)
    assert keeps(37, 576, 32) == (1, 1, 1)
    assert make_budget(192, 576, 32).schedule == "plain"
    assert make_budget(192, 576, 32, "interpolated").mean_leaving == pytest.approx(192, abs=0.5)
    assert budget_floor(576, 32) == 36
    assert budget_floor(2880, 32) == 180


def test_thirteen_billion_take_their_own_layers() -> None:
    """40 layers: the stages stand after 2.5, 7.5 and 18.75 rounded half up."""
    stages = make_budget(192, 576, 40).stages
    assert [(stage.after_layer, stage.keep) for stage in stages] == [(3, 300), (8, 200), (19, 118)]


@pytest.mark.parametrize("tokens", range(2, 9))
def test_few_tokens_have_schedules_too(tokens: int) -> None:
    """Below nine tokens no list applies; what lies above the floor is still met."""
    for nominal in range(budget_floor(tokens, 32) + 1, tokens + 1):
        budget = make_budget(nominal, tokens, 32)
        assert budget.schedule == "interpolated"
        assert abs(budget.mean_leaving - nominal) <= 1


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
        ([(2, 5), (BEFORE_DECODER, 4)], "stages 2:5 before:4: .* must be the first"),
        ([(BEFORE_DECODER, 5), (BEFORE_DECODER, 4)], "must be the first"),
        ([(BEFORE_DECODER, 5), (0, 4)], "must be larger than 0"),
        ([(BEFORE_DECODER, 577)], "577 tokens cannot be kept"),
        ([(BEFORE_DECODER, 5), (2, 6)], "6 tokens cannot be kept of the 5"),
    ],
)
def test_stages_that_cannot_run_are_refused(stages: list[tuple[int, int]], says: str) -> None:
    """Too many, out of order, beyond the decoder, growing."""
    with pytest.raises(UsageError, match=says):
        explicit_budget([Stage(*stage) for stage in stages], 576, 32)


def test_impossible_stages_cannot_be_made() -> None:
    """Layers below -1 and stages that keep nothing."""
    for layer, keep in ((-2, 5), (1, 0), (BEFORE_DECODER, 0)):
        with pytest.raises(UsageError, match="impossible"):
            Stage(layer, keep)


def test_an_explicit_budget_is_named_after_its_mean() -> None:
    """Nominal and both means of one stage, by hand."""
    budget = explicit_budget([Stage(2, 100)], 200, 10)
    assert (budget.nominal, budget.schedule) == (120, "explicit")
    assert budget.mean_leaving == 120.0
    assert budget.mean_entering == 130.0
    assert tokens_entering(budget.stages, 200, 10) == [200] * 3 + [100] * 7
    assert mean_tokens([], 200, 10) == 200.0


def test_rounding_is_half_up() -> None:
    """Also where Python itself would round to even."""
    assert [round_half_up(Fraction(number, 2)) for number in (1, 3, 4, 5, 33)] == [1, 2, 2, 3, 17]


def test_a_stage_before_the_decoder_prunes_every_layer() -> None:
    """All layers see what it keeps, so the two ways of counting agree; later stages may follow."""
    alone = explicit_budget([Stage(BEFORE_DECODER, 192)], 576, 32)
    assert (alone.nominal, alone.mean_leaving, alone.mean_entering) == (192, 192.0, 192.0)
    assert prunes_before_decoder(alone.stages)
    both = [Stage(BEFORE_DECODER, 100), Stage(1, 40)]
    assert tokens_entering(both, 200, 4) == [100, 100, 40, 40]
    assert tokens_leaving(both, 200, 4) == [100, 40, 40, 40]
    assert explicit_budget(both, 200, 4).mean_leaving == 55.0
    assert not prunes_before_decoder([Stage(1, 40)])


def test_stages_are_told_as_they_are_asked_for() -> None:
    """The command line's form, and words."""
    before, after = Stage(BEFORE_DECODER, 192), Stage(2, 300)
    assert [str(before), str(after)] == ["before:192", "2:300"]
    assert [before.place, after.place] == ["before the decoder", "after layer 2"]


@pytest.mark.parametrize(
    ("keep", "tokens", "pictures", "absolute", "share"),
    [
        (192, 576, 1, 192, 192),
        (192, 1152, 2, 384, 384),  # two reference pictures
        (192, 288, 1, 192, 96),  # half a picture: the number, or the third
        (192, 100, 1, 100, 33),
        (192, 1728, 1, 192, 576),
        (100, 3, 1, 3, 1),  # 0.52 of a token
        (1, 100, 1, 1, 1),  # 0.17 of a token: one is kept
        (144, 2, 1, 2, 1),  # exactly half a token, rounded up
        (144, 6, 1, 6, 2),  # one and a half
        (576, 33, 1, 33, 33),
        (192, 0, 0, 0, 0),  # a prompt without pictures
    ],
)
def test_what_a_stage_keeps_of_a_prompt(keep: int, tokens: int, pictures: int, absolute: int, share: int) -> None:
    """By hand, for a reference picture of 576 tokens."""
    assert keep_for(keep, tokens, pictures, 576, "absolute") == absolute
    assert keep_for(keep, tokens, pictures, 576, "share") == share
    with pytest.raises(UsageError, match="absolute, share"):
        keep_for(keep, tokens, pictures, 576, "relative")


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 20), st.integers(1, 5000))
def test_kept_counts_are_exact_and_legal(keep: int, tokens: int, pictures: int, reference: int) -> None:
    """A share is the exact quotient rounded half up; both keep at least one of what there is and never more."""
    for scaling in ("absolute", "share"):
        assert 1 <= keep_for(keep, tokens, pictures, reference, scaling) <= tokens
    exact = round_half_up(Fraction(keep * tokens, reference))
    assert keep_for(keep, tokens, pictures, reference, "share") == min(tokens, max(1, exact))
