"""Writing, reading, resuming, verifying and dropping."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from feature_stores import LAYERS, SHAPE, assert_holds, features_of, fill, make_key, name_of, shard_size

from claspkit.cache import DTYPES, FeatureStore, MissingImageError
from claspkit.cache.layout import MANIFEST, image_bytes
from claspkit.profiles.errors import BadDataError, CorruptError, MismatchError, ResourceError, UsageError


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures in shards of four; not to be changed."""
    folder = tmp_path_factory.mktemp("stores") / "filled"
    fill(folder, range(10))
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(dtype: str, tmp_path: Path) -> None:
    fill(tmp_path / "s", range(5), per_shard=2, dtype=dtype)
    assert_holds(tmp_path / "s", range(5), dtype)


def test_shards_are_laid_out_as_documented(filled: Path) -> None:
    with FeatureStore.open(filled) as store:
        assert [entry.shape for entry in store.shards] == [(4, *SHAPE), (4, *SHAPE), (2, *SHAPE)]
        assert store.nbytes == sum(entry.bytes for entry in store.shards)
        assert store.nbytes >= image_bytes(store.key) * 10
        with h5py.File(filled / store.shards[0].file) as file:
            data = file["features"]
            assert (data.chunks, data.fletcher32, data.compression) == ((1, 1, *SHAPE[1:]), True, None)
            assert dict(data.attrs) | {"images": None} == {
                "format": b"clasp-features",
                "version": 1,
                "key": store.key.digest.encode(),
                "dtype": b"float16",
                "images": None,
            }
            assert bytes(data.attrs["images"][1]).hex() == name_of(1)


def test_some_layers_in_any_order_into_a_given_array(filled: Path) -> None:
    out = np.empty((2, *SHAPE[1:]), np.float16)
    with FeatureStore.open(filled) as store:
        for image in (7, 0, 9):
            assert store.read(name_of(image), (5, 0), out) is out
            assert np.array_equal(out, features_of(image)[[2, 0]])
        assert store.read(name_of(0), (2, 2)).shape == (2, *SHAPE[1:])


@pytest.mark.parametrize(
    "out",
    [
        np.empty((1, *SHAPE[1:]), np.float16),
        np.empty((2, *SHAPE[1:]), np.float32),
        np.empty((2, SHAPE[2], SHAPE[1]), np.float16).transpose(0, 2, 1),
    ],
)
def test_an_array_that_does_not_fit_is_refused(out: Any, filled: Path) -> None:
    with FeatureStore.open(filled) as store, pytest.raises(ValueError, match="C-contiguous"):
        store.read(name_of(0), (0, 2), out)


def test_what_is_not_there_is_named(filled: Path, tmp_path: Path) -> None:
    with FeatureStore.open(filled) as store:
        with pytest.raises(MissingImageError, match=f"no image {name_of(99)}") as caught:
            store.read(name_of(99), LAYERS)
        assert isinstance(caught.value, KeyError)
        with pytest.raises(MismatchError, match=r"layers \[1, 9\] .* \[0, 2, 5\]"):
            store.read(name_of(0), (0, 1, 9))
        asked = [name_of(image) for image in (30, 3, 20, 30, 9)]
        assert store.missing(asked) == [name_of(30), name_of(20)]
        with pytest.raises(UsageError, match="write=True"):
            store.writer()
        with pytest.raises(UsageError, match="write=True"):
            store.drop(store.shards[0].file)
    with pytest.raises(UsageError, match="no feature store"):
        FeatureStore.open(tmp_path)
    with pytest.raises(UsageError, match="key is needed"):
        FeatureStore.open(tmp_path, write=True)
    assert FeatureStore.open(tmp_path, make_key(), write=True).missing([name_of(1)]) == [name_of(1)]


@pytest.mark.parametrize("write", [False, True])
def test_another_key_is_refused_with_the_difference(write: bool, filled: Path) -> None:
    other = make_key(width=17, image_backend="torchvision")
    with pytest.raises(MismatchError) as caught:
        FeatureStore.open(filled, other, write=write)
    assert "width: wanted 17, got 16" in str(caught.value)
    assert "image_backend: wanted 'torchvision', got 'pil'" in str(caught.value)
    assert "tokens" not in str(caught.value)
    FeatureStore.open(filled, make_key(), write=write).close()


def test_adding_later_keeps_what_was_there(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")}
    fill(tmp_path, range(7))
    assert_holds(tmp_path, range(7))
    assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")}.items()


def test_what_a_writer_committed_is_readable_at_once(tmp_path: Path) -> None:
    with FeatureStore.open(tmp_path, make_key(), write=True) as store, store.writer() as writer:
        writer.add(name_of(0), features_of(0))
        assert store.missing([name_of(0)]) == [name_of(0)]
        writer.flush()
        assert np.array_equal(store.read(name_of(0), LAYERS), features_of(0))
        assert (writer.images, writer.bytes) == (1, store.nbytes)


def test_a_writer_refuses_what_it_must(tmp_path: Path) -> None:
    with FeatureStore.open(tmp_path, make_key(), write=True) as store, store.writer() as writer:
        writer.add(name_of(0), features_of(0))
        for image, features, reason in (
            (name_of(0), features_of(0), "already"),
            ("0" * 63, features_of(0), "SHA-256"),
            (name_of(1), features_of(0)[:2], "features must be"),
            (name_of(1), features_of(0, "float32"), "features must be"),
        ):
            with pytest.raises(ValueError, match=reason):
                writer.add(image, features)
    assert_holds(tmp_path, [0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_are_never_written(dtype: str, tmp_path: Path) -> None:
    with FeatureStore.open(tmp_path, make_key(dtype), write=True) as store, store.writer() as writer:
        writer.add(name_of(0), features_of(0, dtype))
        for value in (np.nan, np.inf, -np.inf):
            features, single = features_of(1, dtype), np.float32(value)
            features[1, 3, 5] = (single.view("<u4") >> 16) if dtype == "bfloat16" else single
            with pytest.raises(BadDataError, match=name_of(1)):
                writer.add(name_of(1), features)
        writer.add(name_of(2), features_of(2, dtype))
    assert_holds(tmp_path, [0, 2], dtype)


def test_pending_images_are_kept_when_the_block_is_left_by_an_exception(tmp_path: Path) -> None:

    def add_and_stop(store: FeatureStore) -> None:
        with store.writer() as writer:
            writer.add(name_of(0), features_of(0))
            raise KeyboardInterrupt

    with FeatureStore.open(tmp_path, make_key(), write=True) as store, pytest.raises(KeyboardInterrupt):
        add_and_stop(store)
    assert_holds(tmp_path, [0])


def test_nothing_added_writes_nothing(tmp_path: Path) -> None:
    with FeatureStore.open(tmp_path, make_key(), write=True) as store, store.writer():
        pass
    assert_holds(tmp_path, [])


def test_a_dropped_shard_is_written_anew(tmp_path: Path) -> None:
    fill(tmp_path, range(6), per_shard=2)
    with FeatureStore.open(tmp_path, write=True) as store:
        victim = store.shards[1].file
        (tmp_path / victim).write_bytes(b"rubbish")
        report = store.verify()
        assert not report.ok
        assert (report.shards, report.images) == (3, 4)
        assert [(item.file, item.images) for item in report.bad] == [(victim, (name_of(2), name_of(3)))]
        assert store.drop(victim, report.bad[0].reason) == 2
        assert store.verify().ok
        assert store.missing(map(name_of, range(6))) == [name_of(2), name_of(3)]
        with pytest.raises(UsageError, match="has no shard"):
            store.drop(victim)
    assert not (tmp_path / victim).exists()
    fill(tmp_path, range(6), per_shard=2)
    assert_holds(tmp_path, range(6))


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    leftovers = ["shard-000001-00000000.h5", "shard-000001-11111111.h5.part"]
    for name in [*leftovers, "notes.txt", "shard.h5"]:
        (tmp_path / name).write_bytes(b"x")
    with FeatureStore.open(tmp_path) as reader:
        assert reader.verify().strangers == (leftovers[0],)
    with FeatureStore.open(tmp_path, write=True) as store:
        assert sorted(store.cleaned) == sorted(leftovers)
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "shard.h5").exists()


def test_a_leftover_that_its_own_process_removes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the run was killed, its writing process removes the open shard while the next run looks."""
    fill(tmp_path, range(2))
    monkeypatch.setattr("claspkit.cache.store.unfinished", lambda folder: ["shard-000001-11111111.h5.part"])
    with FeatureStore.open(tmp_path, write=True) as store:
        assert store.cleaned == ()
        assert store.gc().freed == 0


def test_shards_without_a_manifest_are_not_thrown_away(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(CorruptError, match="holds shards"):
        FeatureStore.open(tmp_path, make_key(), write=True)
    assert len(list(tmp_path.glob("shard-*"))) == 1


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom claspkit.cache import FeatureStore\nfrom claspkit.profiles.errors import ResourceError\n"
        "try:\n    FeatureStore.open(sys.argv[1], write=True)\n"
        "except ResourceError as error:\n    print(error)\n"
        "print(len(FeatureStore.open(sys.argv[1]).digests))"
    )
    fill(tmp_path, range(2))
    with FeatureStore.open(tmp_path, make_key(), write=True):
        with pytest.raises(ResourceError, match="in use"):
            FeatureStore.open(tmp_path, write=True)
        command = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "in use by process" in done.stdout
        assert done.stdout.endswith("\n2\n")
    FeatureStore.open(tmp_path, write=True).close()


def test_reading_from_threads(filled: Path) -> None:
    def read(turn: int) -> bool:
        image = turn * 7 % 10
        return np.array_equal(store.read(name_of(image), LAYERS), features_of(image))

    with FeatureStore.open(filled) as store, ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(200)))


def _read_all(store: FeatureStore, answer: Any) -> None:
    good = [np.array_equal(store.read(name_of(image), LAYERS), features_of(image)) for image in range(10)]
    answer.put(all(good))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_reading_after_a_fork(filled: Path) -> None:
    context = multiprocessing.get_context("fork")
    with FeatureStore.open(filled) as store:
        store.read(name_of(0), LAYERS)
        answer = context.Queue()
        child = context.Process(target=_read_all, args=(store, answer))
        child.start()
        assert answer.get(timeout=30)
        child.join(30)
        assert np.array_equal(store.read(name_of(0), LAYERS), features_of(0))


def test_more_shards_than_stay_open(tmp_path: Path) -> None:
    fill(tmp_path, range(40), per_shard=1)
    with FeatureStore.open(tmp_path) as store:
        for image in [*range(40), *range(40)]:
            assert np.array_equal(store.read(name_of(image), LAYERS), features_of(image))


def test_opening_the_writer_does_not_load_torch(tmp_path: Path) -> None:
    code = "import sys, claspkit.cache, claspkit.cache.child\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_shard_size_below_one_image_still_works(tmp_path: Path) -> None:
    with FeatureStore.open(tmp_path, make_key(), write=True) as store, store.writer(shard_bytes=1) as writer:
        for image in range(3):
            writer.add(name_of(image), features_of(image))
        assert len(store.shards) == 3
    assert shard_size(1) > 1
    assert_holds(tmp_path, range(3))
