"""The cache stage of a run: which layers and dtype, what cannot be used, what workers left, and what it says."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_runs import SMALL, calibrate, run_until

from claspkit.cache import FeatureStore
from claspkit.cache.encoder import LoadedEncoder, feature_key
from claspkit.cache.extract import extract
from claspkit.calib.cli import main
from claspkit.calib.config import RunConfig, lock, read_lock
from claspkit.calib.features import openers
from claspkit.calib.folder import RunFolder, read_samples
from claspkit.calib.plan import make_plan
from claspkit.calib.plan_cache import CacheChoice
from claspkit.calib.rejects import Reject, add_rejects, read_rejects
from claspkit.profiles.canonical import canonical_json, digest
from claspkit.profiles.errors import BadDataError, CorruptError, MismatchError, ResourceError, UsageError
from claspkit.profiles.records import RecordLog
from claspkit.runtime.models import load_model


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has its samples and labels."""
    run = tmp_path_factory.mktemp("labelled") / "run"
    run_until("label", run)
    return run


@pytest.fixture
def run(labelled: Path, tmp_path: Path) -> Path:
    """A copy of it to go on with."""
    return Path(shutil.copytree(labelled, tmp_path / "run"))


def relocked(run: Path, **changes: object) -> None:
    """Give a run folder the lock of another configuration, as if it had been asked for from the start."""
    facts = {**read_lock(run), **changes}
    (run / "config.lock.json").unlink()
    lock(run, facts)


def pictures_of(run: Path) -> dict[str, str]:
    """SHA-256 -> name of the run's pictures."""
    return {sample.image_sha256: sample.image for sample in read_samples(RunFolder(run)).samples}


@pytest.mark.parametrize(
    ("layers", "dtype"), [("all", "float16"), ("prototypes", "int8"), ("0,1,2,4,5,6,7", "float32"), ("all", "bfloat16")]
)
def test_the_store_is_what_the_plan_said(layers: str, dtype: str, run: Path) -> None:
    """Layers, dtype and, to within a hundredth, bytes a picture.

    HDF5's index takes about 110 bytes a chunk, which no picture of ordinary size notices; mini's int8 scales do.
    """
    relocked(run, cache_layers=layers, cache_dtype=dtype)
    run_until("cache", run, cache_layers=layers, cache_dtype=dtype)
    plan = make_plan("mini", SMALL.per_class, ["1/9"], cache=CacheChoice(dtype, layers))["cache"]
    with FeatureStore.open(RunFolder(run).features) as store:
        assert (list(store.key.layers), store.key.dtype) == (plan["layers"], dtype)
        assert store.digests == set(pictures_of(run))
        share = store.nbytes / (plan["bytes_a_picture"] * len(store.digests))
        assert 1 < share < (1.015 if dtype == "int8" else 1.01)


@pytest.mark.long
def test_a_search_reads_a_small_int8_cache(run: Path) -> None:
    """Few layers in few bits are enough for a profile, which says what it was made from."""
    relocked(run, cache_layers="prototypes", cache_dtype="int8")
    outcome = calibrate(run, cache_layers="prototypes", cache_dtype="int8")
    assert outcome.profile.calibration.environment["features"] == "int8"
    assert any(row["difference"] is not None for row in outcome.summary["classes"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cache_layers": "some"}, "all, prototypes or layer numbers"),
        ({"cache_layers": "0,1,99"}, "vision layers 0 to"),
        ({"cache_layers": "0,1"}, "must be among them"),
        ({"cache_dtype": "int4"}, "float16, bfloat16, float32, int8"),
    ],
)
def test_a_cache_that_cannot_be_is_refused_as_the_plan_refuses_it(
    changes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    """The same words, and no run begun."""
    with pytest.raises(UsageError, match=text) as refused:
        run_until("cache", tmp_path / "run", **changes)
    assert not list((tmp_path / "run").iterdir())
    choice = CacheChoice(changes.get("cache_dtype", "float16"), changes.get("cache_layers", "all"))
    with pytest.raises(UsageError) as planned:
        make_plan("mini", 24, cache=choice)
    assert str(planned.value) == str(refused.value)


def test_a_run_from_before_these_options_goes_on(run: Path) -> None:
    """A lock without them, as it used to be written, means their defaults, and stays as it is."""
    path = run / "config.lock.json"
    record = json.loads(path.read_bytes())
    for name in ("cache_layers", "cache_dtype"):
        del record["facts"][name]
    old = canonical_json({**record, "sha256": digest(record["facts"])})
    path.write_bytes(old)
    run_until("cache", run)
    assert path.read_bytes() == old
    with pytest.raises(MismatchError, match='cache_dtype: "float16" in the run, "int8" asked for now'):
        run_until("cache", run, cache_dtype="int8")


def test_a_vanished_picture_is_quarantined_for_good(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named once and for all: back again, it is not tried, and the commands on the run work as before."""
    sha, name = sorted(pictures_of(run).items())[3]
    away = run.parent / "away"
    shutil.move(run / "images" / name, away)
    run_until("cache", run)
    assert f"quarantined picture {name}: " in capsys.readouterr().err.replace("\n", " ")
    shutil.move(away, run / "images" / name)
    run_until("cache", run)
    assert list(read_rejects(RunFolder(run))) == [sha]
    with FeatureStore.open(RunFolder(run).features) as store:
        assert store.digests == set(pictures_of(run)) - {sha}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["inspect", str(run), "--json"])
    assert json.loads(capsys.readouterr().out)["progress"]["quarantined"] == 1
    for command in ("stats", "verify", "gc", "repair"):
        with pytest.raises(SystemExit) as stop:
            main(["cache", command, str(run)])
        assert not stop.value.code


@pytest.mark.long
def test_the_samples_of_a_vanished_picture_are_left_out(run: Path) -> None:
    """No sample on it is counted, summary and report name it, and a resumed run ends in the same profile."""
    sha, name = sorted(pictures_of(run).items())[3]
    shutil.move(run / "images" / name, run.parent / "away")
    outcome = calibrate(run)
    [row] = outcome.summary["quarantine"]
    assert row["where"] == f"picture {name}"
    assert "no such file" in row["reason"]
    assert name in (run / "report.html").read_text()
    asked = [sample for sample in read_samples(RunFolder(run)).samples if sample.image_sha256 != sha]
    used = sum(spec.n_search + spec.n_holdout for spec in outcome.profile.classes)
    assert used == len(asked) < len(read_samples(RunFolder(run)).samples)
    assert outcome.profile.calibration.vision_passes == len(pictures_of(run)) - 1
    shutil.move(run.parent / "away", run / "images" / name)
    assert calibrate(run).profile.profile_id == outcome.profile.profile_id


def test_a_picture_without_numbers_is_quarantined(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN from the model: that picture is left out with the reason, the others of its batch are kept."""
    calls: list[int] = []
    encode = LoadedEncoder.encode

    def spoiled(self: LoadedEncoder, images: object) -> torch.Tensor:
        hidden = encode(self, images)  # type: ignore[arg-type]
        if not calls:
            hidden = hidden.clone()
            hidden[1, 2, 3, 4] = torch.nan
        calls.append(len(hidden))
        return hidden

    monkeypatch.setattr(LoadedEncoder, "encode", spoiled)
    run_until("cache", run)
    second = sorted(pictures_of(run))[1]
    [(sha, reject)] = read_rejects(RunFolder(run)).items()
    assert sha == second
    assert "NaN or infinity" in reject.reason
    before = len(calls)
    run_until("cache", run)
    assert len(calls) == before
    with FeatureStore.open(RunFolder(run).features) as store:
        assert store.digests == set(pictures_of(run)) - {second}


def test_most_pictures_gone_is_one_error_and_no_quarantine(run: Path) -> None:
    """The folder is probably wrong: the run stops, and with the pictures back nothing is missing."""
    names = sorted(pictures_of(run).values())
    (run / "away").mkdir()
    for name in names[: len(names) // 2 + 1]:
        shutil.move(run / "images" / name, run / "away" / name)
    with pytest.raises(BadDataError, match=r"more than half.*no such file"):
        run_until("cache", run)
    shutil.copytree(run / "away", run / "images", dirs_exist_ok=True)
    run_until("cache", run)
    assert read_rejects(RunFolder(run)) == {}
    with FeatureStore.open(RunFolder(run).features) as store:
        assert store.digests == set(pictures_of(run))


def test_the_folder_of_the_pictures_gone_quarantines_none(run: Path) -> None:
    """A disk that is not mounted is no fault of a picture's."""
    shutil.rmtree(run / "images")
    with pytest.raises(ResourceError, match="is gone"):
        run_until("cache", run)
    assert not RunFolder(run).rejects.exists()


@pytest.mark.long
def test_a_picture_that_was_scored_is_not_left_out_afterwards(run: Path) -> None:
    """Its features lost and its file gone: the scores were made with it, so the run says so and stops."""
    calibrate(run)
    folder = RunFolder(run)
    with FeatureStore.open(folder.features, write=True) as store:
        store.drop(store.shards[0].file)
    name = min(pictures_of(run).values())
    (run / "images" / name).unlink()
    with pytest.raises(BadDataError, match=f"has scores for.*{name}.*--fresh"):
        calibrate(run)
    assert not folder.rejects.exists()


def test_what_workers_left_is_taken_over_and_never_computed_again(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of two workers, whatever their numbers: one process computes the rest and says how much that was."""
    loaded, folder, images = load_model("mini"), RunFolder(run), sorted(pictures_of(run).items())
    for index, share in ((0, images[:4]), (7, images[4:9])):
        with FeatureStore.open(folder.worker_features(index), feature_key(loaded), write=True) as store:
            extract(loaded, openers(dict(share), run / "images"), store, batch_size=SMALL.block_size)
    (folder.worker_features(8)).mkdir()  # killed before it wrote a line
    (run / "cache-notes").mkdir()
    capsys.readouterr()
    run_until("cache", run, quiet=False)
    said = " ".join(capsys.readouterr().err.split())
    rest = len(images) - 9
    assert f"cache: {len(images)} pictures, {rest} vision passes, 9 already there, " in said
    assert sorted(path.name for path in run.glob("cache*")) == ["cache", "cache-notes"]
    with FeatureStore.open(folder.features) as store:
        assert store.digests == {sha for sha, _ in images}
        assert store.verify().ok
        assert f"already there, {store.nbytes / 1e6:.1f} MB" in said


def test_a_damaged_shard_that_a_worker_left_is_said_and_computed_anew(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest of the folder is taken over, the run goes on, and the folder is gone."""
    loaded, folder, images = load_model("mini"), RunFolder(run), sorted(pictures_of(run).items())
    for share in (images[:4], images[4:9]):
        with FeatureStore.open(folder.worker_features(0), feature_key(loaded), write=True) as store:
            extract(loaded, openers(dict(share), run / "images"), store, batch_size=SMALL.block_size)
            files = [entry.file for entry in store.shards]
    with (folder.worker_features(0) / files[0]).open("r+b") as file:
        file.truncate(1000)
    capsys.readouterr()
    run_until("cache", run, quiet=False)
    said = " ".join(capsys.readouterr().err.split())
    assert f"warning: shard {files[0]} that a worker left in" in said
    assert "is damaged: the file has 1000 bytes" in said
    assert "; its 4 pictures are computed anew" in said
    assert f"cache: {len(images)} pictures, {len(images) - 5} vision passes, 5 already there, " in said
    assert not folder.worker_features(0).exists()
    with FeatureStore.open(folder.features) as store:
        assert store.digests == {sha for sha, _ in images}
        assert store.verify().ok


def test_fresh_forgets_what_was_quarantined(run: Path) -> None:
    """--fresh deletes the list of pictures and the workers' folders too."""
    name = min(pictures_of(run).values())
    (run / "images" / name).unlink()
    RunFolder(run).worker_features(3).mkdir()
    run_until("cache", run)
    assert RunFolder(run).rejects.exists()
    run_until("label", run, fresh=True)
    assert not RunFolder(run).rejects.exists()
    assert not RunFolder(run).worker_features(3).exists()


def test_pictures_of_another_sample_list_do_not_count(run: Path) -> None:
    """The list names more pictures than the run has, of data read before: one lost now is one, not more than half."""
    folder, pictures = RunFolder(run), pictures_of(run)
    strangers = {f"{number:064x}": Reject(f"old-{number}.png", "gone") for number in range(len(pictures))}
    add_rejects(folder, strangers)
    sha, name = sorted(pictures.items())[3]
    (run / "images" / name).unlink()
    run_until("cache", run)
    assert read_rejects(folder).keys() - strangers.keys() == {sha}
    with FeatureStore.open(folder.features) as store:
        assert store.digests == set(pictures) - {sha}


def test_what_was_quarantined_before_is_not_said_to_be_tried_anew(run: Path) -> None:
    """More than half by now, two of them since an earlier invocation: those stay out, and the text says so."""
    names = sorted(pictures_of(run).values())
    for name in names[:2]:
        (run / "images" / name).unlink()
    run_until("cache", run)
    shutil.rmtree(RunFolder(run).features)
    for name in names[2 : len(names) // 2 + 1]:
        (run / "images" / name).unlink()
    with pytest.raises(BadDataError, match="all but the 2 quarantined before are tried anew"):
        run_until("cache", run)
    assert len(read_rejects(RunFolder(run))) == 2


def test_a_moment_of_errors_quarantines_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails to read ends the stage; well again, the same command has all pictures."""
    real, names = os.open, sorted(pictures_of(run).values())

    def failing(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith(names[2]):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing)
        with pytest.raises(ResourceError, match=f"{names[2]}.*Input/output error.*run the same command again"):
            run_until("cache", run)
    assert not RunFolder(run).rejects.exists()
    run_until("cache", run)
    with FeatureStore.open(RunFolder(run).features) as store:
        assert store.digests == set(pictures_of(run))


@pytest.mark.parametrize("held", ["cache", "cache-3", "labels.jsonl", "ledger.jsonl", "quarantine.jsonl"])
def test_fresh_leaves_a_run_alone_that_is_being_filled(held: str, run: Path) -> None:
    """Another holder of any of its locks: nothing is deleted. Let go, all is, damaged files too."""
    folder, key = RunFolder(run), feature_key(load_model("mini"))
    for store in (folder.features, folder.worker_features(3)):
        FeatureStore.open(store, key, write=True).close()
    path = run / held
    before = sorted(run.rglob("*"))
    with FeatureStore.open(path, key, write=True) if held.startswith("cache") else RecordLog(path):
        with pytest.raises(ResourceError, match="is in use by process"):
            run_until("samples", run, fresh=True)
        assert {*before, path} <= set(run.rglob("*"))
    folder.labels.write_text("damaged\nin the middle\n")
    run_until("samples", run, fresh=True)
    left = {each.name for each in run.iterdir()} - {f"{held}.lock", "labels.jsonl.lock"}
    assert left == {"config.lock.json", "samples.json", "images"}


def test_the_repair_command_can_be_pasted(run: Path) -> None:
    """A run folder with a space in its name is one word of the command that an error gives."""
    spaced = run.rename(run.with_name("a run"))
    run_until("cache", spaced)
    with FeatureStore.open(RunFolder(spaced).features) as store:
        path = store.folder / store.shards[0].file
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 4, len(data), 4000):
        data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError) as damaged:
        calibrate(spaced)
    assert f"Run `{shlex.join(['claspkit', 'cache', 'repair', str(spaced)])}`" in str(damaged.value)


def test_how_many_processes_fill_the_cache_is_not_locked() -> None:
    """A run may go on with another number of workers."""
    assert "cache_workers" not in RunConfig("mini", 24).to_dict()
