"""The benchmark of the evaluator: what it counts and compares, on a decoder small enough for a test."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from house import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is run; the scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("evaluator")


@pytest.mark.long
def test_flops_are_counted_for_every_budget_and_answers_agree(script: Any) -> None:
    """Twice over, in ways that agree about what is shared."""
    rows = {row.what: row for row in script.flops_rows("tiny")}
    for nominal in script.BARS:
        seen = rows[f"budget {nominal}/576, 1 token: counted by torch, small decoder"].value
        counted = rows[f"budget {nominal}/576, 1 token: token-layers and pairs, 7B decoder"].value
        assert 0 < seen < 1
        assert counted == pytest.approx(seen, abs=0.1)
    assert all(row.holds for name, row in rows.items() if name.endswith("answers equal"))


@pytest.mark.long
def test_the_loop_without_sharing_answers_the_same(script: Any) -> None:
    """A whole calibration of a few samples, and the loop over a few of its evaluations."""
    rows = {row.what.partition(": ")[2]: row for row in script.clock_rows(24, "1/3", 20)}
    assert next(row for what, row in rows.items() if what.startswith("answers both have")).value == 1
    assert rows["its evaluations"].value > 0
