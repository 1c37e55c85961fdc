"""One configuration for all classes: how it is chosen, how it is judged, and where it is told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_calib_report import Page
from test_calib_search import samples
from test_calib_table import make_summary, printed

from claspkit.calib.evidence import interval_of, over_classes
from claspkit.calib.ledger import HOLDOUT, SEARCH, Entry, Ledger
from claspkit.calib.pooled import PooledChoice, choose_pooled, judge_pooled
from claspkit.calib.report import render_report
from claspkit.calib.search import ClassData, decide
from claspkit.calib.space import make_space
from claspkit.profiles.intents import INTENT_IDS

SPACE = make_space(7, (0.1, 0.9))
NAMES = [candidate.id for candidate in SPACE.candidates]

Scores = Mapping[str, Mapping[str, Sequence[float]]]


def ledger_of(split: str, scores: Scores) -> Ledger:
    """A ledger in memory that holds class -> candidate -> scores, in blocks of two."""
    entries = [
        Entry(split, intent, name, start // 2, "-", tuple(values[start : start + 2]), ())
        for intent, found in scores.items()
        for name, values in found.items()
        for start in range(0, len(values), 2)
    ]
    return Ledger(Path("ledger.jsonl"), {entry.key: entry for entry in entries}, None)


def everywhere(values: Sequence[float]) -> dict[str, Sequence[float]]:
    """The same scores for every candidate."""
    return dict.fromkeys(NAMES, values)


def chosen(scores: Scores) -> PooledChoice | None:
    """What is chosen from these search scores."""
    return choose_pooled(SPACE, ledger_of(SEARCH, scores), list(scores))


def test_every_class_weighs_the_same() -> None:
    """Better on two of four samples of the small class beats better on three of twelve of the large one."""
    base = {"text": [0.0] * 12, "scene": [0.0] * 4}
    scores = {intent: everywhere(values) for intent, values in base.items()}
    scores["text"]["deep/0.1"] = [1.0] * 3 + [0.0] * 9
    scores["scene"]["hybrid/0.9"] = [1.0] * 2 + [0.0] * 2
    found = chosen(scores)
    assert found is not None
    assert (found.candidate.id, found.compared) == ("hybrid/0.9", len(NAMES))
    assert found.score == pytest.approx((0 + 0.5) / 2)
    assert found.samples == {"text": 12, "scene": 4}


def test_of_a_race_the_first_rung_counts() -> None:
    """Later samples, which only those have that went on, change nothing; each class has a rung of its own."""
    scores = {"text": everywhere([0.0, 1.0]), "scene": everywhere([0.0] * 4)}
    scores["text"]["deep/0.1"] = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    scores["text"]["default/0.9"] = [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    found = chosen(scores)
    assert found is not None
    assert (found.candidate.id, found.score) == ("deep/0.1", 0.5)
    assert found.samples == {"text": 2, "scene": 4}


def test_what_a_class_has_not_scored_is_not_compared() -> None:
    """Of two passes with different winners, the first pass."""
    first = {name: [0.0, 1.0] for name in NAMES if name.endswith("/0.9")}
    scores = {
        "text": first | {"deep/0.9": [1.0, 1.0], "deep/0.1": [1.0, 1.0]},
        "scene": first | {"middle/0.1": [1.0, 1.0]},
    }
    found = chosen(scores)
    assert found is not None
    assert (found.candidate.id, found.compared) == ("deep/0.9", 5)


def test_ties_go_to_the_default_and_nan_wins_nothing() -> None:
    """All equal: the default. One sample without a score: never, whatever the rest. No class: nothing."""
    level = {intent: everywhere([0.5, 0.5]) for intent in ("text", "scene")}
    level["scene"]["middle/0.1"] = [math.nan, 1.0]
    level["text"]["middle/0.1"] = [1.0, 1.0]
    found = chosen(level)
    assert found is not None
    assert found.candidate == SPACE.default
    assert chosen({}) is None
    assert chosen({"text": everywhere([math.nan])}) is None


def test_one_class_with_a_picture_a_sample_is_the_interval_of_compare() -> None:
    """The same draws, the same ends."""
    differences = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], size=80, p=[0.1, 0.6, 0.3])
    groups = [str(number) for number in range(80)]
    centre, low, high = over_classes([differences], [groups], 9)
    assert centre == differences.mean()
    assert (low, high) == pytest.approx(interval_of(differences, groups, 9), abs=1e-12)


def test_the_interval_over_classes_is_that_of_a_stratified_mean() -> None:
    """Two classes of unequal size, far apart: width by the normal formula, in which their distance has no part."""
    random = np.random.default_rng(6)
    differences = [random.normal(0.5, 0.2, 400), random.normal(-0.5, 0.4, 100)]
    groups = [[f"{number}/{place}" for place in range(len(mine))] for number, mine in enumerate(differences)]
    centre, low, high = over_classes(differences, groups, 1)
    assert centre == pytest.approx(fmean(mine.mean() for mine in differences))
    error = math.sqrt(sum(mine.var() / len(mine) for mine in differences)) / 2
    assert high - low == pytest.approx(2 * NormalDist().inv_cdf(0.975) * error, rel=0.05)
    assert low < centre < high


def test_a_picture_asked_about_in_two_classes_is_drawn_once() -> None:
    """Differences that cancel on every picture leave nothing uncertain; as pictures of their own they do."""
    mine = np.array([1.0, -1.0, 0.0, 1.0, -1.0, 0.0])
    names = list("abcdef")
    _, low, high = over_classes([mine, -mine], [names, names], 0)
    assert (low, high) == pytest.approx((0.0, 0.0), abs=1e-12)
    _, low, high = over_classes([mine, -mine], [names, list("ghijkl")], 0)
    assert high - low > 0.5


@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=8), min_size=1, max_size=4))
def test_the_interval_holds_its_centre_and_turns_with_the_sign(rows: list[list[float]]) -> None:
    """Whatever the sizes, a class with one sample included."""
    differences = [np.array(row) for row in rows]
    groups = [[f"{number}/{place}" for place in range(len(row))] for number, row in enumerate(rows)]
    centre, low, high = over_classes(differences, groups, 3)
    assert low - 1e-9 <= centre <= high + 1e-9
    turned = over_classes([-mine for mine in differences], groups, 3)
    assert turned == pytest.approx((-centre, -high, -low), abs=1e-9)


def judged(holdout: Scores, winner: str | None, pooled: str) -> dict[str, Any] | None:
    """Verdicts and comparison of two classes with 40 holdout samples each and one without; ``text`` has the winner."""
    data = [
        ClassData("text", samples(40, "s"), samples(40, "h")),
        ClassData("scene", (), samples(40, "i")),
        ClassData("action", (), ()),
    ]
    ledger = ledger_of(HOLDOUT, holdout)
    verdicts = decide(data, {"text": SPACE.find(winner)} if winner else {}, SPACE, ledger, 0)
    choice = PooledChoice(SPACE.find(pooled), 0.5, 10, {"text": 40})
    return judge_pooled(choice, data, verdicts, SPACE, ledger, 0)


def test_the_holdout_says_what_each_of_the_three_is_worth() -> None:
    """Known means: default 0, pooled a quarter in both classes, the profile all of one and nothing of the other."""
    none, quarter, all_right = [0.0] * 40, [1.0] * 10 + [0.0] * 30, [1.0] * 40
    text = {"default/0.9": none, "deep/0.1": all_right, "hybrid/0.1": quarter}
    found = judged({"text": text, "scene": text}, "deep/0.1", "hybrid/0.1")
    assert found is not None
    assert (found["classes"], found["candidate"]) == (2, "hybrid/0.1")
    assert (found["default"], found["score"], found["profile"]) == (0.0, 0.25, 0.5)
    wanted = {"profile_to_default": 0.5, "pooled_to_default": 0.25, "profile_to_pooled": 0.25}
    assert {name: found[name]["difference"] for name in wanted} == wanted
    assert found["profile_to_default"] == {"difference": 0.5, "ci_low": 0.5, "ci_high": 0.5}
    assert 0.1 < found["pooled_to_default"]["ci_low"] < 0.25 < found["pooled_to_default"]["ci_high"] < 0.4
    broken = {name: text | {"hybrid/0.1": [math.nan] * 40} for name in ("text", "scene")}
    assert judged(broken, "deep/0.1", "hybrid/0.1") is None


def test_where_nothing_differs_nothing_is_bought() -> None:
    """No class changed and the default is the best for all: three differences of exactly zero."""
    level = {"default/0.9": [1.0, 0.0] * 20}
    found = judged({"text": level, "scene": level}, None, "default/0.9")
    assert found is not None
    for name in ("profile_to_default", "pooled_to_default", "profile_to_pooled"):
        assert found[name] == {"difference": 0.0, "ci_low": 0.0, "ci_high": 0.0}
    assert judge_pooled(None, [], [], SPACE, ledger_of(HOLDOUT, {}), 0) is None


POOLED = {
    "candidate": "hybrid/0.2",
    "compared": 55,
    "search_samples": dict.fromkeys(INTENT_IDS, 32),
    "search_score": 0.7,
    "classes": 8,
    "default": 0.636,
    "score": 0.65,
    "profile": 0.662,
    "profile_to_default": {"difference": 0.026, "ci_low": 0.01, "ci_high": 0.04},
    "pooled_to_default": {"difference": 0.014, "ci_low": -0.002, "ci_high": 0.03},
    "profile_to_pooled": {"difference": 0.012, "ci_low": 0.004, "ci_high": 0.02},
}


def test_terminal_and_report_say_what_it_bought() -> None:
    """One line, one sentence and three rows; an older run says nothing, a hostile name stays text."""
    line = (
        "One configuration for all classes: hybrid/0.2, 65.0 %; difference to the default: +1.4 [-0.2, +3.0]; "
        "the profile's difference to it: +1.2 [+0.4, +2.0]."
    )
    summary = make_summary(pooled=POOLED)
    assert line in printed(summary, 200).splitlines()
    assert all(len(told) <= 80 for told in printed(summary, 80).splitlines() if "profile.json" not in told)
    page = Page(render_report(summary))
    told = " ".join(page.text.split())
    assert line in told
    assert "hybrid/0.2 for all classes 65.0 +1.4 [-0.2, +3.0] -1.2 [-2.0, -0.4]" in told
    assert "the first 32 search samples" in told
    for older in (make_summary(), make_summary(pooled=None)):
        assert "One configuration" not in printed(older, 200) + render_report(older)
    hostile = make_summary(pooled=POOLED | {"candidate": "<script>\x1b[2J"})
    assert "<script>" not in render_report(hostile)
    assert "\x1b" not in printed(hostile, 200)


def test_the_default_as_the_best_for_all_is_one_row() -> None:
    """It is not listed twice."""
    summary = make_summary(pooled=POOLED | {"candidate": "default/0.9"})
    assert "the default itself, default/0.9; the profile's difference to it: +1.2" in printed(summary, 200)
    assert "for all classes</th>" not in render_report(summary)
