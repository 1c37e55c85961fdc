"""The paper's tables: what their own arithmetic says about them, and one's own numbers beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from evaluations import PROFILE, drawn, write_rows
from house import ROOT

from claspkit.calib.charts_compute import PAPER as CHART
from claspkit.calib.cli import main
from claspkit.calib.data_benchmarks import BENCHMARKS
from claspkit.calib.data_mixture import MIXTURE, OTHERS
from claspkit.calib.evaluate_measures import MEASURES
from claspkit.calib.evaluate_ways import WAYS
from claspkit.calib.paper import (
    OURS,
    STATUS,
    PaperRow,
    computed_average,
    find_table,
    follows,
    paper_data,
    paper_tables,
)
from claspkit.calib.study import PAPER as STUDY
from claspkit.profiles.errors import ResourceError, UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import INTENTS
from claspkit.profiles.profile import seal

Run = Callable[..., tuple[int, str, str]]
WIDTH = 0.05  # half of the last digit that an average is printed with


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["paper", *map(str, arguments)])
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return run


def row_of(number: int, label: str, method: str) -> PaperRow:
    """One row of one table."""
    budget = next(budget for budget in find_table(number).budgets if budget.label == label)
    return next(row for row in budget.rows if row.method == method)


def values(number: int, label: str, method: str) -> dict[str, Any]:
    """A row's values by column."""
    return dict(zip(find_table(number).columns, row_of(number, label, method).values, strict=True))


@pytest.mark.parametrize("number", [1, 3, 12, 13])
def test_averages_are_the_mean_of_the_retained_shares(number: int) -> None:
    """Of every row, to the rounding of the average and of the numbers it is made of."""
    table = find_table(number)
    assert table.upper is not None
    for budget in table.budgets:
        for row in budget.rows:
            pairs = zip(row.values, table.upper.values, strict=True)
            shares = [100 * float(mine or 0) / float(whole or 1) for mine, whole in pairs]
            assert sum(shares) / len(shares) == pytest.approx(row.average, abs=2 * WIDTH), (budget.label, row.method)


def test_averages_that_do_not_follow_are_these() -> None:
    """Five of Table 2, whatever its columns were before rounding; DART's would be above CLASP's."""
    odd = [
        (table.number, row.method)
        for table in paper_tables().values()
        for budget in table.budgets
        for row in budget.rows
        if not follows(table, row)
    ]
    assert odd == [(2, method) for method in ("FastV", "LLaVA-PruMerge", "PDrop", "FasterVLM", "DART")]
    table = find_table(2)
    dart, ours = (row_of(2, "Retain 320 Tokens", method) for method in ("DART", "CLASP (ours)"))
    assert (dart.average, ours.average) == (93.9, 95.2)
    assert (computed_average(table, dart) or 0) > (computed_average(table, ours) or 0) > 95.2


def test_a_wrong_digit_is_found() -> None:
    """A score two points off cannot have given the average."""
    table = find_table(1)
    row = row_of(1, "Retain 192 Tokens", "CLASP (ours)")
    assert follows(table, row)
    for place in (0, 3, 6):
        changed = [float(value or 0) + 3 * (index == place) for index, value in enumerate(row.values)]
        assert not follows(table, replace(row, values=tuple(round(value, 1) for value in changed)))
    assert not follows(table, replace(row, average=98.7))


def test_tables_agree_where_they_have_the_same_number() -> None:
    """Ablations, supplements and comparisons quote Tables 1 and 2; MM-Vet at 192 is the one that they disagree on."""
    whole = values(1, "Retain 192 Tokens", "CLASP (ours)")
    sparse = values(1, "Retain 192 Tokens", "SparseVLM")
    for number, method in [(10, "+ Both (CLASP)"), (25, "CLASP (ours)")]:
        mine = values(number, "Retain 192 Tokens", method)
        assert all(whole.get(name, value) == value for name, value in mine.items()), number
    for name, value in values(10, "Retain 192 Tokens", "Baseline").items():
        assert sparse[name] == value
    for tokens in (192, 128, 64):
        first = values(1, f"Retain {tokens} Tokens", "CLASP (ours)")
        assert values(16, f"R={tokens}", "CLASP (Ours)")["mmb"] == first["mmb"]
        assert all(first[name] == value for name, value in values(20, f"R={tokens}", "CLASP (Ours)").items())
    second = values(2, "Retain 320 Tokens", "CLASP (ours)")
    assert all(second[name] == value for name, value in values(12, "Retain 320 Tokens", "CLASP (ours)").items())
    five, searched = values(18, "Retain 192 Tokens", "5 iterations"), find_table(19).budgets[0].rows[0]
    precise = dict(zip(find_table(19).columns, searched.values, strict=True))
    for name in ("mme", "gqa", "pope", "sqa", "textvqa"):
        assert five[name] == precise[name]
        assert precise[name] == pytest.approx(whole[name], abs=WIDTH + 1e-9)
    assert (five["mmvet"], precise["mmvet"]) == (31.8, 33.3)
    left = {line[1]: float(line[6].rstrip("%")) for line in find_table(5).lines if line[0] == "192"}
    upper = find_table(1).upper
    assert upper is not None
    for method, row in (("SparseVLM", sparse), ("CLASP (ours)", whole)):
        assert left[method] == pytest.approx(100 * row["pope"] / float(upper.values[3] or 1), abs=2 * WIDTH)


def test_numbers_of_the_paper_stand_in_one_place() -> None:
    """The chart, the study of routing errors and the taxonomy have what the tables have."""
    assert CHART == {192: 0.984, 128: 0.970, 64: 0.947}
    assert STUDY["reference"] == values(1, "Retain 192 Tokens", "CLASP (ours)")["mme"] == 1848
    assert STUDY["forced_default"] == [1840, 1799, 1756, 1715]
    assert STUDY["random_error"] == [1834, 1819, 1789, 1722, 1627]
    assert STUDY["routers"] == {"Qwen3-8B": 1848, "Llama3-8B": 1840, "Qwen3-32B": 1848}
    assert [float(line[-1]) for line in find_table(6).lines] == [intent.published_rho for intent in INTENTS]


def test_questions_per_benchmark_are_those_that_the_notes_name() -> None:
    """Table 7's columns, summed: which split the paper asked."""
    table = find_table(7)
    sums = {head: sum(int(line[place]) for line in table.lines) for place, head in enumerate(table.heads) if place > 1}
    assert " ".join(f"{name} {count}" for name, count in sums.items()) == (
        "GQA 12578 MMB 4377 MME 2374 MMVet 218 POPE 8910 SQA 4241 VQAv2 107394 TextVQA 5000"
    )
    for data in paper_data().values():
        if "Table 7" in data.note:
            assert f"{sums[data.title]:,}" in data.note


def test_every_table_is_whole() -> None:
    """25 of them; as many values as columns; statuses, ways and data sets that exist."""
    assert list(paper_tables()) == list(range(1, 26))
    known = {
        (f"{one.id}:{one.config}" if one.config else one.id) + f"@{one.split}"
        for one in (*MIXTURE, *OTHERS, *BENCHMARKS)
    }
    names = {way.rstrip("=") for way in WAYS}
    for data in paper_data().values():
        assert data.data is None or (data.data in known and data.measure in MEASURES), data.id
        assert data.note
    for table in paper_tables().values():
        assert table.status in STATUS
        assert (table.status == "other") == (table.command is not None) or table.number == 17
        assert set(table.columns) <= set(paper_data())
        rows = [row for budget in table.budgets for row in budget.rows]
        for row in [*rows, *([table.upper] if table.upper else [])]:
            assert len(row.values) == len(table.columns), (table.number, row.method)
            assert row.way is None or row.way in (OURS, "unpruned") or row.way.partition("=")[0] in names
        assert all(len(line) == len(table.heads) for line in table.lines), table.number
        if table.status == "partly" and table.columns:
            assert any(row.way not in (None, "unpruned") for row in rows)
            assert any(paper_data()[name].data for name in table.columns)


def test_every_table_is_documented() -> None:
    """In docs/reproducing.md, with what can be had of it."""
    page = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    for table in paper_tables().values():
        assert f"\n| {table.number} | {table.status} |" in page, table.number


def test_the_list_and_a_table_are_printed(command: Run) -> None:
    """With the reasons, and a star where an average does not follow."""
    code, out, _ = command()
    assert code == 0
    assert all(table.title in " ".join(out.split()) for table in paper_tables().values() if table.number in (1, 10))
    code, out, _ = command(2)
    assert code == 0
    dart = next(line for line in out.splitlines() if line.startswith("DART"))
    assert dart.split() == ["DART", "61.7", "65.3", "1710", "84.1", "68.4", "79.1", "58.7", "93.9", "*"]
    assert "DART 95.3" in " ".join(out.split())
    code, out, _ = command(22)
    assert code == 0
    assert "claspkit router study" in out


def test_tables_as_json(command: Run) -> None:
    """One object per table, with what each average should be."""
    _, out, _ = command("--json")
    assert [entry["number"] for entry in json.loads(out)] == list(range(1, 26))
    _, out, _ = command(2, "--json")
    rows = json.loads(out)["budgets"][0]["rows"]
    assert [row["method"] for row in rows if not row["follows"]] == [
        *("FastV", "LLaVA-PruMerge", "PDrop", "FasterVLM", "DART")
    ]
    assert rows[-1]["computed_average"] == pytest.approx(95.249, abs=0.001)


def test_own_numbers_stand_beside_the_papers(command: Run, tmp_path: Path) -> None:
    """Table 10 on stand-ins for two columns: each row is the evaluation's, each paper's number the table's."""
    samples = drawn(tmp_path, 18)
    gqa = write_rows(tmp_path, samples, "gqa.jsonl", lambda _: {"scorer": "gqa@1"})
    yes_no = [sample for sample in samples if sample.answers[0] in ("yes", "no")]
    pope = write_rows(tmp_path, yes_no, "pope.jsonl", lambda n: {"scorer": "pope@1", "category": f"part {n % 2}"})
    asked = [10, "--model", "mini", "--profile", PROFILE, "--only", "gqa", "--only", "pope"]
    asked += ["--data", f"gqa={gqa}", "--data", f"pope={pope}", "--out", tmp_path / "out"]
    code, out, err = command(*asked, "--json")
    assert code == 0
    made = json.loads(out)
    assert made["measured"] == ["gqa", "pope"]
    assert [row["way"] for row in made["rows"]] == ["48 default", "48 fusion", "48 ratio", "48"]
    assert [row["paper"]["values"] for row in made["rows"]] == [
        {"gqa": mine[2], "pope": mine[3]} for mine in (row.values for row in find_table(10).budgets[0].rows)
    ]
    sets = {one["data"]: {way["name"]: way for way in one["ways"]} for one in made["evaluation"]["data"]}
    for row in made["rows"]:
        for name, path in (("gqa", gqa), ("pope", pope)):
            assert row["own"]["values"][name] == 100 * sets[str(path)][row["way"]]["score"]
            assert row["own"]["differences"][name]["ci_low"] == 100 * sets[str(path)][row["way"]]["ci_low"]
    assert any("the paper's model is llava-1.5-7b, this is mini" in note for note in made["notes"])
    assert any("GQA is measured on" in note for note in made["notes"])
    code, out, err = command(*asked)
    assert code == 0
    assert "own, 48 fusion" in out
    assert "+ Fusion at 33.3 % of the tokens, the paper" in out
    assert "warning: the paper's model" in " ".join(err.split())


def test_what_a_table_does_not_have_is_refused(command: Run, tmp_path: Path) -> None:
    """A budget, a column, a row of one's own, a table."""
    own = ["--model", "mini", "--profile", PROFILE, "--out", tmp_path]
    refused: list[tuple[list[object], str]] = [
        ([2, *own], "table 2 has no budget of 48 of 144 visual tokens"),
        ([2, *own], "Calibrate with --budget 1/9"),
        ([4, *own], "table 4 has no row that a profile stands for"),
        ([22, *own], "claspkit router study RUN"),
        ([1, *own, "--only", "tgif"], "table 1 has the columns gqa, mmb"),
        ([10, *own, "--data", "gqa"], "give COLUMN=DATA"),
        ([10, *own, "--data", "gqa=mini", "--data", "gqa=a.jsonl"], "--data gqa is given more than once"),
        ([1, "--max-rows", 5], "--max-rows needs --profile"),
        ([1, "--batch-size", 4], "--batch-size needs --profile"),
        (["--seed", 4], "--seed needs a table"),
        ([16, *own, "--only", "mmvet"], "graded by a language model"),
        ([26], "the paper has no table 26; it has 1 to 25"),
        ([1, "--model", "mini"], "--model needs --profile"),
        ([1, "--profile", PROFILE], "--profile needs --model"),
        (["--profile", PROFILE], "--profile needs a table"),
    ]
    for arguments, reason in refused:
        code, _, err = command(*arguments)
        assert (code, reason in " ".join(err.split())) == (UsageError.exit_code, True), (arguments, err)


def test_two_profiles_of_one_budget_are_refused(command: Run, tmp_path: Path) -> None:
    """A row has one."""
    fields = read_profile(PROFILE).model_dump()
    other = tmp_path / "other.json"
    other.write_text(seal({**fields, "extensions": {"copy": True}}).model_dump_json())
    code, _, err = command(1, "--model", "mini", "--profile", PROFILE, "--profile", other, "--out", tmp_path)
    assert code == UsageError.exit_code
    assert "are both of the budget 48 of 144" in " ".join(err.split())


def test_data_sets_out_of_reach_are_all_named_at_once(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is asked; with the command for each."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    code, _, err = command(1, "--model", "mini", "--profile", PROFILE, "--out", tmp_path / "out")
    assert code == ResourceError.exit_code
    assert "7 data set(s) cannot be read" in err
    for name in find_table(1).columns:
        where = paper_data()[name].data
        assert where is not None
        assert f"hf download {where.partition('@')[0].partition(':')[0]}" in err
    assert find_table(1).ours.keys() == {Fraction(1, 3), Fraction(2, 9), Fraction(1, 9)}
