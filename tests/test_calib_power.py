"""How many samples a difference needs: against enumeration, against the test itself, and at the command line."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from house import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.calib import evidence, power
from claspkit.calib.cli import main
from claspkit.calib.evidence import compare, holm
from claspkit.calib.power import Spread, detectable, measure, power_of, samples_needed

EACH = 0.05 / 9


def enumerated(samples: int, difference: float, disagreement: float, alpha: float) -> float:
    """Power by going through all numbers of wins and losses."""
    win, lose = (disagreement + difference) / 2, (disagreement - difference) / 2
    total = 0.0
    for wins in range(samples + 1):
        for losses in range(samples + 1 - wins):
            trials = wins + losses
            p_value = sum(math.comb(trials, k) for k in range(wins, trials + 1)) / 2**trials
            ways = math.comb(samples, wins) * math.comb(samples - wins, losses)
            if trials and p_value <= alpha:
                total += ways * win**wins * lose**losses * (1 - disagreement) ** (samples - trials)
    return total


@pytest.mark.parametrize(
    ("samples", "difference", "disagreement", "alpha"),
    [(1, 0.5, 0.5, 0.4), (12, 0.3, 0.5, 0.05), (25, 0.2, 0.3, 0.2), (30, 0.4, 0.4, EACH), (30, 0.7, 1.0, EACH)],
)
def test_power_is_the_sum_over_everything_that_can_happen(
    samples: int, difference: float, disagreement: float, alpha: float
) -> None:
    """Few samples: the same number as by enumeration, also where nothing is lost or everything is moved."""
    wanted = enumerated(samples, difference, disagreement, alpha)
    assert power_of(samples, difference, disagreement, alpha) == pytest.approx(wanted, abs=1e-12)


def test_the_approximation_goes_on_where_the_sum_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thousand disagreements both give the same power, to two digits."""
    exact = power_of(12_500, 0.006, 0.08, EACH)
    monkeypatch.setattr(power, "EXACT", 0)
    assert power_of(12_500, 0.006, 0.08, EACH) == pytest.approx(exact, abs=0.005)
    assert 0.3 < exact < 0.6


def found(
    samples: int, difference: float, spread: Spread, classes: int, random: np.random.Generator
) -> bool:
    """One calibration's holdout: a class with a true difference beside others without any; is it found?

    Questions of a picture share one draw with the probability of the correlation.
    """
    per, pictures = int(spread.per_picture), -(-samples // int(spread.per_picture))
    shares = [(spread.disagreement + difference) / 2, (spread.disagreement - difference) / 2, 1 - spread.disagreement]
    own, common = (random.choice([1, -1, 0], p=shares, size=(pictures, count)) for count in (per, 1))
    moved = np.where(random.random((pictures, 1)) < spread.correlation, common, own).ravel()[:samples]
    groups = [str(number // per) for number in range(samples)]
    ours, theirs = (moved > 0).astype(float).tolist(), (moved < 0).astype(float).tolist()
    p_value = compare(ours, theirs, groups, seed=0).p_value
    return holm([p_value, *[1.0] * (classes - 1)])[0] < 0.05


@pytest.mark.parametrize(
    ("difference", "spread", "classes", "target"),
    [
        (0.1, Spread(0.2), 9, 0.8),
        (0.05, Spread(0.1), 9, 0.9),
        (0.1, Spread(0.1), 9, 0.8),
        (0.3, Spread(0.5), 1, 0.8),
        (0.1, Spread(0.2, 3, 0.2), 9, 0.8),
        (0.1, Spread(0.2, 3, 1.0), 9, 0.8),
    ],
)
def test_the_predicted_samples_reach_the_power(
    difference: float, spread: Spread, classes: int, target: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 simulated holdouts through compare() and holm(): the share that is found is the power, within 0.06.

    Fewer resamples than a calibration takes: for a picture a question the p-value does not depend on them at all.
    """
    monkeypatch.setattr(evidence, "RESAMPLES", 200 if spread.per_picture == 1 else 2000)
    samples = samples_needed(difference, spread, 0.05 / classes, target)
    random = np.random.default_rng(11)
    share = np.mean([found(samples, difference, spread, classes, random) for _ in range(300)])
    assert share == pytest.approx(target, abs=0.06)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 0.85), st.floats(0.1, 1.0), st.sampled_from([0.05, EACH]), st.floats(0.55, 0.99))
def test_as_many_as_are_needed_and_not_one_more(disagreement: float, part: float, alpha: float, target: float) -> None:
    """The power is reached, and with one sample less it is not."""
    needed = samples_needed(part * disagreement, Spread(disagreement), alpha, target)
    assert power_of(needed, part * disagreement, disagreement, alpha) >= target
    assert needed == 1 or power_of(needed - 1, part * disagreement, disagreement, alpha) < target


@settings(max_examples=40, deadline=None)
@given(st.floats(0.02, 0.85), st.integers(5, 3000), st.floats(1, 5), st.floats(0, 1))
def test_what_a_holdout_shows_needs_no_more_than_it_has(
    disagreement: float, samples: int, per_picture: float, correlation: float
) -> None:
    """The smallest difference shown is found with these samples; where there is none, the largest one is not."""
    spread = Spread(disagreement, per_picture, correlation)
    smallest = detectable(samples, spread, EACH, 0.8)
    if smallest is None:
        assert samples_needed(disagreement, spread, EACH, 0.8) >= samples
    else:
        assert 0 < smallest <= disagreement
        assert samples_needed(smallest, spread, EACH, 0.8) <= samples + spread.design_effect


def test_questions_of_a_picture_count_for_less() -> None:
    """Three questions that always agree do the work of one; without correlation each does its own."""
    alone = samples_needed(0.1, Spread(0.2), EACH, 0.8)
    assert samples_needed(0.1, Spread(0.2, 3, 1.0), EACH, 0.8) == 3 * alone
    assert samples_needed(0.1, Spread(0.2, 3, 0.0), EACH, 0.8) == alone


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
def test_the_spread_that_was_put_in_is_measured(correlation: float) -> None:
    """20,000 pictures of two classes, one to three questions each: disagreement, questions and correlation."""
    random = np.random.default_rng(2)
    differences, groups = [], []
    for name, mean in (("a", 0.05), ("b", -0.02)):
        counts = random.integers(1, 4, 10_000)
        places = np.repeat(np.arange(10_000), counts)
        chances = [0.1 + mean / 2, 0.1 - mean / 2, 0.8]
        common, own = (random.choice([1.0, -1.0, 0.0], p=chances, size=n) for n in (10_000, len(places)))
        differences.append(np.where((random.random(10_000) < correlation)[places], common[places], own))
        groups.append([f"{name}{place}" for place in places])
    spread = measure(differences, groups)
    assert spread.disagreement == pytest.approx(0.2, abs=0.01)
    assert spread.per_picture == pytest.approx((1 + 4 + 9) / (1 + 2 + 3), abs=0.02)
    assert spread.correlation == pytest.approx(correlation, abs=0.03)


def test_a_spread_of_little_is_no_error() -> None:
    """One question a picture, no disagreement, or opposite questions: no correlation."""
    assert measure([np.array([1.0, 0.0])], [["a", "b"]]) == Spread(0.5, 1.0, 0.0)
    assert measure([np.zeros(4)], [["a", "a", "b", "b"]]) == Spread(0.0, 2.0, 0.0)
    assert measure([np.array([1.0, -1.0, 1.0, -1.0])], [["a", "a", "b", "b"]]) == Spread(1.0, 2.0, 0.0)


@pytest.mark.parametrize(
    ("difference", "disagreement", "alpha", "target"),
    [(0.0, 0.1, 0.05, 0.8), (0.2, 0.1, 0.05, 0.8), (0.1, 1.1, 0.05, 0.8), (0.1, 0.2, 0.5, 0.8), (0.1, 0.2, 0.05, 0.5)],
)
def test_what_no_number_answers_is_refused(difference: float, disagreement: float, alpha: float, target: float) -> None:
    """No difference, one beyond the disagreement, and shares that are none."""
    with pytest.raises(ValueError, match="needs 0 <"):
        samples_needed(difference, Spread(disagreement), alpha, target)


def claspkit(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run ``claspkit power``: exit code, stdout and stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["power", *map(str, words)])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """The object it prints."""
    code, out, err = claspkit(capsys, *words, "--json")
    assert code == 0, err
    facts: dict[str, Any] = json.loads(out)
    return facts


def test_the_command_says_what_the_arithmetic_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Samples of the holdout and of the class, as text and as JSON, and every option changes them."""
    asked = ("--difference", 2, "--disagreement", 0.08)
    facts = answer(capsys, *asked)
    needed = samples_needed(0.02, Spread(0.08), EACH, 0.8)
    assert (facts["holdout_samples"], facts["per_class"], facts["observed"]) == (needed, 2 * needed, [])
    assert f"{needed:,} holdout samples per class: --per-class {2 * needed}" in claspkit(capsys, *asked)[1]
    clustered = answer(capsys, *asked, "--questions-per-picture", 3, "--correlation", 0.2)
    assert clustered["holdout_samples"] == samples_needed(0.02, Spread(0.08, 3, 0.2), EACH, 0.8)
    assert answer(capsys, *asked, "--classes", 1)["holdout_samples"] < needed
    assert answer(capsys, *asked, "--power", 0.9)["holdout_samples"] > needed
    assert answer(capsys, *asked, "--alpha", 0.2)["holdout_samples"] < needed
    assert answer(capsys, *asked, "--holdout", 0.25)["per_class"] == 4 * needed
    assert answer(capsys, "--difference", 100, "--disagreement", 1)["holdout_samples"] == 10  # fewer are not searched


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--difference", 2), "--run RUN of a finished calibration"),
        (("--difference", 9, "--disagreement", 0.08), "one cannot be better by more"),
        (("--difference", 2, "--disagreement", 2), "no share of samples"),
        (("--difference", 2, "--disagreement", 0.1, "--power", 0.3), "between 0.5 and 1"),
        (("--difference", 2, "--disagreement", 0.1, "--alpha", 0), "between 0 and 0.5"),
        (("--difference", 2, "--disagreement", 0.1, "--questions-per-picture", "inf"), "have to be numbers"),
    ],
)
def test_what_makes_no_sense_is_told(words: tuple[object, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, nothing on stdout, and what is allowed."""
    code, out, err = claspkit(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err


def test_the_table_of_the_documentation_is_what_the_command_says() -> None:
    """Every number of docs/calibration.md."""
    page = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) points? \|(.+)\|$", page, flags=re.MULTILINE)
    assert len(rows) == 5
    for points, cells in rows:
        for disagreement, cell in zip((0.05, 0.1, 0.2, 0.4), cells.split("|"), strict=True):
            possible = int(points) / 100 <= disagreement
            needed = samples_needed(int(points) / 100, Spread(disagreement), EACH, 0.8) if possible else None
            assert cell.strip() == ("impossible" if needed is None else f"{needed:,}")
