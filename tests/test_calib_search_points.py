"""Points of a search and its costs, from a ledger made by hand."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from claspkit.calib.charts_costs import costs_chart
from claspkit.calib.ledger import HOLDOUT, SEARCH, UNPRUNED, Cost, Entry, Ledger
from claspkit.calib.run_costs import run_costs
from claspkit.calib.samples import Sample, Source
from claspkit.calib.search import ClassData
from claspkit.calib.search_points import WIDE, search_points
from claspkit.calib.space import FurtherBudget, make_space

SPACE = make_space(8, (0.5, 0.9))
DEFAULT = SPACE.default.id


def sample(number: int, picture: int) -> Sample:
    """A sample that is told from others by its number and picture alone."""
    source = Source("made", None, None, number)
    return Sample(f"{number:016x}", "p.png", f"{picture:064x}", "q", ("a",), None, "exact_match@1", source, None)


def data(pictures: list[int], holdout: int = 12) -> ClassData:
    """A class whose search samples are on these pictures."""
    search = tuple(sample(number, picture) for number, picture in enumerate(pictures))
    return ClassData("object", search, tuple(sample(100 + number, 100 + number) for number in range(holdout)))


def ledger(path: Path, rows: list[tuple[str, str, list[float], Cost]]) -> Ledger:
    """A ledger with one block per row: split, candidate, scores, cost."""
    book = Ledger.open(path / "ledger.jsonl")
    book.put(
        [
            Entry(split, "object", candidate, 0, "0" * 64, tuple(scores), ("x",) * len(scores), cost)
            for split, candidate, scores, cost in rows
        ]
    )
    book.close()
    return Ledger.read(path / "ledger.jsonl")


def test_differences_are_paired_on_the_samples_that_both_saw(tmp_path: Path) -> None:
    """The default saw six samples, the other four: only these count. Two of them are on one picture."""
    mine, default = [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    book = ledger(tmp_path, [(SEARCH, DEFAULT, default, Cost()), (SEARCH, "deep/0.5", mine, Cost())])
    reference, point = search_points(SPACE, data([1, 1, 2, 3, 4, 5]), book)
    assert (reference.candidate, reference.difference, reference.error) == (DEFAULT, 0.0, 0.0)
    assert (point.prototype, point.rho, point.samples, point.score) == ("deep", 0.5, 4, 0.75)
    assert point.difference == pytest.approx(0.5)
    # per picture: sums 1, 0, 1 of sizes 2, 1, 1; rests to 0.5 each sample: 0, -0.5, 0.5
    assert point.error == pytest.approx(sqrt(3 / 2 * 0.5) / 4)
    low, high = point.interval or (0.0, 0.0)
    assert 0.5 - low == pytest.approx(high - 0.5) == pytest.approx(WIDE * sqrt(0.75) / 4)


def test_intervals_cover_what_is_true_about_as_often_as_they_say(tmp_path: Path) -> None:
    """400 drawn searches with two questions a picture that are answered alike; the true difference is 0.2."""
    random, covered = np.random.default_rng(0), 0
    pictures = [number // 2 for number in range(200)]
    for draw in range(400):
        default = np.repeat(random.random(100) < 0.5, 2).astype(float)
        mine = np.repeat(random.random(100) < 0.7, 2).astype(float)
        folder = tmp_path / str(draw)
        folder.mkdir()
        book = ledger(folder, [(SEARCH, DEFAULT, list(default), Cost()), (SEARCH, "deep/0.5", list(mine), Cost())])
        low, high = search_points(SPACE, data(pictures), book)[1].interval or (1.0, 1.0)
        covered += low <= 0.2 <= high
    assert 0.91 <= covered / 400 <= 0.985  # four binomial standard errors around 0.95


def test_other_budgets_and_points_beside_the_grid_are_told_apart(tmp_path: Path) -> None:
    book = ledger(
        tmp_path,
        [
            (SEARCH, DEFAULT, [1.0, 0.0], Cost()),
            (SEARCH, "deep[0,0.5,1]/0.33", [1.0, 1.0], Cost()),
            (SEARCH, f"{DEFAULT}@16", [0.0, 0.0], Cost()),
            (SEARCH, "deep/0.5@16", [1.0, 0.0], Cost()),
        ],
    )
    made = data([1, 2])
    assert [(p.candidate, p.prototype) for p in search_points(SPACE, made, book)] == [
        (DEFAULT, "default"),
        ("deep[0,0.5,1]/0.33", "deep[0,0.5,1]"),
    ]
    further = replace(SPACE, further=FurtherBudget(16, (20, 10, 6)))
    assert [(p.candidate, p.difference) for p in search_points(further, made, book)] == [
        (f"{DEFAULT}@16", 0.0),
        ("deep/0.5@16", 0.5),
    ]


def test_a_candidate_that_the_default_did_not_follow_has_no_difference(tmp_path: Path) -> None:
    book = ledger(tmp_path, [(SEARCH, DEFAULT, [1.0], Cost()), (SEARCH, "deep/0.5", [1.0, 0.0], Cost())])
    point = search_points(SPACE, data([1, 2]), book)[1]
    assert (point.difference, point.error, point.interval) == (None, None, None)


def test_costs_are_added_up_and_exhaustive_is_told_at_the_mean(tmp_path: Path) -> None:
    """Two of ten candidates on 12 of 20 samples; alone each evaluation takes 10."""
    assert len(SPACE.candidates) == 10
    cost = Cost(flops=30.0, flops_alone=120.0, bytes_read=5.0, drafted=3)
    book = ledger(
        tmp_path,
        [
            (SEARCH, DEFAULT, [1.0] * 12, cost),
            (SEARCH, "deep/0.5", [1.0] * 12, cost),
            (HOLDOUT, DEFAULT, [1.0] * 12, cost),
            (HOLDOUT, UNPRUNED, [1.0] * 12, replace(cost, flops_alone=300.0)),
        ],
    )
    found = run_costs([data(list(range(20)))], [SPACE], book)
    assert (found.evaluations, found.exhaustive_evaluations, found.holdout_evaluations) == (24, 200, 24)
    assert (found.flops, found.flops_alone) == (60.0, 240.0)
    assert found.flops_exhaustive == pytest.approx(2000.0)
    assert (found.holdout_flops, found.holdout_flops_alone) == (60.0, 420.0)
    assert (found.pictures, found.bytes_read, found.drafted, found.counted) == (32, 20.0, 12, True)
    chart = costs_chart(found)
    assert chart.count('<rect class="bar') == 7
    assert "−0.00176 MFLOP" in chart


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    """No ledger; a ledger without costs; a class that has not begun."""
    made = data(list(range(20)))
    nothing = run_costs([made], [SPACE], None)
    assert (nothing.evaluations, nothing.flops_exhaustive, nothing.counted) == (0, None, False)
    assert costs_chart(nothing) == ""
    old = run_costs([made], [SPACE], ledger(tmp_path, [(SEARCH, DEFAULT, [1.0] * 12, Cost())]))
    assert (old.evaluations, old.flops_exhaustive, old.counted) == (12, None, False)
    few = run_costs([replace(made, holdout=made.holdout[:3])], [SPACE], None)
    assert few.exhaustive_evaluations == 0
