"""The studies that optuna-dashboard opens, opened with Optuna and compared with the ledger they were made from."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from statistics import fmean

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from claspkit.calib.cli import main
from claspkit.calib.config import RunConfig, lock
from claspkit.calib.folder import RunFolder
from claspkit.calib.ledger import HOLDOUT, SEARCH, UNPRUNED, Entry, Ledger
from claspkit.calib.optuna_export import FACTS, check_target, export_optuna
from claspkit.profiles.errors import CorruptError, UsageError

CONFIG = RunConfig(model="mini", per_class=80, strategy="race", seed=3)
POINT = "deep[0.2,1,0.55]/0.43"
RIGHT = {
    "default/0.9": (24, 20, 8),
    "middle/0.3": (26, 25, 10),
    POINT: (20, 26, 11),
    "deep/0.1": (31,),  # the best mean of all, on the first block only
    "hybrid/0": (16, 16, 4),
}
"""Right answers per block of 32, 32 and 16 samples."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a lock and a ledger of two classes: one as above, one with a single candidate."""
    folder = tmp_path_factory.mktemp("optuna") / "run"
    folder.mkdir()
    lock(folder, CONFIG.to_dict())
    ledger = Ledger.open(folder / "ledger.jsonl")
    sizes = (32, 32, 16)
    for name, right in RIGHT.items():
        scores = [tuple(float(i < n) for i in range(size)) for n, size in zip(right, sizes, strict=False)]
        ledger.put(Entry(SEARCH, "counting", name, i, "0", each, ("",)) for i, each in enumerate(scores))
    ledger.put([Entry(SEARCH, "text", "default/0.9", 0, "0", (1.0, 0.0), ("", ""))])
    ledger.put([Entry(HOLDOUT, "counting", name, 0, "1", (1.0, 0.0), ("", "")) for name in (POINT, UNPRUNED)])
    ledger.close()
    return folder


def opened(file: Path) -> BaseStorage:
    """The storage of a file, as Optuna's own tools open it."""
    return RDBStorage(f"sqlite:///{file}") if file.suffix == ".db" else JournalStorage(JournalFileBackend(str(file)))


@pytest.mark.parametrize("ending", [".db", ".log"])
def test_the_best_trial_is_the_ledgers(run: Path, tmp_path: Path, ending: str) -> None:
    """Largest mean of those that saw every sample; everybody's samples, means, parameters and holdout beside it."""
    file = tmp_path / f"scores{ending}"
    assert export_optuna(run, file) == {"counting": 5, "text": 1}
    study = optuna.load_study(study_name="counting", storage=opened(file))
    ledger = Ledger.read(run / "ledger.jsonl")
    scores = {name: ledger.scores(SEARCH, "counting", name) for name in RIGHT}
    whole = {name: fmean(values) for name, values in scores.items() if len(values) == 80}
    best = max(whole, key=lambda name: whole[name])
    assert study.best_trial.user_attrs["candidate"] == best == "middle/0.3"
    assert study.best_value == whole[best] == pytest.approx(61 / 80)
    assert study.best_params == {"prototype": "middle", "rho": 0.3}
    assert study.direction.name == "MAXIMIZE"
    assert study.user_attrs == {name: getattr(CONFIG, name) for name in FACTS}

    trials = {trial.user_attrs["candidate"]: trial for trial in study.trials}
    assert list(trials) == list(RIGHT), "not in the order of the ledger"
    for name, trial in trials.items():
        assert trial.user_attrs["samples"] == len(scores[name])
        assert trial.value == fmean(scores[name])
        assert trial.state == (TrialState.COMPLETE if name in whole else TrialState.PRUNED)
    assert trials["middle/0.3"].intermediate_values == {32: 26 / 32, 64: 51 / 64, 80: 61 / 80}
    assert trials["deep/0.1"].intermediate_values == {32: 31 / 32}
    assert trials[POINT].params == {"prototype": "deep", "rho": 0.43, "score_1": 0.2, "score_2": 1, "score_3": 0.55}
    assert (trials[POINT].user_attrs["holdout_score"], trials[POINT].user_attrs["holdout_samples"]) == (0.5, 2)
    assert "holdout_score" not in trials["middle/0.3"].user_attrs


def test_a_score_that_is_not_finite_is_a_failed_trial(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no value, and the study no best trial."""
    broken = Entry(SEARCH, "text", "default/0.9", 0, "0", (1.0, math.nan), ("", ""))
    monkeypatch.setattr(Ledger, "read", lambda path, known=None: Ledger(path, {broken.key: broken}, None))
    export_optuna(run, tmp_path / "scores.db")
    (trial,) = optuna.load_study(study_name="text", storage=opened(tmp_path / "scores.db")).trials
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.FAIL, None, {})


def test_what_a_killed_runs_workers_scored_is_exported_too(run: Path, tmp_path: Path) -> None:
    """It stands in ledgers of their own until the run goes on."""
    killed = Path(shutil.copytree(run, tmp_path / "killed"))
    folder = RunFolder(killed)
    folder.ledger.rename(folder.worker_ledger(1))
    assert export_optuna(killed, tmp_path / "scores.log") == {"counting": 5, "text": 1}


def test_the_command_writes_it_and_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file on stdout, the classes on stderr, and not a word of Optuna's own."""
    file = tmp_path / "scores.db"
    with pytest.raises(SystemExit) as ended:
        main(["export-optuna", str(run), str(file)])
    said = capsys.readouterr()
    assert (ended.value.code, said.out.strip()) == (0, str(file))
    assert [line.split() for line in said.err.splitlines()] == [["counting", "5", "trials"], ["text", "1", "trials"]]
    assert set(optuna.get_all_study_names(opened(file))) == {"counting", "text"}


def test_what_cannot_be_written_is_refused_and_left_alone(run: Path, tmp_path: Path) -> None:
    """Another ending, no folder, a file that is there; a run without scores names the command, no run is none."""
    there = tmp_path / "there.db"
    there.write_bytes(b"mine")
    for file, words in (
        (tmp_path / "scores.csv", "ends in none of .db, .sqlite3"),
        (tmp_path / "none" / "scores.db", "there is no folder"),
        (there, "is there already"),
    ):
        with pytest.raises(UsageError, match=words):
            check_target(file)
        with pytest.raises(UsageError, match=words):
            export_optuna(run, file)
    assert there.read_bytes() == b"mine"
    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    (bare / "ledger.jsonl").unlink()
    with pytest.raises(UsageError, match=r"no scores yet.*claspkit search --model mini --per-class 80"):
        export_optuna(bare, tmp_path / "scores.db")
    with pytest.raises(CorruptError, match="not a run folder"):
        export_optuna(tmp_path, tmp_path / "scores.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "there.db"]


@pytest.mark.parametrize(
    ("command", "file", "words"),
    [("label", "scores.db", "ends at 'label'"), ("search", "scores.txt", "ends in none of")],
)
def test_the_option_is_checked_before_anything_runs(
    command: str, file: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stage without scores and a file that cannot be: exit code 2, and no run folder."""
    options = ["--model", "mini", "--per-class", "24", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        main([command, *options, "--export-optuna", str(tmp_path / file)])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_search_of_mini_is_exported(tmp_path: Path) -> None:
    """``claspkit search --export-optuna``: nine studies, and every best trial has the ledger's best mean."""
    file, folder = tmp_path / "scores.db", tmp_path / "run"
    options = ["--model", "mini", "--per-class", "24", "--budget", "1/9", "--rho", "0.2", "--max-new-tokens", "4"]
    with pytest.raises(SystemExit) as ended:
        main(["search", *options, "--strategy", "race", "--out", str(folder), "--export-optuna", str(file)])
    assert ended.value.code == 0
    ledger = Ledger.read(folder / "ledger.jsonl")
    storage = opened(file)
    assert len(optuna.get_all_study_names(storage)) == 9
    for intent in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=intent, storage=storage)
        names = ledger.candidates(SEARCH, intent)
        assert [trial.user_attrs["candidate"] for trial in study.trials] == names
        scores = [ledger.scores(SEARCH, intent, name) for name in names]
        most = max(map(len, scores))
        assert study.best_value == max(fmean(values) for values in scores if len(values) == most)
