"""What ``--budget`` and ``--stage`` take, and the budgets they become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claspkit.calib.schedule import describe_budget, parse_nominal, parse_stages, run_budget
from claspkit.profiles.errors import UsageError


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("192", 192),
        (" 192 ", 192),
        ("1", 1),
        ("576", 576),
        ("1/3", 192),
        ("2/9", 128),
        ("0.35", 202),  # 201.6
        ("35%", 202),
        ("35 %", 202),
        ("12.5%", 72),
        ("100%", 576),
        ("1%", 6),  # 5.76
        ("1/3%", 2),  # 1.92
        ("192.0", 192),
    ],
)
def test_nominal_budgets(text: str, tokens: int) -> None:
    """Tokens, fractions, decimals and percent of 576."""
    assert parse_nominal(text, 576) == tokens


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "577", "101%", "0%", "1/0", "1.5", "half", "1e3", "1e999999999", "nan", "٣", "%", "1//3", "5%%"],
)
def test_other_budgets_are_refused(text: str) -> None:
    """Neither a number of tokens nor a share of them, quickly and with the forms there are."""
    with pytest.raises(UsageError, match="--budget"):
        parse_nominal(text, 576)


@given(st.integers(1, 100), st.integers(1, 5000))
def test_percent_is_a_hundredth(percent: int, tokens: int) -> None:
    """``p%`` and ``p/100`` are the same share; what rounds to nothing is refused."""
    wanted = (2 * percent * tokens + 100) // 200
    if wanted == 0:
        with pytest.raises(UsageError):
            parse_nominal(f"{percent}%", tokens)
    else:
        assert parse_nominal(f"{percent}%", tokens) == wanted
        if percent < 100:
            assert parse_nominal(f"{percent}/100", tokens) == wanted


def test_stages() -> None:
    """Pairs, and the word for the place before the decoder."""
    assert parse_stages(["before:192", "2:300", " 6 : 20 "]) == ((-1, 192), (2, 300), (6, 20))
    assert parse_stages([]) == ()


@pytest.mark.parametrize("text", ["2", "2-300", ":300", "2:", "-1:300", "2:-3", "after:3", "before", "2:3:4", "²:3"])
def test_other_stages_are_refused(text: str) -> None:
    """The text says both forms."""
    with pytest.raises(UsageError, match=r"2:300, or before:192"):
        parse_stages([text])


def test_a_run_takes_its_stages_or_its_budget() -> None:
    """Explicit stages win; a list where it has the budget, else a schedule between lists, and people are told."""
    assert run_budget("1/3", "plain", parse_stages(["before:40"]), 144, 8).schedule == "explicit"
    assert run_budget("1/3", "plain", (), 576, 32).schedule == "plain"
    told = describe_budget(run_budget("35%", "plain", (), 576, 32))
    assert told.startswith("202 of 576 visual tokens, schedule interpolated: after layer 2: 3")
    assert "before the decoder: 40" in describe_budget(run_budget("1/3", "plain", ((-1, 40), (3, 20)), 144, 8))
