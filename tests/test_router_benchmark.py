"""The benchmark of the teacher's modes runs and prints every row. No clock is judged here."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
from house import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, which finds the files beside it as when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("router_teacher")


def test_both_modes_are_timed_in_one_run(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Rates and their ratios, one of them with the bar."""
    script.main(["--prompts", "2", "--repeats", "2", "--json"])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert len(rows) == 5
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())
    assert [row["bar"] for row in rows.values()] == ["", "", "", ">= 5", ""]
    assert len(set(script.questions(96))) == 96


def test_a_wrong_command_line_is_refused(script: Any) -> None:
    """Quartiles need two repeats."""
    for wrong in (["--repeats", "1"], ["--prompts", "0"]):
        with pytest.raises(SystemExit):
            script.parse(wrong)


def test_the_student_is_timed_and_scored(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row is there; the bars of the file's size and of the student's scores hold, those of clocks may not."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    student = import_module("router_student")
    student.main(["--repeats", "2", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 8
    assert [row["holds"] for row in rows[2:5]] == [True, True, True]
    assert rows[7]["value"] < rows[3]["value"]
    with pytest.raises(SystemExit):
        student.parse(["--repeats", "1"])


def test_the_share_of_the_flop_limit_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a shape of few weights; the bar is for a GPU, so a CPU neither keeps nor breaks it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    flops = import_module("router_flops")
    tiny = dict.fromkeys(("hidden_size", "intermediate_size"), 16) | {
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 500,
    }  # fmt: skip
    monkeypatch.setitem(flops.SHAPES, "small", tiny)
    monkeypatch.setitem(flops.SIDE, "cpu", 64)
    flops.main(["--prompts", "3", "--repeats", "2", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 5
    assert rows[-1]["bar"] == ">= 0.4 on a GPU"
    assert rows[-1]["holds"] is None
    assert rows[-1]["value"] > 0
    # Two tokens after three: each weight of a layer per token, attention to 4 and 5 tokens, one output row.
    weights = 16 * 16 * 2 + 16 * 8 * 2 + 3 * 16 * 16
    assert flops.label_flops(tiny, 3, [2]) == 2 * (2 * 2 * weights + 4 * 16 * (4 + 5)) + 2 * 16 * 500
