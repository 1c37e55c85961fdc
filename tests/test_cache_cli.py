"""``claspkit cache verify | repair | gc | stats`` on a run folder: what they print, do and end with."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from feature_stores import assert_holds, fill, make_key, name_of

from claspkit.cache import FeatureStore
from claspkit.calib import progress
from claspkit.calib.cli import main
from claspkit.calib.config import RunConfig, lock
from claspkit.calib.folder import RunFolder, write_samples
from claspkit.calib.samples import Source, make_sample
from claspkit.calib.sources import LoadResult

PICTURES = range(8)
LEFTOVER = "shard-000009-00000000.h5"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of eight pictures in two shards, with its sample list and its locked configuration."""
    folder = RunFolder(tmp_path / "a run")
    fill(folder.features, PICTURES, per_shard=4)
    lock(folder.root, RunConfig("mini", 60, data="my data.jsonl").to_dict() | {"space": "0"})
    write_list(folder, PICTURES)
    return folder.root


def write_list(folder: RunFolder, pictures: Any) -> None:
    """A sample list about these pictures."""
    samples = [
        make_sample(
            image=f"photo\x1b{image}.png",
            image_sha256=name_of(image),
            prompt="What?",
            answers=["a thing"],
            source=Source("own", None, None, image),
        )
        for image in pictures
    ]
    write_samples(folder, LoadResult(samples, [], []))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process: (exit code, standard output, standard error)."""

    def command(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["cache", *map(str, arguments)])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, " ".join(said.err.split())

    return command


def damage(run: Path, shard: int) -> str:
    """Turn a bit over in the middle of a shard; returns its name."""
    with FeatureStore.open(RunFolder(run).features) as store:
        path = store.folder / store.shards[shard].file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.name


def test_verify_of_a_sound_cache(run: Path, call: Any) -> None:
    """Exit code 0; as JSON one object and nothing else."""
    assert call("verify", run)[:2] == (0, "2 shards whole, 0 damaged\n")
    code, out, err = call("verify", run, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "ok": True,
        "shards": 2,
        "pictures": 8,
        "bad": [],
        "unlisted": [],
        "dropped": False,
    }


def test_verify_names_damage_and_strangers(run: Path, call: Any) -> None:
    """Exit code 7 and the command that repairs; --drop-bad takes the shard out as before."""
    bad = damage(run, 1)
    (RunFolder(run).features / LEFTOVER).write_bytes(b"x")
    code, out, err = call("verify", run)
    assert code == 7
    assert out.splitlines()[0].startswith(f"bad {bad}: its sha256 is ")
    assert out.splitlines()[1].startswith(f"unlisted {LEFTOVER}: ")
    assert shlex.join(["claspkit", "cache", "repair", str(run)]) in err
    code, out, _ = call("verify", run, "--json")
    facts = json.loads(out)
    assert (code, facts["ok"], facts["unlisted"]) == (7, False, [LEFTOVER])
    assert [(shard["file"], len(shard["pictures"])) for shard in facts["bad"]] == [(bad, 4)]
    assert call("verify", run, "--drop-bad")[0] == 0
    assert_holds(RunFolder(run).features, range(4))


def test_repair_names_the_pictures_and_the_command(run: Path, call: Any) -> None:
    """Digest and file name of each picture lost, and a line for the shell that computes them anew."""
    bad = damage(run, 0)
    code, out, _ = call("repair", run)
    assert code == 0
    for image in range(4):  # no control character reaches the terminal
        assert f"recompute {name_of(image)} (photo\ufffd{image}.png)" in out
    assert f"bad {bad}: " in out
    assert "1 damaged shards taken out, 4 pictures to compute anew, 4 pictures whole" in out
    line = out.splitlines()[-1].removeprefix("now run: ")
    options = ["--model", "mini", "--per-class", "60", "--data", "my data.jsonl", "--out", str(run)]
    assert shlex.split(line) == ["claspkit", "cache", "build", *options]
    assert_holds(RunFolder(run).features, range(4, 8))
    code, out, _ = call("repair", run)
    assert (code, out) == (0, "0 damaged shards taken out, 0 pictures to compute anew, 4 pictures whole\n")


def test_repair_as_json_also_without_a_sample_list(run: Path, call: Any) -> None:
    """The names are unknown then, the digests are not."""
    damage(run, 1)
    RunFolder(run).samples.unlink()
    (RunFolder(run).features / LEFTOVER).write_bytes(b"x")
    code, out, err = call("repair", run, "--json")
    facts = json.loads(out)
    assert (code, err, facts["leftovers"], facts["pictures_left"]) == (0, "", [LEFTOVER], 4)
    assert facts["recompute"] == [{"sha256": name_of(image), "picture": None} for image in range(4, 8)]
    assert facts["command"].startswith("claspkit cache build --model mini ")


def test_gc_gives_up_what_no_sample_uses(run: Path, call: Any) -> None:
    """A whole shard at once, a part of one with --compact; leftovers always."""
    features = RunFolder(run).features
    write_list(RunFolder(run), [4, 6])
    (features / LEFTOVER).write_bytes(b"x" * 10)
    code, out, _ = call("gc", run)
    assert code == 0
    assert out.startswith("1 leftovers deleted\n1 shards dropped, 0 rewritten, 4 pictures given up, ")
    assert "MB more with --compact" in out
    assert_holds(features, range(4, 8))
    code, out, err = call("gc", run, "--compact", "--json")
    facts = json.loads(out)
    assert (code, err, len(facts["rewritten"]), facts["pictures_given_up"], facts["pictures"]) == (0, "", 1, 2, 2)
    assert facts["bytes_freed"] > 0 == facts["bytes_compactable"]
    assert_holds(features, [4, 6])


def test_gc_without_a_sample_list_wants_everything(run: Path, call: Any) -> None:
    """Nothing tells what is wanted: only leftovers go."""
    RunFolder(run).samples.unlink()
    code, out, _ = call("gc", run, "--compact")
    assert code == 0
    assert "every picture counts as wanted" in out
    assert_holds(RunFolder(run).features, PICTURES)


def test_gc_with_a_damaged_sample_list_deletes_nothing(run: Path, call: Any) -> None:
    """Exit code 7 before the store is opened."""
    data = bytearray(RunFolder(run).samples.read_bytes())
    data[len(data) // 2] ^= 1
    RunFolder(run).samples.write_bytes(data)
    assert call("gc", run)[0] == 7
    assert_holds(RunFolder(run).features, PICTURES)


def test_stats(run: Path, call: Any) -> None:
    """Pictures, shards, bytes and the key, for people and for programs."""
    with FeatureStore.open(RunFolder(run).features) as store:
        size = store.nbytes
    assert call("stats", run)[1].startswith("8 pictures in 2 shards, 0.0 MB\n3 layers of 24 tokens x 16 channels")
    facts = json.loads(call("stats", run, "--json")[1])
    assert facts == {"pictures": 8, "shards": 2, "bytes": size, "key": make_key().to_dict()}


@pytest.mark.parametrize("command", ["gc", "repair"])
def test_a_store_in_use_is_left_alone(command: str, run: Path, call: Any) -> None:
    """Exit code 5 and who has it; looking at it is allowed."""
    with FeatureStore.open(RunFolder(run).features, write=True):
        code, _, err = call(command, run)
        assert code == 5
        assert f"in use by process {os.getpid()}" in err
        assert call("verify", run)[0] == call("stats", run)[0] == 0


def test_a_long_verification_tells_megabytes_and_the_time_left(
    run: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off a terminal a line now and then, here after every shard."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr("claspkit.calib.cli_store._MB", 1000)
    code, out, err = call("verify", run)
    assert (code, out) == (0, "2 shards whole, 0 damaged\n")
    with FeatureStore.open(RunFolder(run).features) as store:
        whole = -(-store.nbytes // 1000)
    assert f"/ {whole} MB, " in err
    assert " s left" in err
    assert f"verify: {whole} MB in " in err
