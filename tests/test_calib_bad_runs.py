"""Run folders that are empty, half-written, exchanged, of another version or read-only: one error, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damaged_runs import DAMAGE, listing, relock
from pipeline_runs import calibrate

from claspkit.calib.cli import main
from claspkit.calib.shapes import check_shape
from claspkit.calib.summary_shape import SUMMARY

LOOKING: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "inspect": lambda run: ("inspect", str(run)),
    "inspect --json": lambda run: ("inspect", str(run), "--json"),
    "verify": lambda run: ("verify", str(run / "profile")),
    "diff": lambda run: ("diff", str(run), str(run / "profile")),
    "cache stats": lambda run: ("cache", "stats", str(run)),
    "cache verify": lambda run: ("cache", "verify", str(run)),
}
"""Commands that only read."""
WRITING: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "report": lambda run: ("report", str(run)),
    "export": lambda run: ("export", str(run), "--to", str(run / "out")),
    "export --budget": lambda run: ("export", str(run), "--budget", "1/9", "--to", str(run / "out")),
    "export-optuna": lambda run: ("export-optuna", str(run), str(run / "out.log")),
    "cache gc": lambda run: ("cache", "gc", str(run)),
    "cache repair": lambda run: ("cache", "repair", str(run)),
}
COMMANDS = LOOKING | WRITING
FILES = (
    "config.lock.json",
    "samples.json",
    "labels.jsonl",
    "ledger.jsonl",
    "summary.json",
    "gallery.json",
    "report.html",
    "profile/profile.json",
    "cache/manifest.jsonl",
    "quarantine.jsonl",
    "taxonomy.toml",
    "prototypes.toml",
)
EVERYDAY = {"cut", "folder", "object", "pipe"}
TYPED = {0, 2, 3, 4, 5, 7}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that came to its end."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    calibrate(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "here" / "run"))


def claspkit(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command in this process; returns exit code and what it said on stderr. Another exception is a failure."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0), capsys.readouterr().err


def check_told(code: int, said: str, what: str) -> None:
    """One of the exit codes of the design; an error is at most a few lines, of which one begins with error."""
    assert code in TYPED, f"{what}: exit code {code}"
    if code:
        assert "error: " in said, f"{what}: {said}"
        assert "Traceback" not in said
        assert len(said) < 2500, f"{what}: {said}"


def damaged(run: Path, file: str, how: str, capsys: pytest.CaptureFixture[str], names: set[str]) -> None:
    """Damage one file of a run and let commands at it; nothing appears or changes outside the run."""
    path, outside = run / file, run.parent / "elsewhere"
    if how in {"missing", "link out"} and not path.exists():
        return
    DAMAGE[how](path, outside)
    beside = {name: facts for name, facts in listing(run.parent).items() if not name.startswith("run")}
    for name in [name for name in COMMANDS if name in names]:  # those that only read first
        shutil.rmtree(run / "out", ignore_errors=True)
        before = listing(run) if name in LOOKING else None
        check_told(*claspkit(capsys, *COMMANDS[name](run)), what=f"{name}, {file} {how}")
        assert before is None or listing(run) == before, f"{name} changed the run"
    assert {name: facts for name, facts in listing(run.parent).items() if not name.startswith("run")} == beside


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_one_typed_error_of_the_commands_that_look(
    file: str, run: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four kinds of damage, two commands each."""
    for how in sorted(EVERYDAY):
        damaged(run, file, how, capsys, {"inspect --json", "cache stats" if "cache" in file else "diff"})
        shutil.rmtree(run)
        shutil.copytree(finished, run)


@pytest.mark.long
@pytest.mark.parametrize("file", FILES)
def test_any_damage_of_any_file_is_one_typed_error_of_every_command(
    file: str, run: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thirteen kinds, every command."""
    for how in DAMAGE:
        damaged(run, file, how, capsys, set(COMMANDS))
        shutil.rmtree(run)
        shutil.copytree(finished, run)


@pytest.mark.parametrize("kind", ["absent", "empty", "file"])
def test_a_folder_that_is_no_run_is_said_to_be_none(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command; nothing is made there."""
    place = tmp_path / "run"
    if kind == "empty":
        place.mkdir()
    elif kind == "file":
        place.write_text("not a run")
    for name, command in COMMANDS.items():
        code, said = claspkit(capsys, *command(place))
        check_told(code, said, name)
        assert code != 0, name
        assert str(place) in said, name
        made = {"cache", "cache/manifest.jsonl", "cache/manifest.jsonl.lock"}
        assert set(listing(tmp_path)) <= {"run"} | {f"run/{name}" for name in made}, name


def test_a_half_written_lock_of_every_length_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut anywhere, the lock is damaged and the message says which file."""
    whole = (run / "config.lock.json").read_bytes()
    for length in range(0, len(whole) - 1, 97):
        (run / "config.lock.json").write_bytes(whole[:length])
        code, said = claspkit(capsys, "inspect", str(run))
        assert (code, "config.lock.json is damaged" in said) == (7, True)


def test_a_run_of_another_version_is_said_to_be_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A later format is not called damage, and nobody is told to delete it; an unknown option is let through."""
    relock(run, lambda record: record.update(version=2))
    code, said = claspkit(capsys, "inspect", str(run))
    assert code == 4
    assert "is of version 2" in said
    assert "--fresh" not in said
    relock(run, lambda record: record.update(version=1))
    relock(run, lambda record: record["facts"].update(temperature=0.7))
    assert claspkit(capsys, "inspect", str(run))[0] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", None),
        ("per_class", "x"),
        ("per_class", 0),
        ("block_size", 0),
        ("block_size", None),
        ("holdout", "half"),
        ("holdout", 7),
        ("rhos", ["a"]),
        ("columns", [["image"]]),
        ("router_endpoint", 5),
        ("budgets_used", [[1]]),
        ("stages_used", {}),
        ("strategy", 1),
    ],
)
def test_a_lock_with_a_fact_of_another_form_is_refused_by_name(
    name: str, value: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where its digest fits; and a fact that is not there."""
    relock(run, lambda record: record["facts"].update({name: value}))
    code, said = claspkit(capsys, "inspect", str(run))
    assert (code, f"facts.{name}" in said) == (7, True), said


def test_a_summary_with_a_field_of_another_form_is_refused_by_name(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every place of it taken away or exchanged is a typed error of inspect, or does not matter to it."""
    path = run / "summary.json"
    whole = json.loads(path.read_bytes())
    refused = 0
    for name in whole:
        for value in (None, "x"):
            path.write_text(json.dumps({**whole, name: value}))
            code, said = claspkit(capsys, "inspect", str(run))
            check_told(code, said, name)
            refused += code == 7 and f"summary.{name}" in said
    assert refused > 20
    path.write_text(json.dumps({name: value for name, value in whole.items() if name != "classes"}))
    assert "summary.classes is missing" in claspkit(capsys, "inspect", str(run))[1]
    check_shape(whole, SUMMARY, "summary")


# Root may write anywhere until it gives up the two capabilities that let it; other users never could.
READ_ONLY = """
import ctypes, os, sys
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    for set_ in range(3):
        data[set_] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, data) == 0
from claspkit.calib.cli import main
try:
    open(os.path.join(sys.argv[1], "planted"), "w")
except PermissionError:
    print("read-only", file=sys.stderr)
main(sys.argv[2:])
"""


@pytest.mark.long
def test_a_finished_run_that_may_not_be_written_can_be_looked_at_and_exported(run: Path) -> None:
    """Looking and exporting work; report and cache repair say in one line what is in the way."""
    for path in (*run.rglob("*"), run):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = listing(run)
    codes = {}
    for name, arguments in {
        "inspect": ("inspect", str(run)),
        "export": ("export", str(run), "--to", str(run.parent / "out")),
        "report": ("report", str(run)),
        "repair": ("cache", "repair", str(run)),
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(run), *arguments], capture_output=True, text=True, check=False
        )
        assert done.stderr.startswith("read-only"), "the folder could be written"
        check_told(done.returncode, done.stderr, name)
        codes[name] = done.returncode
    for path in (run, *run.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert codes == {"inspect": 0, "export": 0, "report": 2, "repair": 5}
    assert listing(run) == before
