"""``claspkit plan``: what budgets mean and what a calibration would cost, before anything runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claspkit.calib.cli import main
from claspkit.calib.plan import make_plan
from claspkit.calib.plan_table import WIDTH, render_plan
from claspkit.profiles.errors import UsageError
from claspkit.runtime import models


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked; what no cache has comes from the configs that ship."""
    monkeypatch.setattr(models, "_hub_answers", lambda repository: False)


def one(plan: dict[str, Any], column: int = 0) -> dict[str, Any]:
    """A column of a plan."""
    row: dict[str, Any] = plan["budgets"][column]
    return row


def test_llava_7b_at_the_published_budgets() -> None:
    """One column each; 32 of 576 is below the floor of 36 and says so, beside those that work."""
    plan = make_plan("llava-1.5-7b", 2000, ("192", "128", "64", "32"), "recycled")
    assert [row.get("schedule", "refused") for row in plan["budgets"]] == ["recycled"] * 3 + ["refused"]
    assert "average to 36" in one(plan, 3)["refused"]
    assert plan["unpruned"]["prefill_flops"] / 1e12 == pytest.approx(8.34, abs=0.005)
    assert one(plan)["prefill_flops"] / 1e12 == pytest.approx(3.43, abs=0.005)
    assert one(plan)["prefill_flops_leaving"] / 1e12 == pytest.approx(3.23, abs=0.005)
    assert one(plan)["flops_ratio"] == pytest.approx(2.44, abs=0.005)
    assert plan["unpruned"]["kv_bytes"] == 318 * 2**20
    assert one(plan)["kv_share"] == pytest.approx(0.413, abs=0.0005)
    assert one(plan)["mean_tokens_leaving"] == pytest.approx(188.2, abs=0.05)
    assert one(plan)["mean_tokens_entering"] == 202.75
    assert plan["calibration"]["samples"] == 18000
    assert plan["calibration"]["cache_bytes_a_picture"] == 25 * 576 * 1024 * 2


def test_the_other_models() -> None:
    """LLaVA-NeXT's lists and floor, 13B's layers, a share of Qwen's reference picture."""
    plan = make_plan("llava-next-7b", 1, ("640", "320", "160"))
    assert [[s["keep"] for s in row["stages"]] for row in plan["budgets"][:2]] == [[1190, 540, 300], [330, 170, 100]]
    assert "average to 180" in one(plan, 2)["refused"]
    assert [s["after_layer"] for s in one(make_plan("llava-1.5-13b", 1))["stages"]] == [3, 8, 19]
    qwen = make_plan("qwen2.5-vl-7b", 1, ("35%",))
    assert (one(qwen)["nominal"], one(qwen)["schedule"], qwen["model"]["scaling"]) == (454, "interpolated", "share")
    assert qwen["calibration"]["cache_bytes"] is None


def test_explicit_stages_are_one_more_column() -> None:
    """Beside the budgets asked for, and alone where none was."""
    assert [row["asked"] for row in make_plan("mini", 1)["budgets"]] == ["1/3"]
    assert [row["asked"] for row in make_plan("mini", 1, stages=((-1, 40),))["budgets"]] == ["stages"]
    plan = make_plan("mini", 1, ("1/3",), stages=((-1, 40), (3, 20)))
    assert [row["schedule"] for row in plan["budgets"]] == ["plain", "explicit"]
    assert one(plan, 1)["stages"] == [{"after_layer": -1, "keep": 40}, {"after_layer": 3, "keep": 20}]


def test_the_table_fits_a_terminal() -> None:
    """Four budgets, one of them refused, in 100 columns: every figure under its budget, the reason below."""
    text = render_plan(make_plan("llava-1.5-7b", 60, ("192", "160", "35%", "32"), stages=((-1, 192),)))
    assert max(map(len, text.splitlines())) <= WIDTH
    lines = {line[:29].strip(): line[29:].split() for line in text.splitlines()}
    assert lines["budget"] == ["unpruned", "192", "160", "35%", "32", "stages"]
    assert lines["schedule"] == ["-", "plain", "interpolated", "interpolated", "-", "explicit"]
    assert lines["kept before the decoder"] == ["-", "-", "-", "-", "-", "192"]
    assert lines["kept after layer 2"][:2] == ["-", "300"]
    assert lines["nominal tokens"] == ["576", "192", "160", "202", "refused", "192"]
    assert lines["prefill, TFLOP"][0] == "8.34"
    assert "average to 36" in " ".join(text.split())
    assert " ".join(lines["sizes from"]) in {models.FROM_PACKAGE, models.FROM_HUB}


def test_small_models_are_not_rounded_away() -> None:
    """The prefill of mini is less than a thousandth of a TFLOP and still has three digits."""
    text = render_plan(make_plan("mini", 60))
    row = next(line for line in text.splitlines() if line.startswith("prefill, TFLOP"))
    assert all(0 < float(cell) < 0.01 for cell in row.split()[2:])


def test_a_plan_without_a_budget_that_works_is_refused() -> None:
    """All refusals, one a line."""
    with pytest.raises(UsageError, match=r"(?s)average to 36.*--budget takes"):
        make_plan("llava-1.5-7b", 1, ("32", "plenty"))


@pytest.mark.parametrize(("budgets", "code"), [(("1/3", "5"), 0), (("5",), 2)])
def test_the_command(budgets: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON and the exit code: 0 where one budget works, 2 where none does."""
    options = [part for budget in budgets for part in ("--budget", budget)]
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--model", "mini", "--per-class", "60", *options, "--json"])
    assert ended.value.code == code
    printed = capsys.readouterr().out
    if code == 0:
        plan = json.loads(printed)
        assert plan == make_plan("mini", 60, budgets)
        assert [("refused" in row) for row in plan["budgets"]] == [False, True]
    else:
        assert printed == ""
