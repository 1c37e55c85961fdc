"""Everything at once: two budgets, budgets by class, two search workers, and a prototype that gives NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import data_of, run_until
from test_calib_finite_runs import spoil_prototype

from claspkit.calib import search_workers
from claspkit.calib.ledger import Ledger
from claspkit.profiles.files import read_profile

SPOILT = "deep"
IN_A_WORKER = (
    "import sys; sys.path[:] = sys.argv[1:]; from pytest import MonkeyPatch; "
    "from test_calib_finite_runs import spoil_prototype; spoil_prototype({name!r}, MonkeyPatch()); {start}"
)


def left(run: Path) -> dict[str, Any]:
    """What two equal runs have in common: profile ids by folder, the digest of all scores, what was said."""
    summary = json.loads((run / "summary.json").read_text())
    ids = {path.parent.name: read_profile(path).profile_id for path in sorted(run.glob("profile*/profile.json"))}
    budgets = [{**row, "path": None} for row in summary["budgets"]]
    return {
        "ids": ids,
        "ledger": Ledger.read(run / "ledger.jsonl").sha256,
        **{name: summary[name] for name in ("classes", "adaptive", "pooled")},
        "budgets": budgets,
    }


@pytest.mark.long
def test_two_workers_find_what_one_finds_whatever_comes_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same profiles, scores and words; the spoilt prototype is marked at both budgets, and nowhere chosen."""
    spoil_prototype(SPOILT, monkeypatch)
    start = IN_A_WORKER.format(name=SPOILT, start=search_workers._START)
    monkeypatch.setattr(search_workers, "_START", start)
    asked: dict[str, Any] = {
        "data": str(data_of(tmp_path / "data", ("counting", "object", "text"), per_class=48)),
        "per_class": 48,
        "budget": "1/3,1/9",
        "adaptive_budget": True,
        "rhos": (0.2, 0.6),
    }
    for count in (1, 2):
        run_until("profile", tmp_path / str(count), search_workers=count, **asked)
    one, two = left(tmp_path / "1"), left(tmp_path / "2")
    assert one == two
    assert {"profile", "profile-16"} <= one["ids"].keys()
    marked = {mark["candidate"] for row in one["classes"] for mark in row["not_finite"]}
    assert {f"{SPOILT}/0.2", f"{SPOILT}/0.2@16"} <= marked
    assert {name.partition("/")[0] for name in marked} == {SPOILT}
    rows = [*one["classes"], *one["budgets"][1]["class_rows"]]
    assert not [row for row in rows for name in (row["tested"], row["chosen"]) if str(name).startswith(SPOILT)]
    assert {row["tested"] is not None for row in rows if row["n_holdout"]} == {True}
    assert one["adaptive"]["nominals"].keys() == {row["intent"] for row in one["classes"]}
