"""Several budgets in one run: what they share, that each is what it is alone, and the files they leave."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import exit_code
from pipeline_runs import SMALL_OPTIONS, calibrate, start

from claspkit.cache.store import FeatureStore
from claspkit.calib.budgets import budget_spaces
from claspkit.calib.cli import calibrate_main
from claspkit.calib.command import command_of
from claspkit.calib.evaluator import Evaluator
from claspkit.calib.finished import read_finished
from claspkit.calib.ledger import HOLDOUT, UNPRUNED, Ledger
from claspkit.calib.optuna_export import export_optuna
from claspkit.calib.schedule import MAX_BUDGETS, join_budgets, run_budgets
from claspkit.calib.space import make_space, side_by_side, split_id
from claspkit.profiles.errors import UsageError
from claspkit.profiles.files import read_profile
from claspkit.runtime.models import LoadedModel, load_model

BOTH, RHOS = "1/9,1/3", (0.2,)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two budgets."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    calibrate(folder, budget=BOTH)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run for each of these budgets."""
    folders = {budget: tmp_path_factory.mktemp("alone") / "run" for budget in BOTH.split(",")}
    for budget, folder in folders.items():
        calibrate(folder, budget=budget)
    return folders


# ------------------------------------------------------------------------------------------------ what is asked for


def test_budgets_are_one_text_in_the_order_given() -> None:
    """Several options, commas, blanks; a single one stays as it was typed."""
    assert join_budgets(["1/3", " 1/9 ,64"]) == "1/3,1/9,64"
    assert join_budgets(["35%"]) == "35%"
    for wrong in (["1/3,"], [""], ["1/3", ","]):
        with pytest.raises(UsageError, match="commas between"):
            join_budgets(wrong)


def test_all_budgets_prune_after_the_same_layers() -> None:
    """Published lists and schedules between them alike, in the order asked for."""
    found = run_budgets("1/3,40%,64", "plain", (), 576, 32)
    assert [one.nominal for one in found] == [192, 230, 64]
    assert len({tuple(stage.after_layer for stage in one.stages) for one in found}) == 1


@pytest.mark.parametrize(
    ("budget", "stages", "says"),
    [
        ("1/3,192", (), "1/3 and 192 are the same for this model, 192 of 576"),
        ("192,193", (), "are the same for this model"),  # one off takes the same list
        ("1/3,nope", (), "got 'nope'"),
        ("1/3,1/9", ((2, 300),), "goes with no list of budgets"),
        (",".join(map(str, range(100, 101 + MAX_BUDGETS))), (), f"at most {MAX_BUDGETS} are possible"),
    ],
)
def test_what_cannot_be_meant_is_refused(budget: str, stages: tuple[tuple[int, int], ...], says: str) -> None:
    """The text names what was given twice, or does not go together."""
    with pytest.raises(UsageError, match=says):
        run_budgets(budget, "plain", stages, 576, 32)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--budget", "1/9,1/3", "--stage", "2:30"], "goes with no list of budgets"),
        (["--budget", "1/9", "--budget", "16"], "are the same for this model"),
        (["--budget", "1/9", "--adaptive-budget"], "give others beside it"),
        (["--stage", "2:30", "--adaptive-budget"], "leave --stage out and name the budgets"),
    ],
)
def test_the_command_line_says_what_to_do(
    options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 before anything is computed."""
    out = tmp_path / "run"
    assert exit_code(["--model", "mini", "--per-class", "24", *options, "--out", str(out)], calibrate_main) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (out / "samples.json").exists()


# ----------------------------------------------------------------------------------------------------- the candidates


def test_a_further_budget_has_candidates_of_its_own() -> None:
    """Ids end in the nominal, rows carry its tokens; those of the first budget are what they always were."""
    base = make_space(23)
    first, second = budget_spaces(base, run_budgets("1/3,64", "plain", (), 576, 32))
    assert first == base
    assert first.sha256 == second.sha256  # prototypes and splits; what is kept is locked beside it
    assert [each.id for each in second.candidates] == [f"{each.id}@64" for each in first.candidates]
    assert {each.row.keeps for each in first.candidates} == {None}
    assert {each.row.keeps for each in second.candidates} == {(66, 34, 20)}
    assert not {*first.candidates} & {*second.candidates}
    for space, other in ((first, second), (second, first)):
        for candidate in space.candidates:
            assert space.find(candidate.id) == candidate
            with pytest.raises(KeyError):
                other.find(candidate.id)
    beside = second.candidate(second.prototypes[1].refined((0.2, 0.5, 1.0)), 0.43)
    assert split_id(beside.id) == ("deep", (0.2, 0.5, 1.0), 0.43, 64)
    assert second.find(beside.id) == beside
    assert split_id("deep/0.7") == ("deep", None, 0.7, None)


# ---------------------------------------------------------------------------------------------------- what is shared


@contextmanager
def counted(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Reads of a picture's layers, fusions (each goes through the projector once) and prompt rows at layer 0."""
    counts: Counter[str] = Counter()
    read = FeatureStore.read

    def reading(store: FeatureStore, *args: Any) -> Any:
        counts["reads"] += 1
        return read(store, *args)

    def rows(_: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        counts["rows"] += hidden.shape[0] if hidden.shape[1] > 1 else 0

    first: Any = loaded.family.decoder_layers(loaded.model)[0]
    projector: Any = loaded.family.projector(loaded.model)
    handles = [
        first.self_attn.register_forward_pre_hook(rows, with_kwargs=True),
        projector.register_forward_hook(lambda *_: counts.update(fusions=1)),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "read", reading)
        yield counts
    for handle in handles:
        handle.remove()


def test_budgets_share_reads_fusions_and_the_first_layers(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One read per picture, one fusion and one pass up to the first stage per prototype, for all budgets and splits."""
    run, loaded = read_finished(finished), load_model("mini")
    spaces = budget_spaces(run.space, run_budgets(BOTH, "plain", (), 144, 8))
    block = run.classes[0].search[:4]
    both = side_by_side(each for space in spaces for each in space.candidates)
    with FeatureStore.open(finished / "cache") as store:
        stages = run_budgets("1/9", "plain", (), 144, 8)[0].stages
        evaluator = Evaluator(loaded, store, stages, 4)
        with counted(loaded, monkeypatch) as together:
            shared = [each for found in evaluator.evaluate(block, both) for each in found]
        with counted(loaded, monkeypatch) as apart:
            single = [
                each
                for space in spaces
                for found in evaluator.evaluate(block, side_by_side(space.candidates))
                for each in found
            ]
    prototypes = len(run.space.prototypes)
    prefix = 1  # the text that all prompts begin with, the first time it is met
    assert together == {"reads": 4, "fusions": prototypes, "rows": 4 * prototypes + prefix}
    assert apart == {"reads": 8, "fusions": 2 * prototypes, "rows": 8 * prototypes}
    answers = {each.candidate: (each.answers, each.scores) for each in single}
    assert {each.candidate: (each.answers, each.scores) for each in shared} == answers


def test_every_budget_is_what_it_is_alone(finished: Path, alone: dict[str, Path]) -> None:
    """Scores and answers of every candidate, winners, verdicts and evidence are those of a run of its own."""
    together = Ledger.read(finished / "ledger.jsonl")
    folders = {"1/9": (finished / "profile", ""), "1/3": (finished / "profile-48", "@48")}
    for budget, (profile, suffix) in folders.items():
        own = Ledger.read(alone[budget] / "ledger.jsonl")
        pooled = json.loads((alone[budget] / "summary.json").read_text())["pooled"]["candidate"]
        for entry in own.entries():
            name = entry.candidate if entry.candidate == UNPRUNED else entry.candidate + suffix
            found = together.scores(entry.split, entry.intent, name)
            if entry.split == HOLDOUT and entry.candidate == pooled and not found:
                continue  # the one configuration for all classes is compared at the first budget only
            assert found == own.scores(entry.split, entry.intent, entry.candidate)
        mine, its = read_profile(profile), read_profile(alone[budget] / "profile")
        assert (mine.budget, mine.router, mine.model) == (its.budget, its.router, its.model)
        for spec, wanted in zip(mine.classes, its.classes, strict=True):
            assert spec.reason.replace(suffix or "@", "") == wanted.reason
            assert spec.model_copy(update={"reason": ""}) == wanted.model_copy(update={"reason": ""})


def test_one_budget_alone_leaves_what_it_always_left(alone: dict[str, Path]) -> None:
    """No further profile, no list of budgets in summary or lock."""
    folder = alone["1/9"]
    assert [path.name for path in folder.glob("profile*")] == ["profile"]
    assert not {"budgets", "adaptive"} & {*json.loads((folder / "summary.json").read_text())}
    assert "budgets_used" not in json.loads((folder / "config.lock.json").read_text())["facts"]


# ------------------------------------------------------------------------------------------------------- what is left


def test_summary_terminal_and_report_tell_of_all_budgets(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row per budget with its profile's id and path; the table and the chart hold the same numbers."""
    summary = json.loads((finished / "summary.json").read_text())
    rows = summary["budgets"]
    assert [(row["nominal"], row["path"]) for row in rows] == [
        (16, "profile/profile.json"),
        (48, "profile-48/profile.json"),
    ]
    for row in rows:
        profile = read_profile(finished / row["path"])
        assert profile.profile_id == row["profile_id"]
        assert [stage.model_dump() for stage in profile.budget.stages] == row["stages"]
        assert row["difference"] == pytest.approx(row["profile"] - row["default"])
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
        assert row["default_ci_low"] <= row["default"] <= row["default_ci_high"]
        assert row["changed"] == [spec.intent for spec in profile.classes if spec.decision == "searched"]
    assert rows[0]["profile_id"] == summary["profile_id"]
    assert rows[0]["flops_share"] < rows[1]["flops_share"] < 1
    assert exit_code(["inspect", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert "profile-48" in shown
    report = (finished / "report.html").read_text()
    assert 'id="budgets-chart-d"' in report
    assert "profile-48/profile.json" in report


def test_export_picks_a_budget(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By tokens or by share; the first one where none is named; a list of them where it is not there."""
    for number, (option, folder) in enumerate(
        (([], "profile"), (["--budget", "1/3"], "profile-48"), (["--budget", "16"], "profile"))
    ):
        target = tmp_path / str(number)
        assert exit_code(["export", str(finished), "--to", str(target), *option]) == 0
        assert (target / "profile.json").read_bytes() == (finished / folder / "profile.json").read_bytes()
    for wrong in ("32", "adaptive"):
        assert exit_code(["export", str(finished), "--to", str(tmp_path / "no"), "--budget", wrong]) == 2
        assert "there are: 16, 48" in " ".join(capsys.readouterr().err.split())
    assert exit_code(["export", str(tmp_path), "--to", str(tmp_path / "no"), "--budget", "16"]) == 2


def test_the_search_is_exported_budget_by_budget(finished: Path, tmp_path: Path) -> None:
    """A study per class and budget, each with that budget's candidates."""
    found = export_optuna(finished, tmp_path / "study.log")
    candidates = len(make_space(7, RHOS).candidates)
    assert found["object"] == found["object@48"] == candidates
    assert len(found) == 2 * 9


def test_a_finished_run_is_opened_at_its_first_budget(finished: Path) -> None:
    """Studies and power read the first budget's winners, whatever else the ledger holds."""
    run = read_finished(finished)
    tested = {row["intent"]: row["tested"] for row in json.loads((finished / "summary.json").read_text())["classes"]}
    assert {intent: each.id for intent, each in run.winners().items()} == tested


def test_the_command_of_a_run_names_all_its_budgets(finished: Path) -> None:
    """One option, with commas, and the flag where it was given."""
    run = read_finished(finished)
    assert "--budget 1/9,1/3" in run.command
    assert "adaptive" not in run.command
    assert "--adaptive-budget" in command_of({**run.facts, "adaptive_budget": True}, finished)


def ids(folder: Path) -> dict[str, str]:
    """Profile ids by folder."""
    return {path.parent.name: read_profile(path).profile_id for path in sorted(folder.glob("profile*/profile.json"))}


def test_half_a_ledger_ends_in_the_same_profiles(finished: Path, tmp_path: Path) -> None:
    """What is gone is computed again, whichever budget it was of."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    wanted = ids(run)
    assert set(wanted) == {"profile", "profile-48"}
    ledger = run / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:30])
    for name in (*wanted, "summary.json"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    calibrate(run, budget=BOTH)
    assert ids(run) == wanted


@pytest.mark.long
def test_kill_and_run_again(finished: Path, tmp_path: Path) -> None:
    """Kill -9 in the search of a process with two --budget options, then the same: the same profiles."""
    run = tmp_path / "run"
    process = start(run, "--budget", "1/3")
    deadline = time.monotonic() + 120
    while not (run / "ledger.jsonl").exists() or (run / "ledger.jsonl").read_bytes().count(b"\n") < 8:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    calibrate(run, budget=BOTH)
    assert ids(run) == ids(finished)


def test_fresh_takes_the_further_profiles_away(finished: Path, tmp_path: Path) -> None:
    """Another configuration is refused; --fresh deletes every profile of the run, and spares strangers."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "profile-of-mine").mkdir()
    assert exit_code([*SMALL_OPTIONS, "--out", str(run)], calibrate_main) == 4
    assert exit_code(["label", *SMALL_OPTIONS, "--out", str(run), "--fresh"]) == 0
    assert [path.name for path in run.glob("profile*")] == ["profile-of-mine"]
    assert not (run / "ledger.jsonl").exists()
