"""The whole job on mini: its result, resuming it, and everything that may go wrong on the way."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import exit_code
from PIL import Image
from pipeline_runs import SMALL_OPTIONS, calibrate, start
from safetensors.torch import load_file, save_file

from claspkit.cache.store import FeatureStore
from claspkit.calib.cli import calibrate_main
from claspkit.calib.folder import RunFolder, read_samples
from claspkit.mini.store import MODEL_DIR
from claspkit.profiles.errors import UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import INTENT_IDS


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    calibrate(folder)
    return folder


def copy_of(finished: Path, tmp_path: Path) -> Path:
    """A run folder to break."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_leaves_everything_a_person_and_a_program_need(finished: Path) -> None:
    """The run folder of docs/cli.md, a profile with nine classes, a report that names them all."""
    profile = read_profile(finished / "profile")
    assert [spec.intent for spec in profile.classes] == list(INTENT_IDS)
    assert profile.calibration.label_sources == {"rule": 9 * 24}
    assert profile.calibration.vision_passes == len(list((finished / "images").iterdir()))
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["profile_id"] == profile.profile_id
    report = (finished / "report.html").read_text()
    assert all(row["name"] in report for row in summary["classes"])
    assert all(row["n_search"] + row["n_holdout"] == 24 for row in summary["classes"])


def test_the_same_seed_gives_the_same_profile(finished: Path, tmp_path: Path) -> None:
    """A run from nothing in another folder: the same profile id."""
    assert calibrate(tmp_path / "again").profile.profile_id == read_profile(finished / "profile").profile_id


def test_another_seed_gives_another_profile(finished: Path, tmp_path: Path) -> None:
    """The id is not a constant."""
    assert calibrate(tmp_path / "other", seed=1).profile.profile_id != read_profile(finished / "profile").profile_id


def ledger_lines(folder: Path) -> int:
    """Whole lines of a run's ledger."""
    path = folder / "ledger.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


KILL_WHEN: dict[str, Callable[[Path], bool]] = {
    "samples": lambda run: (run / "images").exists() and len(list((run / "images").iterdir())) > 3,
    "label": lambda run: (run / "labels.jsonl").exists(),
    "cache": lambda run: (run / "cache").exists() and len(list((run / "cache").iterdir())) > 1,
    "search": lambda run: ledger_lines(run) > 7,
    "profile": lambda run: (run / "profile").exists(),
}


@pytest.mark.parametrize(
    "stage", [name if name == "search" else pytest.param(name, marks=pytest.mark.long) for name in KILL_WHEN]
)
def test_kill_and_run_again(stage: str, finished: Path, tmp_path: Path) -> None:
    """Kill -9 in a stage, then the same command: the profile of the uninterrupted run."""
    run = tmp_path / "run"
    process = start(run)
    deadline = time.monotonic() + 120
    while not KILL_WHEN[stage](run):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "summary.json").exists()
    assert calibrate(run).profile.profile_id == read_profile(finished / "profile").profile_id


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C or a scheduler's SIGTERM: exit 130, a line that says what to do, and it does continue."""
    run = tmp_path / "run"
    process = start(run)
    while ledger_lines(run) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in messages
    assert "Traceback" not in messages
    lines = ledger_lines(run)  # an append the signal fell into is taken back whole
    calibrate(run)
    assert 0 < lines < ledger_lines(run)


def test_resuming_computes_nothing_twice(finished: Path, tmp_path: Path) -> None:
    """A finished run, run again: the ledger and the cache do not grow."""
    run = copy_of(finished, tmp_path)
    before = {path.name: path.stat().st_size for path in [run / "ledger.jsonl", *(run / "cache").glob("*.h5")]}
    calibrate(run)
    assert before == {path.name: path.stat().st_size for path in [run / "ledger.jsonl", *(run / "cache").glob("*.h5")]}


def test_another_configuration_is_refused_with_the_fields(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 4, the differing field with both values, and --fresh as the way out."""
    run = copy_of(finished, tmp_path)
    options = [*SMALL_OPTIONS, "--out", str(run), "--seed", "5"]
    assert exit_code(options, calibrate_main) == 4
    message = capsys.readouterr().err
    assert "seed: 0 in the run, 5 asked for now" in message
    assert "--fresh" in message
    assert read_profile(run / "profile").calibration.seed == 0


def test_fresh_starts_over_and_spares_strangers(finished: Path, tmp_path: Path) -> None:
    """--fresh deletes the run's own files only."""
    run = copy_of(finished, tmp_path)
    (run / "notes.txt").write_text("mine")
    assert exit_code([*SMALL_OPTIONS, "--out", str(run), "--seed", "5", "--fresh"], calibrate_main) == 0
    assert read_profile(run / "profile").calibration.seed == 5
    assert (run / "notes.txt").read_text() == "mine"


def test_a_damaged_cache_is_found_named_and_repaired(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped bit in a layer that is read: exit 7 with the command that repairs; after it the same profile again."""
    run = copy_of(finished, tmp_path)
    (run / "ledger.jsonl").unlink()  # otherwise nothing would read the cache
    with FeatureStore.open(run / "cache") as store:
        entry = store.shards[0]
        values = store.read(entry.images[0], [read_profile(finished / "profile").model.default_layer])
    shard = run / "cache" / entry.file
    data = bytearray(shard.read_bytes())
    data[data.index(values.tobytes())] ^= 4
    shard.write_bytes(data)
    assert exit_code([*SMALL_OPTIONS, "--out", str(run)], calibrate_main) == 7
    assert f"claspkit cache repair {run}" in capsys.readouterr().err.replace("\n", " ")
    assert exit_code(["cache", "verify", str(run)]) == 7
    assert exit_code(["cache", "repair", str(run)]) == 0
    assert exit_code([*SMALL_OPTIONS, "--out", str(run)], calibrate_main) == 0
    assert read_profile(run / "profile").profile_id == read_profile(finished / "profile").profile_id


def test_a_damaged_ledger_or_sample_list_is_refused(finished: Path, tmp_path: Path) -> None:
    """A changed line in the middle, a changed list: exit 7, never other results."""
    for name in ("ledger.jsonl", "samples.json", "config.lock.json"):
        run = copy_of(finished, tmp_path / name)
        data = bytearray((run / name).read_bytes())
        data[len(data) // 3] ^= 1
        (run / name).write_bytes(data)
        assert exit_code([*SMALL_OPTIONS, "--out", str(run)], calibrate_main) == 7


def test_bad_rows_are_named_counted_and_left_out(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Own data with broken rows and pictures: the run goes on, short classes say so and keep the default."""
    data = tmp_path / "data"
    data.mkdir()
    good = [s for s in read_samples(RunFolder(finished)).samples if s.intent_hint in ("counting", "scene")]
    for sample in good:
        shutil.copy(finished / "images" / sample.image, data / sample.image)
    lines = [json.dumps({"image": s.image, "prompt": s.prompt, "answers": list(s.answers)}) for s in good]
    (data / "cut.png").write_bytes((data / good[0].image).read_bytes()[:300])
    lines.insert(3, '{"image": "x.png", "prompt": ')
    lines.insert(5, json.dumps({"image": "cut.png", "prompt": "How many stars are there?", "answer": "1"}))
    lines.insert(7, json.dumps({"image": good[0].image, "prompt": "", "answer": "1"}))
    (data / "mine.jsonl").write_text("\n".join(lines) + "\n")
    options = [*SMALL_OPTIONS, "--data", str(data / "mine.jsonl"), "--out", str(tmp_path / "run")]
    assert exit_code(options, calibrate_main) == 0
    messages = capsys.readouterr().err
    for line in (4, 6, 8):
        assert f"mine.jsonl:{line}" in messages
    assert "class 'object' has 0 samples" in messages
    profile = read_profile(tmp_path / "run" / "profile")
    assert profile.for_intent("object").decision == "kept_default"
    assert "0 search and 0 holdout" in profile.for_intent("object").reason
    assert profile.for_intent("counting").n_search >= 10
    assert len(json.loads((tmp_path / "run" / "summary.json").read_text())["quarantine"]) == 3


def test_an_unfinished_run_can_be_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After the labels: how far it is; a report is refused."""
    run = tmp_path / "run"
    assert exit_code(["label", *SMALL_OPTIONS, "--out", str(run)]) == 0
    assert exit_code(["inspect", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["progress"]["labels"] > 100
    assert told["state"] == "unfinished"
    assert exit_code(["report", str(run)]) == 7
    assert exit_code(["inspect", str(tmp_path)]) == 7


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Some picture of another size than the model's."""
    path = tmp_path / "photo.jpg"
    Image.linear_gradient("L").convert("RGB").resize((320, 200)).save(path)
    return path


def test_run_shows_what_was_kept(
    finished: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The class, an answer, exactly the budget's tokens per stage, and the overlay on request."""
    command = ["run", "--profile", str(finished / "profile"), "--model", "mini", "--image", str(picture)]
    overlay = tmp_path / "kept.png"
    options = ["--prompt", "How many stars are there?", "--overlay", str(overlay), "--compare", "--json"]
    assert exit_code([*command, *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["intent"] == "counting"
    assert [len(stage["kept"]) for stage in answer["stages"]] == [17, 9, 5]
    assert set(answer["stages"][2]["kept"]) <= set(answer["stages"][1]["kept"]) <= set(answer["stages"][0]["kept"])
    assert Image.open(overlay).width > 600
    assert exit_code([*command, "--prompt", "Hm?", "--intent", "scene"]) == 0
    assert "given" in capsys.readouterr().out


def test_run_refuses_what_does_not_fit(
    finished: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model's profile, a missing profile, a broken picture, an unknown class: each its exit code."""
    other = Path(shutil.copytree(MODEL_DIR, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    save_file({**weights, name: weights[name] * 1.01}, other / "model.safetensors", {"format": "pt"})
    profile, asked = ["--profile", str(finished / "profile")], ["--model", "mini", "--prompt", "How many?"]
    image = ["--image", str(picture)]
    assert exit_code(["run", *profile, *image, *asked[2:], "--model", str(other)]) == 4
    assert "fingerprint" in capsys.readouterr().err
    (tmp_path / "cut.jpg").write_bytes(picture.read_bytes()[:500])
    assert exit_code(["run", *profile, "--image", str(tmp_path / "cut.jpg"), *asked]) == 3
    assert exit_code(["run", *profile, "--image", str(tmp_path / "none.jpg"), *asked]) == 3
    assert exit_code(["run", "--profile", str(tmp_path / "no"), *image, *asked]) == 2
    assert exit_code(["run", *profile, *image, *asked, "--intent", "poetry"]) == 2
    capsys.readouterr()
    assert exit_code(["run", "--profile", str(finished), *image, *asked]) == 2
    assert f"is a folder in it: {finished / 'profile'}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--model", "nope"], 2, "Aliases: mini, llava-1.5-7b"),
        (["--model", "llava-1.5-7b"], 2, "hf download llava-hf/llava-1.5-7b-hf"),
        (["--model", "mini", "--budget", "7"], 2, "48"),
        (["--model", "mini", "--budget", "many"], 2, "1/3"),
        (["--model", "mini", "--stage", "1-5"], 2, "AFTER_LAYER:KEEP"),
        (["--model", "mini", "--stage", "9:5"], 2, "layer"),
        (["--model", "mini", "--data", "absent.jsonl"], 3, "absent.jsonl"),
        (["--model", "mini", "--strategy", "magic"], 2, "exhaustive"),
        (["--model", "mini", "--router", "magic"], 2, "rules"),
        (["--model", "mini", "--router", "transformers"], 2, "Qwen/Qwen3-8B"),
        (["--model", "mini", "--dtype", "int3"], 2, "float32"),
        (["--model", "mini", "--device", "cuda:99"], 2, "device"),
        ([], 2, "--model"),
    ],
)
def test_wrong_options_say_what_is_allowed(
    options: list[str], code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback: one message that names what there is."""
    out = ["--per-class", "24", "--out", str(tmp_path / "run")]
    assert exit_code([*options, *out], calibrate_main) == code
    assert text in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.parquet", "absent"])
def test_a_mistyped_data_set_leaves_the_folder_to_the_right_one(name: str, tmp_path: Path) -> None:
    """Nothing is locked to it, so the command with the right name is not refused."""
    out = ["--model", "mini", "--per-class", "24", "--out", str(tmp_path / "run")]
    assert exit_code([*out, "--data", str(tmp_path / name)], calibrate_main) == 3
    assert not (tmp_path / "run" / "config.lock.json").exists()


def test_no_command_shows_the_help_and_no_empty_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([]) == 2
    shown = capsys.readouterr()
    assert "calibrate" in shown.out
    assert shown.err == ""


def test_what_cannot_be_calibrated_is_refused_before_any_work(tmp_path: Path) -> None:
    """A stage before the decoder: the reason, and no run begun."""
    with pytest.raises(UsageError, match="can be run and planned, but not calibrated"):
        calibrate(tmp_path / "before", stages=((-1, 40),))
    assert not (tmp_path / "before" / "samples.json").exists()
