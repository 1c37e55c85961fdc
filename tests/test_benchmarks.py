"""The benchmarks run, say what they promise to say, and leave the runtime as it was. No clock is judged here."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from house import ROOT, fresh

from claspkit.runtime import prefill as runtime_prefill
from claspkit.runtime import stages

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a script, which finds the files beside it as when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module


def run_tiny(script: Any, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """What ``prefill.py --shape tiny --json`` printed."""
    script.main(["--shape", "tiny", "--repeats", "1", "--threads", str(torch.get_num_threads()), "--json", *more])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_prefill_prints_every_row_for_every_batch_and_budget(
    benchmark: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Valid JSON; what does not depend on the clock holds exactly."""
    found = run_tiny(benchmark("prefill"), capsys, "--batch", "1", "--batch", "2", "--budget", "192", "--budget", "64")
    rows = {row["what"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 2 * (5 + 2 * 12)
    assert all(row["value"] > 0 for row in rows.values())
    for batch in (1, 2):
        for budget in ("12/36", "4/36"):
            what = f"B {batch}, {budget}: "
            assert rows[what + "cache / predicted"]["value"] == 1
            assert rows[what + "fixed indices give the same logits"]["holds"] is True
            assert rows[what + "FLOP limit of that"]["value"] > 1
            timed = rows[what + "pruned / fixed indices"]
            assert timed["low"] <= timed["value"] <= timed["high"]
    assert "tiny" in found["title"]


def test_prefill_leaves_the_runtime_as_it_was(
    benchmark: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The functions it stands in for are back, also after a failure."""
    script = benchmark("prefill")
    before = dict(vars(runtime_prefill)), dict(vars(stages))
    run_tiny(script, capsys, "--budget", "192")
    with pytest.raises(KeyError, match="in the block"), script.replaced(select=None, reference_attention=None):
        raise KeyError("in the block", vars(runtime_prefill)["select"], vars(stages)["reference_attention"])
    assert (vars(runtime_prefill), vars(stages)) == before


def test_selection_alone_finds_what_the_pruned_pass_found(benchmark: Callable[[str], Any]) -> None:
    """The piece that is timed by itself is the piece that ran."""
    script = benchmark("prefill")
    shape = script.SHAPES["tiny"]
    torch.manual_seed(0)
    with torch.inference_mode():
        bench = script.make_bench(script.build(shape, "cpu", torch.float32), shape, 2, 12)
        budget = script.make_budget(12, 36, shape.depth)
        known, _ = script.record(bench, script.make_plan(budget, shape))
        again = known.replay()
    assert [found.kept.shape[1] for found in again] == [stage.keep for stage in budget.stages]
    for found, (_, _, first) in zip(again, known.chosen, strict=True):
        assert torch.equal(found.kept, first.kept)
        assert torch.equal(found.pivot, first.pivot)


def test_bars_hold_on_their_side(benchmark: Callable[[str], Any]) -> None:
    """The median and the quartiles of known numbers, against a bar from above, from below, and none."""
    timed = benchmark("prefill").timed
    values = [4.0, 1.0, 2.0, 3.0, 5.0]
    above, below, free = timed("a", values, "", most=3.0), timed("b", values, "", least=3.1), timed("c", values, "ms")
    assert (above.value, above.low, above.high, above.holds) == (3.0, 1.5, 4.5, True)
    assert (below.bar, below.holds, free.bar, free.holds) == (">= 3.1", False, "", None)
    assert benchmark("prefill").ratios([4.0, 9.0], [2.0, 3.0], 2.0) == [1.0, 1.5]


def test_launches_counts_what_computes_and_no_views(benchmark: Callable[[str], Any]) -> None:
    """A compound operation counts as its parts, a view not at all."""
    counting = benchmark("_launches")
    left, right = counting.on_meta((torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)))

    def work() -> None:
        found = (left @ right).transpose(1, 2)[:, 1:].exp()
        found.mul_(2.0)

    assert counting.launches(work) == {"bmm": 1, "exp": 1, "mul_": 1}
    assert counting.on_meta({"a": [1, "b"]}) == {"a": [1, "b"]}


def test_rows_are_shown_in_plain_columns_without_rich(
    benchmark: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the standard library is needed to print; quartiles have a column only where there are some."""
    common = benchmark("_common")
    monkeypatch.setattr(common, "find_spec", lambda _: None)
    common.show("title", [common.Row("what is measured", 1.5, "ms", "<= 2", True)], as_json=False)
    title, heads, line, _ = capsys.readouterr().out.splitlines()
    assert (title, heads.split(), line.split()[-5:]) == (
        "title",
        ["what", "value", "unit", "bar", "holds"],
        ["1.5", "ms", "<=", "2", "yes"],
    )
    common.show("title", [common.Row("a", 2.0, "x", low=1.0, high=3.0)], as_json=False)
    assert "1 - 3" in capsys.readouterr().out


def test_a_wrong_command_line_is_refused(benchmark: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Impossible counts end in the usage text."""
    for wrong in (["--repeats", "0"], ["--text", "1"], ["--shape", "none"]):
        with pytest.raises(SystemExit):
            benchmark("prefill").parse(wrong)
    assert "usage:" in capsys.readouterr().err


@pytest.mark.long
def test_prefill_runs_from_a_checkout_with_torch_and_transformers_alone() -> None:
    """Neither an installation of claspkit nor pydantic, rich, typer or h5py is there."""
    code = f"""
import runpy, sys
for name in ("pydantic", "pydantic_core", "rich", "typer", "h5py"):
    sys.modules[name] = None
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [{str(BENCHMARKS)!r}, *(entry for entry in sys.path if "editable" not in entry)]
sys.argv = ["prefill.py", "--shape", "tiny", "--repeats", "1", "--threads", "1", "--budget", "192"]
runpy.run_path({str(BENCHMARKS / "prefill.py")!r}, run_name="__main__")
assert list(sys.modules["claspkit"].__path__) == [{str(ROOT)!r}]
"""
    assert "pruned / fixed indices" in fresh(code, cwd=ROOT)


def test_cache_batches_counts_what_differs(
    benchmark: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference is counted and sized; a run prints every size, order and number of threads, and puts these back."""
    script, threads = benchmark("cache_batches"), torch.get_num_threads()
    base = torch.zeros(3, 2, 4, 5)
    other = base.clone()
    other[1, 0, 0, 0], other[2, 1, 0, 0] = 0.5, 1e-9
    assert script.compare(base, other) == (2, pytest.approx(100 / 120), 0.5)
    monkeypatch.setattr(script, "SIZES", (1, script.BASE))
    script.main(["--pictures", "2", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    passes = [row for row in rows if row["what"].endswith("pictures that differ")]
    assert len(passes) == len(script.SIZES) * 2 * len({threads, 1})
    assert all(row["value"] == 0 for row in passes if f"passes of {script.BASE}, in order, {threads}" in row["what"])
    assert torch.get_num_threads() == threads


def test_the_benchmarks_are_what_make_bench_runs() -> None:
    """Files that begin with an underscore are parts, everything else is a script with a main."""
    scripts = [path for path in BENCHMARKS.glob("*.py") if not path.name.startswith("_")]
    assert {path.name for path in scripts} >= {"prefill.py", "selection.py"}
    assert all("__main__" in path.read_text(encoding="utf-8") for path in scripts)
