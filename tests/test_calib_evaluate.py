"""``claspkit evaluate`` on mini: against asking row by row, killed and continued, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import PROFILE, drawn, write_rows

from claspkit.calib.apply import Asker
from claspkit.calib.cli import INTERRUPTED, main
from claspkit.calib.evaluate import Setting, check_finite, evaluate
from claspkit.calib.evaluate_data import Rows, read_rows
from claspkit.calib.evaluate_table import shown_difference, signed
from claspkit.calib.evaluate_ways import read_ways
from claspkit.calib.evidence import compare
from claspkit.calib.images import open_image
from claspkit.calib.progress import Reporter
from claspkit.calib.samples import Sample
from claspkit.calib.scorers import score_answer
from claspkit.profiles.errors import (
    CorruptError,
    NotFiniteError,
    ResourceError,
    UsageError,
)
from claspkit.profiles.files import read_profile
from claspkit.profiles.profile import seal
from claspkit.profiles.records import RecordLog, read_records
from claspkit.router.route import make_router
from claspkit.runtime.inputs import batch_inputs
from claspkit.runtime.models import LoadedModel, load_model

COUNT = 16
WAY = "rho=0"  # another way than the example's, whose classes have the default or near it
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows and pictures."""
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def samples(folder: Path) -> list[Sample]:
    """What is asked, as mini draws it."""
    return drawn(folder, COUNT)


@pytest.fixture(scope="module")
def rows(folder: Path, samples: list[Sample]) -> Path:
    """A file of it."""
    return write_rows(folder, samples)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """Mini."""
    return load_model("mini")


@pytest.fixture(scope="module")
def found(rows: Path, loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An evaluation that nobody disturbed."""
    return run_on(rows, loaded, tmp_path_factory.mktemp("out"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "--out", str(tmp_path / "out"), *map(str, arguments)])
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return run


def read(data: Path | str, out: Path) -> list[Rows]:
    """The rows of a file."""
    quiet = Reporter(quiet=True)
    return read_rows([str(data)], "mini", out, image_root=None, max_rows=None, seed=0, report=quiet)


def run_on(data: Path, loaded: LoadedModel, out: Path, batch_size: int = 8) -> dict[str, Any]:
    """Evaluate the example profile, and one variant of it."""
    setting = Setting(loaded, 16, batch_size)
    return evaluate(setting, read_ways([PROFILE], [WAY]), read(data, out), out, Reporter(quiet=True))


def answers_in(out: Path) -> list[list[Any]]:
    """What a folder's log holds, line by line, in no order of rows."""
    return sorted(record["said"] for record in read_records(out / "answers.jsonl"))


def test_it_is_what_asking_row_by_row_gives(
    folder: Path, samples: list[Sample], rows: Path, loaded: LoadedModel, found: dict[str, Any], tmp_path: Path
) -> None:
    """``claspkit run``'s own code answers every row alone: same answers, scores, tokens, difference and interval."""
    profile = read_profile(PROFILE)
    asker = Asker(loaded, profile, PROFILE.parent)
    asked = [asker.ask(open_image(s.image, folder), s.prompt, None, 16, compare=True) for s in samples]
    run_on(rows, loaded, tmp_path, COUNT)
    ways = read_ways([PROFILE], [])
    log = read_records(tmp_path / "answers.jsonl")
    assert len(log) == 3
    unpruned, pruned = ([said[0] for said in record["said"]] for record in log[:2])
    assert unpruned == [answer.unpruned for answer in asked]
    assert pruned == [answer.text for answer in asked]
    assert unpruned != pruned
    ours, theirs = ([score_answer(s, t) for s, t in zip(samples, texts, strict=True)] for texts in (pruned, unpruned))
    expected = compare(ours, theirs, [sample.image_sha256 for sample in samples], 0)
    (one,) = found["data"]
    whole, way = one["ways"][:2]
    assert (whole["score"], way["score"]) == (expected.default_score, expected.score)
    for name in ("difference", "ci_low", "ci_high"):
        assert way[name] == pytest.approx(getattr(expected, name), abs=1e-12)
    assert way["retained"] == way["score"] / whole["score"]
    assert way["same_answers"] == sum(a == b for a, b in zip(pruned, unpruned, strict=True)) / COUNT
    assert (whole["tokens"], way["tokens"]) == (144, profile.budget.mean_tokens_leaving)
    labels = [answer.intent for answer in asked]
    assert one["classes"] == {ways[1].name: {intent: labels.count(intent) for intent in dict.fromkeys(labels)}}


@pytest.mark.parametrize("size", [1, pytest.param(7, marks=pytest.mark.long)])
def test_neighbours_in_a_batch_change_nothing(
    size: int, rows: Path, loaded: LoadedModel, found: dict[str, Any], tmp_path: Path
) -> None:
    """Nor do batches of a number that does not divide."""
    again = run_on(rows, loaded, tmp_path, size)
    assert (again["digest"], again["data"]) == (found["digest"], found["data"])


def test_what_was_asked_is_not_asked_again(rows: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    """Also where a profile or a way is added; the model is not touched."""
    first = run_on(rows, loaded, tmp_path)
    size = (tmp_path / "answers.jsonl").stat().st_size
    setting = Setting(replace(loaded, model=Untouched(loaded.model)), 16, 8)
    again = evaluate(setting, read_ways([PROFILE], [WAY]), read(rows, tmp_path), tmp_path, Reporter(quiet=True))
    assert again["data"] == first["data"]
    assert (tmp_path / "answers.jsonl").stat().st_size == size
    ways = read_ways([PROFILE], [WAY, "default"])
    more = evaluate(Setting(loaded, 16, 8), ways, read(rows, tmp_path), tmp_path, Reporter(quiet=True))
    assert [way["name"] for way in more["data"][0]["ways"]] == ["unpruned", "48", f"48 {WAY}", "48 default"]
    assert more["data"][0]["ways"][:3] == first["data"][0]["ways"]
    assert (tmp_path / "answers.jsonl").stat().st_size > size


class Untouched:
    """A model that may be described, and not run."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        assert name != "generate", "the model was asked again"
        return getattr(self._model, name)


def start(rows: Path, out: Path) -> subprocess.Popen[str]:
    """Start an evaluation as a user would, in small batches."""
    program = [sys.executable, "-c", "from claspkit.calib.cli import main; main()", "evaluate"]
    options = ["--profile", str(PROFILE), "--model", "mini", "--data", str(rows), "--way", WAY, "--batch-size", "2"]
    return subprocess.Popen(
        [*program, *options, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many lines are on the disk."""
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    pytest.fail(f"ended before anything could be done to it: {process.communicate()}")


@pytest.mark.parametrize("sent", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_stopped_in_the_middle_it_goes_on_to_the_same_numbers(
    sent: signal.Signals, rows: Path, loaded: LoadedModel, found: dict[str, Any], tmp_path: Path
) -> None:
    """By kill -9 or Ctrl-C, then the rest: as undisturbed, and no batch stands in the log twice."""
    log = tmp_path / "answers.jsonl"
    process = start(rows, tmp_path)
    wait_for_lines(log, 6, process)
    process.send_signal(sent)
    _, err = process.communicate()
    assert process.returncode == (INTERRUPTED if sent is signal.SIGINT else -sent)
    assert ("run the same command again" in err) is (sent is signal.SIGINT)
    assert not (tmp_path / "results.json").exists()
    half = log.read_bytes()
    assert run_on(rows, loaded, tmp_path, 2)["digest"] == found["digest"]
    records = read_records(log)
    assert len({record["key"] for record in records}) == len(records) == 3 * COUNT // 2
    assert log.read_bytes().startswith(half[: half.rindex(b"\n")])
    assert json.loads((tmp_path / "results.json").read_bytes())["digest"] == found["digest"]


def test_a_second_one_in_the_same_folder_is_refused(rows: Path, command: Run, tmp_path: Path) -> None:
    """The log has one writer."""
    (tmp_path / "out").mkdir()
    with RecordLog(tmp_path / "out" / "answers.jsonl"):
        code, _, err = command("--profile", PROFILE, "--model", "mini", "--data", rows)
    assert code == ResourceError.exit_code
    assert "in use by process" in err


def test_the_command_says_what_it_found(rows: Path, found: dict[str, Any], command: Run) -> None:
    """A table for people, one object for programs; both of the same evaluation."""
    asked = ["--profile", PROFILE, "--model", "mini", "--data", rows, "--way", WAY]
    code, out, err = command(*asked)
    assert code == 0
    assert f"rows {COUNT}," in out
    assert "results.json" in err
    for way in found["data"][0]["ways"]:
        line = next(line for line in out.splitlines() if line.startswith(way["name"] + " "))
        assert f"{100 * way['score']:.1f}" in line
        assert f"{way['tokens']:.1f}" in line
    code, out, err = command(*asked, "--json")
    assert (code, err) == (0, "")
    plain = json.loads(out)
    assert plain["digest"] == found["digest"]
    assert set(plain) == {
        *("model", "model_fingerprint", "processor", "dtype", "max_new_tokens", "device", "batch_size"),
        *("ways", "data", "average", "digest"),
    }
    assert [way["name"] for way in plain["ways"]] == ["unpruned", "48", f"48 {WAY}"]
    assert [row["retained"] for row in plain["average"]] == [way["retained"] for way in plain["data"][0]["ways"]]
    assert plain["data"] == found["data"]


def test_bad_rows_are_told_and_the_others_asked(folder: Path, samples: list[Sample], command: Run) -> None:
    """A picture that is not there, a line that is no JSON."""
    path = write_rows(folder, samples[:6], "bad.jsonl")
    bad = json.dumps({"image": "gone.png", "prompt": "What?", "answer": "x"})
    path.write_text(path.read_text() + f"{bad}\n{{\n")
    code, out, _ = command("--profile", PROFILE, "--model", "mini", "--data", path)
    assert code == 0
    assert "rows 6," in out
    assert "2 rows were left out, for all ways; the first: bad.jsonl:7" in out


def test_a_picture_that_the_processor_refuses_is_left_out_for_all_ways(
    folder: Path, samples: list[Sample], loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of its batch is asked."""
    asked = samples[4].prompt

    def picky(model: LoadedModel, pictures: Any, prompts: Any) -> Any:
        if asked in prompts:
            raise ValueError("too odd")
        return batch_inputs(model, pictures, prompts)

    path = write_rows(folder, samples[:9], "odd.jsonl")
    monkeypatch.setattr("claspkit.calib.evaluate_answers.batch_inputs", picky)
    (one,) = run_on(path, loaded, tmp_path)["data"]
    assert (one["rows"], one["left_out"]) == (8, 1)
    assert one["left_out_rows"] == [
        {"where": "odd.jsonl:5", "reason": "the model's image processor refuses the picture: too odd"}
    ]


def test_nan_in_one_row_takes_that_ways_score_and_no_other_row(
    folder: Path, samples: list[Sample], tmp_path: Path
) -> None:
    """A model that overflows for one prompt: counted, refused, and the neighbours' answers are what they were."""
    few = samples[:6]
    path = write_rows(folder, few, "nan.jsonl")
    loaded = load_model("mini")
    (tmp_path / "well").mkdir()
    run_on(path, loaded, tmp_path / "well", 6)
    victim = max(few, key=lambda sample: len(sample.prompt))
    ids = loaded.processor.tokenizer(victim.prompt, add_special_tokens=False)["input_ids"]
    marks = torch.tensor(ids)
    embeddings = loaded.model.get_input_embeddings()

    def spoil(_: Any, arguments: tuple[Any, ...], made: torch.Tensor) -> torch.Tensor:
        tokens = arguments[0]
        hit = (tokens[:, :, None] == marks).any(1).all(1) if tokens.shape[1] > 1 else torch.zeros(len(tokens)) > 0
        return made.masked_fill(hit[:, None, None], float("nan"))

    handle = embeddings.register_forward_hook(spoil)
    found = run_on(path, loaded, tmp_path, 6)
    handle.remove()
    (one,) = found["data"]
    counts = [way["not_finite"] for way in one["ways"]]
    assert counts == [counts[0]] * 3
    assert 1 <= counts[0] < 6
    assert [way["score"] for way in one["ways"]] == [None] * 3
    assert one["ways"][0]["tokens"] == 144  # rows without an answer are no rows with 0 tokens
    well, spoilt = (answers_in(each)[0] for each in (tmp_path / "well", tmp_path))
    assert {tuple(said[:1]) for said in spoilt} - {(None,)} <= {tuple(said[:1]) for said in well}
    with pytest.raises(NotFiniteError, match=f"unpruned on .*nan.jsonl: {counts[0]} of 6 rows"):
        check_finite(found)


def test_rows_that_a_calibration_drew_from_are_said_to_be_seen(
    folder: Path, samples: list[Sample], loaded: LoadedModel, tmp_path: Path
) -> None:
    """By name and split; of what mini draws the seed decides."""
    fields = read_profile(PROFILE).model_dump()
    path = write_rows(folder, samples[:2], "seen.jsonl")
    for name, revision, data, seen in [
        ("seen.jsonl", "sha256:other", path, True),
        ("unseen.jsonl", "sha256:other", path, False),
        ("claspkit.mini", "seed:0", "mini", True),
        ("claspkit.mini", "seed:7", "mini", False),
    ]:
        drew = {"name": name, "revision": revision, "split": None, "samples": 9}
        profile = seal({**fields, "calibration": {**fields["calibration"], "datasets": [drew]}})
        (one,) = read_rows(
            [str(data)], "mini", tmp_path, image_root=None, max_rows=9, seed=0, report=Reporter(quiet=True)
        )
        assert one.seen_by(profile) is seen, (name, revision)


def test_one_picture_has_a_difference_and_no_interval(
    folder: Path, samples: list[Sample], loaded: LoadedModel, tmp_path: Path
) -> None:
    """In the result, and in the table, where a space stands behind the difference."""
    mine = [sample for sample in samples if sample.image_sha256 == samples[0].image_sha256]
    found = run_on(write_rows(folder, mine, "single.jsonl"), loaded, tmp_path)
    way = found["data"][0]["ways"][1]
    assert way["difference"] is not None
    assert (way["ci_low"], way["ci_high"]) == (None, None)
    assert shown_difference(way, "share") == signed(100 * way["difference"], None, None)
    assert "[" not in shown_difference(way, "share")
    assert signed(-0.04, -3.0, 0.5) == "+0.0 [-3.0, +0.5]"


def test_rows_that_are_routed_otherwise_are_asked_anew(
    rows: Path, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version's rules may give a prompt another class, and the profile's id does not tell."""
    first = run_on(rows, loaded, tmp_path)

    def newer(*given: Any) -> Any:
        route = make_router(*given)
        return lambda prompts: [replace(label, intent="default") for label in route(prompts)]

    monkeypatch.setattr("claspkit.calib.evaluate.make_router", newer)
    second = run_on(rows, loaded, tmp_path)
    assert second["data"][0]["classes"] == {"48": {"default": COUNT}} != first["data"][0]["classes"]
    (tmp_path / "fresh").mkdir()
    assert run_on(rows, loaded, tmp_path / "fresh")["digest"] == second["digest"]
    batches = COUNT // 8
    assert len(answers_in(tmp_path)) == (3 + 2) * batches  # the unpruned model is not asked again


def test_a_picture_that_goes_while_it_runs_is_not_recorded_as_refused(
    folder: Path, samples: list[Sample], loaded: LoadedModel, tmp_path: Path
) -> None:
    """It stops and, with the picture back, goes on with all rows."""
    path = write_rows(folder, samples[:4], "goes.jsonl")
    read_in, picture = read(path, tmp_path), folder / samples[0].image
    kept = picture.read_bytes()
    picture.unlink()
    setting, ways, quiet = Setting(loaded, 16, 2), read_ways([PROFILE], []), Reporter(quiet=True)
    try:
        with pytest.raises(ResourceError, match="run the same command again"):
            evaluate(setting, ways, read_in, tmp_path, quiet)
    finally:
        picture.write_bytes(kept)
    (one,) = evaluate(setting, ways, read(path, tmp_path), tmp_path, quiet)["data"]
    assert (one["rows"], one["left_out"]) == (4, 0)


def test_a_folder_that_cannot_be_written_is_told_before_the_model_is_loaded(
    rows: Path, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of the system's, in which nobody makes files."""
    monkeypatch.setattr("claspkit.calib.cli_evaluate.load_model", Untouched)
    code, _, err = command("--profile", PROFILE, "--model", "mini", "--data", rows, "--out", "/proc")
    assert (code, "--out /proc cannot be made or written" in err) == (UsageError.exit_code, True), err


def test_a_log_that_is_none_is_damage(rows: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    """Nothing is overwritten."""
    (tmp_path / "answers.jsonl").write_text("hello\nworld\n")
    with pytest.raises(CorruptError):
        run_on(rows, loaded, tmp_path)
    assert (tmp_path / "answers.jsonl").read_text() == "hello\nworld\n"
