"""Further budgets of a run, looked at: what inspect and the report say of them is what a run of its own says."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import claspkit
from pipeline_runs import calibrate, run_until
from test_calib_report import Page

from claspkit.calib.folder import RunFolder
from claspkit.calib.gallery import read_gallery
from claspkit.calib.inspecting import inspect_run
from claspkit.calib.report import render_report
from claspkit.calib.report_fit import fit_parts
from claspkit.calib.report_found import Found, collect
from claspkit.calib.report_gallery import gallery_part
from claspkit.calib.summary_budgets import at_budget
from claspkit.calib.view import RunView, read_view
from claspkit.profiles.files import read_profile

SPLITS: dict[str, Any] = {"rhos": (0.2,)}
UNTESTED: dict[str, Any] = {
    "reason": "planted",
    "target": 16,
    "search_samples": {},
    "mean_flops": 1.0,
    "target_flops": 1.0,
    **dict.fromkeys(("search_gain", "uniform", "score", "difference", "ci_low", "ci_high", "p_value")),
    **dict.fromkeys(("profile_id", "path")),
}
"""The rest of what a summary says about budgets by class."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two budgets, 16 and 48 tokens."""
    folder = tmp_path_factory.mktemp("both") / "run"
    calibrate(folder, budget="1/9,1/3", **SPLITS)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the second one alone."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    calibrate(folder, budget="1/3", **SPLITS)
    return folder


@pytest.fixture(scope="module")
def view(both: Path) -> RunView:
    """The run with two budgets, opened."""
    return read_view(both)


@pytest.fixture(scope="module")
def found(view: RunView) -> Found:
    """What its records say."""
    return collect(view)


def plain(facts: Any) -> Any:
    """Facts of the second budget with its candidates named as in a run of its own."""
    return json.loads(json.dumps(facts).replace("@48", ""))


def summary_of(view: RunView) -> dict[str, Any]:
    """Its summary."""
    assert view.summary is not None
    return view.summary


# ------------------------------------------------------------------------------------------------------------ inspect


def test_classes_and_races_are_those_of_a_run_of_its_own(view: RunView, alone: Path) -> None:
    mine, its = inspect_run(view, budget="1/3"), inspect_run(read_view(alone))
    assert plain(mine["classes"]) == its["classes"]
    assert [row["nominal"] for row in mine["race"]] == [48] * 9
    assert plain([{**row, "nominal": None} for row in mine["race"]]) == its["race"]
    assert (mine["budget"], its["budget"]) == (48, 48)
    assert mine["budgets"] == [{"nominal": 16, "asked": "1/9"}, {"nominal": 48, "asked": "1/3"}]
    assert its["budgets"] == [{"nominal": 48, "asked": "1/3"}]


def test_costs_are_told_of_the_run_and_of_the_budget(view: RunView, alone: Path) -> None:
    """Evaluations and unshared FLOPs are those of a run of its own; shared ones add up to the run's."""
    first, second = (inspect_run(view, ["costs"], budget=each)["costs"] for each in ("16", "48"))
    its = inspect_run(read_view(alone), ["costs"])["costs"]
    assert its["at_budget"] is None
    for name in ("evaluations", "exhaustive_evaluations"):
        assert second["at_budget"][name] == its[name]
        assert first["at_budget"][name] + second["at_budget"][name] == first[name] == second[name]
    assert second["at_budget"]["flops_alone"] == pytest.approx(its["flops_alone"])
    assert first["at_budget"]["flops"] + second["at_budget"]["flops"] == pytest.approx(first["flops"])
    assert second["at_budget"]["flops"] < its["flops"]  # it shares what comes before the first stage


@pytest.mark.parametrize(
    ("spelling", "nominal"), [((), 16), (("16",), 16), (("48",), 48), (("1/3",), 48), (("33.3%",), 48), (("0.11",), 16)]
)
def test_a_budget_is_spelt_as_for_export(
    spelling: tuple[str, ...], nominal: int, both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one where none is named; the terminal lists them all and heads with the one shown."""
    options = ("--budget", *spelling) if spelling else ()
    assert claspkit("inspect", str(both), "--json", *options) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["budget"] == nominal
    assert {row["nominal"] for row in facts["classes"]} == {nominal}
    assert {row["default"].endswith("@48") for row in facts["race"]} == {nominal == 48}
    assert facts["summary"] == json.loads((both / "summary.json").read_text())
    assert claspkit("inspect", str(both), *options) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"at {nominal} of 144 visual tokens" in told
    assert f"budget {nominal} tokens; there are 16 (1/9), 48 (1/3), and --budget picks one" in told
    assert f"/profile{'-48' if nominal == 48 else ''}/profile.json" in told
    assert ("object at 48 tokens: race" in told) == (nominal == 48)
    assert f"of these at {nominal} tokens: " in told


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--budget", "32"), "has no --budget 32; there are: 16 (1/9), 48 (1/3)"),
        (("--budget", "adaptive"), "no profile with budgets by class was made; there are: 16 (1/9), 48 (1/3)"),
        (("--budget", "many"), "--budget takes visual tokens (192) or a share"),
        (("--candidate", "deep/0.2@48"), "is of another budget than the one shown: add --budget 48"),
        (("--candidate", "deep/0.3", "--budget", "48"), "--candidate 'deep/0.3' is not in this run"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    options: tuple[str, ...], says: str, both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claspkit("inspect", str(both), *options) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_candidate_is_found_with_and_without_its_budget(view: RunView) -> None:
    """At the second budget both spellings are the same candidate."""
    for name in ("deep/0.2", "deep/0.2@48"):
        facts = inspect_run(view, ["race"], ["text"], [name], "48")
        assert [each["candidate"] for each in facts["race"][0]["candidates"]] == ["deep/0.2@48"]


def test_a_run_that_is_going_on_is_told_at_either_budget(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By tokens and by the text it was asked with; the race of each is its own."""
    run = Path(shutil.copytree(both, tmp_path / "run"))
    (run / "summary.json").unlink()
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (run / "ledger.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    for spelling, nominal in (("1/3", 48), ("48", 48), ("1/9", 16)):
        assert claspkit("inspect", str(run), "--json", "--budget", spelling) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["state"] == "unfinished"
        assert facts["budget"] == facts["costs"]["at_budget"]["nominal"] == nominal
        leads = [row["best_so_far"]["candidate"] for row in facts["classes"] if row["best_so_far"]]
        assert leads
        assert {name.endswith("@48") for name in leads} == {nominal == 48}
    assert claspkit("inspect", str(run), "--budget", "32") == 2
    assert "there are: 16 (1/9), 48 (1/3)" in " ".join(capsys.readouterr().err.split())


def test_budgets_by_class_are_told_class_by_class(both: Path, tmp_path: Path, alone: Path) -> None:
    """``adaptive``: each class as at the budget that it was given."""
    run = Path(shutil.copytree(both, tmp_path / "run"))
    summary = json.loads((run / "summary.json").read_text())
    nominals = {row["intent"]: 48 if row["intent"] in ("text", "scene") else 16 for row in summary["classes"]}
    summary["adaptive"] = {**UNTESTED, "decision": "adaptive", "nominals": nominals}
    (run / "summary.json").write_text(json.dumps(summary))
    facts = inspect_run(read_view(run), budget="adaptive")
    rows = {16: inspect_run(read_view(run))["classes"], 48: inspect_run(read_view(run), budget="48")["classes"]}
    assert facts["budget"] == "adaptive"
    for row, first, second in zip(facts["classes"], rows[16], rows[48], strict=True):
        assert row == (second if nominals[row["intent"]] == 48 else first)
    assert {row["intent"]: row["nominal"] or 16 for row in facts["race"]} == nominals


def test_a_summary_of_an_earlier_version_says_what_to_do(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first budget is told; for another one, and in the report, the way to have it."""
    run = Path(shutil.copytree(both, tmp_path / "run"))
    summary = json.loads((run / "summary.json").read_text())
    for row in summary["budgets"]:
        for name in ("class_rows", "measures", "default_candidate"):
            row.pop(name, None)
    (run / "summary.json").write_text(json.dumps(summary))
    assert claspkit("inspect", str(run)) == 0
    assert claspkit("inspect", str(run), "--budget", "1/3") == 7
    assert "claspkit calibrate --model mini" in " ".join(capsys.readouterr().err.split())
    assert claspkit("report", str(run)) == 0
    assert "wrote the classes of its first budget alone" in (run / "report.html").read_text()


# ------------------------------------------------------------------------------------------------------------- report


def part_of(text: str, nominal: int) -> str:
    """The part of one further budget, named as the first budget's parts are."""
    start = text.index(f'<details class="budget" id="at{nominal}">')
    own = text[start : text.index("</section>", start)]
    return own.replace(f"-at{nominal}", "").replace(f"@{nominal}", "")


def svg_of(text: str, name: str) -> str:
    """The chart of that name, whole."""
    (svg,) = re.findall(rf'<svg [^>]*aria-labelledby="{name}-t .*?</svg>', text, flags=re.DOTALL)
    return str(svg)


def test_the_report_shows_a_further_budget_as_a_run_of_its_own_would(both: Path, alone: Path) -> None:
    """Verdicts, differences, searches, races and weights: the same tables and the same drawings."""
    mine, its = part_of((both / "report.html").read_text(), 48), (alone / "report.html").read_text()
    table = re.compile(r'<table class="classes">.*?</table>', re.DOTALL)
    assert table.findall(mine) == table.findall(its)
    intents = [row["intent"] for row in json.loads((alone / "summary.json").read_text())["classes"]]
    names = [f"{kind}-{intent}" for kind in ("points", "race") for intent in intents]
    assert len(names) == 18
    for name in (*names, "weights"):
        assert svg_of(mine, name) == svg_of(its, name)
    numbers = re.compile(r"<details><summary>Numbers.*?</details>", re.DOTALL)
    kept = [each for each in numbers.findall(its) if "candidates on the search split" in each or "was dropped" in each]
    assert len(kept) == 18
    assert set(kept) <= set(numbers.findall(mine.replace(", at 48 tokens", "")))


def test_ids_are_one_of_a_kind_and_every_pointer_has_a_goal(both: Path) -> None:
    page = Page((both / "report.html").read_text())
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 150
    pointed = [goal for _, attrs in page.tags for goal in (attrs.get("aria-labelledby") or "").split()]
    pointed += [(attrs["href"] or "")[1:] for tag, attrs in page.tags if tag in ("a", "use")]
    assert set(pointed) <= set(ids)
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "region"]
    assert len(labels) == len(set(labels))
    assert page.count("details", class_="budget") == 1


def test_one_budget_alone_has_no_such_section(alone: Path) -> None:
    text = (alone / "report.html").read_text()
    assert "Further budgets" not in text
    assert "<details class=" not in text


def test_samples_of_a_further_budget_are_those_of_its_profile(both: Path, tmp_path: Path) -> None:
    """One right and one wrong of a class at first, more or none on request; each stage keeps that budget's tokens."""
    run = Path(shutil.copytree(both, tmp_path / "run"))
    profile = read_profile(run / "profile-48")
    place, first = RunFolder(run).further_gallery(48), RunFolder(run).gallery.read_bytes()
    for options, most in (((), 1), (("--gallery", "3", "--budget", "1/3"), 3)):
        assert claspkit("report", str(run), *options) == 0
        gallery = read_gallery(place, profile.profile_id)
        assert gallery is not None
        for data in read_view(run).classes:
            shots = [shot for shot in gallery.shots if shot.intent == data.intent]
            assert 1 <= max(sum(shot.right for shot in shots), sum(not shot.right for shot in shots)) <= most
        for shot in gallery.shots:
            assert shot.candidate.endswith("@48")
            assert [len(stage.kept) for stage in shot.stages] == [stage.keep for stage in profile.budget.stages]
        text = part_of((run / "report.html").read_text(), 48)
        assert text.count('<figure class="shot') == len(gallery.shots) > 9
    assert RunFolder(run).gallery.read_bytes() == first
    assert claspkit("report", str(run), "--gallery", "0", "--budget", "48") == 0
    assert not place.exists()
    assert "claspkit report RUN --gallery 2 --budget 48" in (run / "report.html").read_text()


def test_fresh_takes_all_galleries_away(both: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(both, tmp_path / "run"))
    (run / "gallery-of-mine.json").write_text("{}")
    run_until("samples", run, fresh=True)
    assert [path.name for path in run.glob("gallery*")] == ["gallery-of-mine.json"]


def test_a_budget_of_the_report_goes_with_its_gallery(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, says in (
        (("--budget", "48"), "goes with it: for example --gallery 2"),
        (("--budget", "32", "--gallery", "1"), "there are: 16 (1/9), 48 (1/3)"),
    ):
        assert claspkit("report", str(both), *options) == 2
        assert says in " ".join(capsys.readouterr().err.split())


# --------------------------------------------------------------------------------------------------------- its weight


def test_what_there_is_no_room_for_is_left_out_and_named(view: RunView, found: Found) -> None:
    """Samples first, then tables, then searches and races; the verdicts of every budget stay."""
    summary, seen = summary_of(view), []
    names = {row["intent"]: row["name"] for row in summary["classes"]}
    for room in (2_000_000, 400_000, 250_000, 200_000, 150_000, 100_000, 60_000):
        parts = fit_parts(summary, found, room)
        assert sum(len(part.encode()) for part in parts.values()) <= room + 1500  # headings and notes
        assert 'id="weights-t-at48"' in parts["further"]
        tables = "candidates on the search split" in parts["further"]
        seen.append((tables, 'id="race-text-t-at48"' in parts["further"]))
        assert tables or "claspkit inspect RUN --budget 48 --section race" in parts["further"]
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {(True, True), (False, True), (False, False)}
    gallery = found.gallery
    whole = gallery_part(gallery, names)
    for room in (len(whole) // 4, len(whole) // 2):
        text = gallery_part(gallery, names, room)
        assert len(text.encode()) <= room
        shown = text.count('<figure class="shot')
        assert gallery is not None
        assert f"{len(gallery.shots) - shown} more samples were drawn than this page has room for" in text


@pytest.mark.parametrize("budgets", [2, 5, 8])
def test_the_page_stays_below_two_megabytes(budgets: int, view: RunView, found: Found) -> None:
    """Photographs of 25 kB in the largest galleries, of every budget; every budget keeps its verdicts."""
    summary, own = summary_of(view), found.further[48]
    assert own.gallery is not None
    heavy = tuple(
        replace(shot, uid=f"{shot.uid}-{number}", jpeg="A" * 25_000)
        for shot in own.gallery.shots
        for number in range(12)
    )
    galleries = replace(own.gallery, shots=heavy)
    nominals = list(range(48, 47 + budgets))
    rows = [summary["budgets"][0], *({**summary["budgets"][1], "nominal": nominal} for nominal in nominals)]
    further = dict.fromkeys(nominals, replace(own, gallery=galleries))
    text = render_report({**summary, "budgets": rows}, replace(found, gallery=galleries, further=further))
    assert len(heavy) * 25_000 > 2_000_000
    assert 1_000_000 < len(text.encode()) < 2_000_000
    assert text.count('<details class="budget"') == budgets - 1
    assert text.count('<figure class="shot') >= budgets
    assert "more samples were drawn than this page has room for" in text


@pytest.mark.long
def test_five_budgets_with_the_largest_galleries_are_one_small_page(tmp_path: Path) -> None:
    """A real run, up to eight right and eight wrong samples of every class and budget."""
    run = tmp_path / "run"
    calibrate(run, budget="1/3,1/9,2/9,1/2,2/3", **SPLITS)
    for nominal in (48, 16, 32, 72, 96):
        assert claspkit("report", str(run), "--gallery", "8", "--budget", str(nominal)) == 0
    text = (run / "report.html").read_text()
    assert len(text.encode()) < 2_000_000
    assert re.findall(r'class="budget" id="at(\d+)"', text) == ["16", "32", "72", "96"]
    for nominal in (16, 32, 72, 96):
        assert at_budget(summary_of(read_view(run)), nominal)["budget"]["nominal"] == nominal
        assert part_of(text, nominal).count('role="img"') > 9
