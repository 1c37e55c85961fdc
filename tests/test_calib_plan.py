"""``claspkit plan``: what budgets mean and what a calibration would cost, before anything runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from feature_stores import make_key
from torch.utils.flop_counter import FlopCounterMode

from claspkit.cache.layout import image_bytes
from claspkit.calib.cli import main
from claspkit.calib.plan import make_plan
from claspkit.calib.plan_cache import CacheChoice, choose_layers, parse_picture, record_bytes, vision_flops
from claspkit.calib.plan_table import WIDTH, render_plan
from claspkit.calib.probe import Machine
from claspkit.calib.space import make_space
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
    assert plan["cache"]["bytes_a_picture"] == 25 * 576 * 1024 * 2
    assert plan["cache"]["bytes"] == 18000 * plan["cache"]["bytes_a_picture"]


def test_the_other_models() -> None:
    """LLaVA-NeXT's lists and floor, 13B's layers, a share of Qwen's reference picture."""
    plan = make_plan("llava-next-7b", 1, ("640", "320", "160"))
    assert [[s["keep"] for s in row["stages"]] for row in plan["budgets"][:2]] == [[1190, 540, 300], [330, 170, 100]]
    assert "average to 180" in one(plan, 2)["refused"]
    assert [s["after_layer"] for s in one(make_plan("llava-1.5-13b", 1))["stages"]] == [3, 8, 19]
    qwen = make_plan("qwen2.5-vl-7b", 1, ("35%",))
    assert (one(qwen)["nominal"], one(qwen)["schedule"], qwen["model"]["scaling"]) == (454, "interpolated", "share")
    assert (qwen["cache"]["patches"], qwen["cache"]["bytes_a_picture"]) == (5184, 33 * 5184 * 1280 * 2)


@pytest.mark.parametrize(
    ("model", "picture", "patches", "tflop"),
    [
        ("llava-1.5-7b", None, 576, 0.3805),
        ("llava-1.5-7b", (1024, 768), 576, 0.3805),
        ("llava-next-7b", None, 5 * 576, 5 * 0.3805),
        ("llava-next-7b", (300, 900), 4 * 576, 4 * 0.3805),
        ("qwen2.5-vl-7b", (1024, 1024), 74 * 74, 7.564),
        ("qwen2.5-vl-7b", (20, 20), 4, 4 * 32 * (2 * (4 * 1280**2 + 3 * 1280 * 3420) + 4 * 1280 * 4) / 1e12),
        ("internvl3-8b", None, 32 * 32, 1024 * 24 * (2 * 12 * 1024**2 + 4 * 1024 * 1024) / 1e12),
        ("internvl3-8b", (896, 448), 3 * 32 * 32, 3 * 1024 * 24 * (2 * 12 * 1024**2 + 4 * 1024 * 1024) / 1e12),
        ("video-llava-7b", None, 2056, None),
        ("video-llava-7b", (500, 500), 256, None),
    ],
)
def test_the_vision_encoders_work(
    model: str, picture: tuple[int, int] | None, patches: int, tflop: float | None
) -> None:
    """Patches of a picture by its size, and what the encoder computes on them, worked out by hand."""
    cache = make_plan(model, 1, cache=CacheChoice(picture=picture))["cache"]
    assert cache["patches"] == patches
    if tflop is not None:
        assert cache["vision_flops"] / 1e12 == pytest.approx(tflop, rel=2e-4)


def test_encoder_flops_are_those_counted_on_the_model() -> None:
    """Mini's encoder, run under torch's own counter: [CLS], which the formula leaves out, makes the difference."""
    loaded = models.load_model("mini", attention="eager")
    facts = loaded.family.facts(loaded.model)
    side = loaded.model.config.vision_config.image_size
    with FlopCounterMode(display=False) as counter:
        loaded.family.vision_layers(loaded.model, torch.zeros(1, 3, side, side))
    cls = (facts.patches + 1) / facts.patches
    assert vision_flops(facts) < counter.get_total_flops() < 1.03 * cls**2 * vision_flops(facts)


def test_bytes_are_those_of_a_store() -> None:
    """A record takes what the plan says, and 4 bytes of checksum a layer."""
    facts = models.config_facts(models.resolve_model("mini"))
    for layers, dtype in ((9, "float16"), (3, "bfloat16"), (2, "float32")):
        key = make_key(dtype, layers=tuple(range(layers)), tokens=facts.patches, width=facts.vision_width)
        assert record_bytes(facts, layers, dtype) == image_bytes(key) - 4 * layers
    assert record_bytes(facts, 2, "int8") == 2 * facts.vision_width * (facts.patches + 4)


def test_layer_sets() -> None:
    """All, what the search reads, and a list that must hold it."""
    facts = models.config_facts(models.resolve_model("llava-1.5-7b"))
    assert choose_layers("all", facts) == tuple(range(25))
    needed = choose_layers("prototypes", facts)
    assert needed == make_space(23).layers
    assert choose_layers("1," + ",".join(map(str, reversed(needed))), facts) == tuple(sorted({1, *needed}))
    for text, reason in (
        ("3,x", "layer numbers"),
        ("", "layer numbers"),
        ("3,25", "0 to 24"),
        ("3,23", "must be among"),
    ):
        with pytest.raises(UsageError, match=reason):
            choose_layers(text, facts)


@pytest.mark.parametrize("text", ["1024", "1024x", "x5", "0x5", "-1x5", "1e3x5", "123456x1"])
def test_pictures_that_are_none(text: str) -> None:
    """Anything but two whole numbers of pixels."""
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        parse_picture(text)


def test_a_picture_is_width_by_height() -> None:
    """As people write it; inside, height comes first."""
    assert parse_picture("1024x768") == (768, 1024)


def test_which_way_is_faster_and_what_fits() -> None:
    """A slow disk beside a fast device, the other way round, and a disk too small for all layers."""
    quick = Machine("/runs", 10**15, 1e9, 1e8, "cuda", 1e15)
    cache = make_plan("llava-1.5-7b", 2000, machine=quick)["cache"]
    record, read = 25 * 576 * 1024 * 2, 6 * 576 * 1024 * 2
    assert cache["fits"] is True
    assert cache["seconds"]["faster"] == "recomputing"
    assert cache["seconds"]["read_a_picture"] == pytest.approx(read / 1e8)
    assert cache["seconds"]["fill"] == pytest.approx(18000 * (cache["vision_flops"] / 1e15 + record / 1e9))
    slow = Machine("/runs", 100 * 10**9, 1e9, 1e9, "cpu", 1e11)
    plan = make_plan("llava-1.5-7b", 2000, machine=slow)
    assert (plan["cache"]["seconds"]["faster"], plan["cache"]["fits"]) == ("reading", False)
    options = plan["cache"]["instead"]
    assert [(o["layers"], o["dtype"], o["fits"]) for o in options] == [
        ("prototypes", "float16", False),
        ("prototypes", "float16", True),
        ("all", "int8", False),
        ("prototypes", "int8", True),
    ]
    assert options[1]["per_class"] == 100 * 10**11 // 105 // (9 * read)
    text = render_plan(plan)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "127 GB, does not fit either" in text
    assert "reading a picture is" in text


def test_unknown_values_are_refused() -> None:
    """A dtype that no store has."""
    with pytest.raises(UsageError, match="float16, bfloat16, float32, int8"):
        make_plan("mini", 1, cache=CacheChoice(dtype="int4"))


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
        main(["plan", "--model", "mini", "--per-class", "60", *options, "--no-probe", "--json"])
    assert ended.value.code == code
    printed = capsys.readouterr().out
    if code == 0:
        plan = json.loads(printed)
        assert plan["cache"].pop("machine")["write"] is None
        here = make_plan("mini", 60, budgets)
        for name in ("machine", "fits", "instead"):  # these depend on the disk
            here["cache"].pop(name)
            plan["cache"].pop(name, None)
        assert plan == here
        assert [("refused" in row) for row in plan["budgets"]] == [False, True]
    else:
        assert printed == ""
