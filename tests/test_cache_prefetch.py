"""Reading ahead: the same values in the same order, errors at their place, and a thread that ends when it should."""

from __future__ import annotations

import gc
import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_stores import LAYERS, copy_of, features_of, fill, make_key, name_of
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import claspkit.cache.prefetch as prefetch
from claspkit.cache import FeatureStore, MissingImageError
from claspkit.cache.dataset import FeatureDataset
from claspkit.cache.prefetch import Prefetcher, Request
from claspkit.cache.tensors import to_tensor
from claspkit.profiles.errors import CorruptError, MismatchError

PICTURES = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of nine pictures in three shards."""
    path: Path = tmp_path_factory.mktemp("prefetch") / "store"
    fill(path, range(PICTURES))
    return path


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[FeatureStore]:
    """That store, open for reading."""
    with FeatureStore.open(folder) as opened:
        yield opened


def wanted(image: int, layers: tuple[int, ...], dtype: str = "float16") -> Any:
    """What a request must give."""
    return features_of(image, dtype)[[LAYERS.index(layer) for layer in layers]]


def threads() -> list[threading.Thread]:
    """The reading threads that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "feature prefetch"]


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something comes true within ten seconds."""
    until = time.monotonic() + 10
    while not holds() and time.monotonic() < until:
        time.sleep(0.005)
    return holds()


def endless(taken: list[int] | None = None) -> Iterator[Request]:
    """Requests without an end; notes those taken."""
    for number in itertools.count():
        if taken is not None:
            taken.append(number)
        yield name_of(number % PICTURES), LAYERS


@given(
    st.lists(st.tuples(st.integers(0, PICTURES - 1), st.permutations(LAYERS), st.integers(1, 3)), max_size=12),
    st.integers(2, 5),
)
def test_items_are_those_of_the_store(
    store: FeatureStore, asked: list[tuple[int, list[int], int]], buffers: int
) -> None:
    """Any requests in any order, layers in any order, with any number of buffers."""
    picked = [(image, tuple(layers[:count])) for image, layers, count in asked]
    with Prefetcher(store, [(name_of(image), layers) for image, layers in picked], buffers) as items:
        for image, layers in picked:
            assert np.array_equal(next(items), wanted(image, layers))
        assert next(items, None) is None
    assert eventually(lambda: threads() == [])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_other_dtypes(dtype: str, tmp_path: Path) -> None:
    """Items have the storage dtype of the store."""
    fill(tmp_path, range(2), dtype=dtype)
    with FeatureStore.open(tmp_path) as store, Prefetcher(store, [(name_of(1), LAYERS)]) as items:
        assert np.array_equal(next(items), store.read(name_of(1), LAYERS))


def test_records_of_varying_shape(tmp_path: Path) -> None:
    """Buffers grow and are cut to each picture's own tokens."""
    counts = (5, 40, 1, 17)
    with FeatureStore.open(tmp_path, make_key(tokens=None), write=True) as store:
        with store.writer() as writer:
            for image, tokens in enumerate(counts):
                writer.add(name_of(image), np.full((3, tokens, 16), image, np.float16))
        with Prefetcher(store, [(name_of(image), LAYERS) for image in range(4)], buffers=2) as items:
            for image, (tokens, item) in enumerate(zip(counts, items, strict=True)):
                assert item.shape == (3, tokens, 16)
                assert bool((item == image).all())


def test_an_item_holds_until_the_next_and_buffers_are_used_again(store: FeatureStore) -> None:
    """However far the thread could read ahead, it does not touch the item given out, and takes no more memory."""
    places, taken = set(), list[int]()

    def reached(count: int) -> bool:
        return len(taken) == count

    with Prefetcher(store, endless(taken), buffers=3) as items:
        for number, item in zip(range(12), items, strict=False):
            assert eventually(partial(reached, number + 3))
            assert np.array_equal(item, features_of(number % PICTURES))
            places.add(item.__array_interface__["data"][0])
    assert len(places) == 3


def test_reading_stops_when_closed_early(store: FeatureStore) -> None:
    """By the end of the block, by an exception in it, by close() twice; afterwards nothing comes any more."""
    with Prefetcher(store, endless()) as items:
        next(items)
    assert eventually(lambda: threads() == [])
    with pytest.raises(ZeroDivisionError), Prefetcher(store, endless()) as items:
        raise ZeroDivisionError(next(items))
    assert eventually(lambda: threads() == [])
    items.close()
    assert next(items, None) is None


def test_an_iterator_that_is_dropped_ends_its_thread(store: FeatureStore) -> None:
    """Without a block and without close(), as after a break."""
    for _ in Prefetcher(store, endless()):
        break
    gc.collect()
    assert eventually(lambda: threads() == [])


def test_errors_come_at_their_item(store: FeatureStore) -> None:
    """A picture that is missing, a layer that is not stored, and requests that fail themselves."""

    def failing() -> Iterator[Request]:
        yield name_of(0), LAYERS
        raise ZeroDivisionError

    cases: list[tuple[Any, type[Exception]]] = [
        ([(name_of(0), LAYERS), (name_of(99), LAYERS), (name_of(1), LAYERS)], MissingImageError),
        ([(name_of(0), LAYERS), (name_of(1), (0, 1))], MismatchError),
        (failing(), ZeroDivisionError),
    ]
    for requests, error in cases:
        items = Prefetcher(store, requests)
        assert np.array_equal(next(items), features_of(0))
        with pytest.raises(error):
            next(items)
        assert next(items, None) is None
        assert eventually(lambda: threads() == [])


def test_a_damaged_shard_is_met_where_it_is_read(folder: Path) -> None:
    """Pictures of the shards before it are given out, then comes the error that names it."""
    damaged = copy_of(folder, "damaged")
    with FeatureStore.open(damaged) as store:
        path = damaged / store.shards[1].file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        good = len(store.shards[0].images)
        items = Prefetcher(store, [(name_of(image), LAYERS) for image in range(PICTURES)])
        assert len(list(itertools.islice(items, good))) == good
        with pytest.raises(CorruptError, match=path.name):
            next(items)


def test_at_least_two_buffers(store: FeatureStore) -> None:
    """With one, nothing could be read ahead."""
    with pytest.raises(ValueError, match="at least 2 buffers, got 1"):
        Prefetcher(store, [], buffers=1)


def test_pinned_memory_only_where_there_is_a_gpu(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for it elsewhere changes nothing; where there is one, torch allocates each buffer once."""
    monkeypatch.setattr(prefetch, "_has_gpu", lambda: False)
    with Prefetcher(store, [(name_of(0), LAYERS)], pin=True) as items:
        assert not items.pinned
        assert np.array_equal(next(items), features_of(0))
    monkeypatch.setattr(prefetch, "_has_gpu", lambda: True)
    empty, made = torch.empty, list[int]()

    def pinned(size: int, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        assert pin_memory
        made.append(size)
        return empty(size, dtype=dtype)

    monkeypatch.setattr(torch, "empty", pinned)
    with Prefetcher(store, [(name_of(0), LAYERS)] * 6, buffers=2, pin=True) as items:
        assert items.pinned
        assert all(np.array_equal(item, features_of(0)) for item in items)
    assert made == [features_of(0).nbytes] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_memory_on_a_gpu(store: FeatureStore) -> None:
    """Items lie in page-locked memory and arrive on the device."""
    with Prefetcher(store, [(name_of(image), LAYERS) for image in range(PICTURES)], pin=True) as items:
        for image, item in enumerate(items):
            tensor = to_tensor(item, "float16")
            assert tensor.is_pinned()
            assert np.array_equal(tensor.to("cuda", non_blocking=True).cpu().numpy(), features_of(image))


INTERRUPTED = """
    import itertools, sys, threading
    from claspkit.cache import FeatureStore
    from claspkit.cache.prefetch import Prefetcher
    store = FeatureStore.open(sys.argv[1])
    def requests(most):
        for count, image in enumerate(itertools.cycle(store.digests)):
            if count == 50:
                print("running", flush=True)
            if count == most:
                threading.Event().wait()
            yield image, store.key.layers
    for _ in Prefetcher(store, requests(int(sys.argv[2]))):
        pass
"""


@pytest.mark.parametrize("most", [-1, 50])
def test_ctrl_c_ends_the_process(folder: Path, most: int) -> None:
    """A real SIGINT, while items flow or while the next one does not come, ends script and thread at once."""
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(folder), str(most)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
    assert said.strip().endswith("KeyboardInterrupt")
    assert child.returncode in (-signal.SIGINT, 1, 130)


def loader(data: FeatureDataset, start: str, **options: Any) -> DataLoader[torch.Tensor]:
    """Two workers started in a given way."""
    return DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=start, **options)


def test_a_data_set_opens_its_store_when_it_is_read(folder: Path) -> None:
    """Not before; after closing again; and what crosses to a worker is closed."""
    data = FeatureDataset(folder / "not there", [(name_of(0), LAYERS)])
    assert len(data) == 1
    with pytest.raises(Exception, match="no feature store"):
        data[0]
    data = FeatureDataset(folder, [(name_of(3), LAYERS), (name_of(0), [2])], make_key())
    for _ in range(2):
        assert torch.equal(data[0], torch.from_numpy(features_of(3)))
        assert data.__getstate__()["_store"] is None
        data.close()
    assert data[1].shape == (1, *features_of(0).shape[1:])
    with pytest.raises(IndexError):
        data[2]
    with pytest.raises(MismatchError, match="bfloat16"):
        FeatureDataset(folder, [(name_of(0), LAYERS)], make_key("bfloat16"))[0]


def test_forked_workers_open_their_own_store(folder: Path) -> None:
    """Although the parent had the data set open when it forked."""
    data = FeatureDataset(folder, [(name_of(image), LAYERS) for image in range(PICTURES)])
    data[0]
    batches = list(loader(data, "fork"))
    assert torch.equal(torch.cat(batches), torch.stack([data[image] for image in range(PICTURES)]))


@pytest.mark.long
def test_spawned_workers(folder: Path) -> None:
    """Two fresh interpreters read all pictures in order; a damaged shard ends the loop with its error."""
    fill(folder.with_name("bits"), range(PICTURES), dtype="bfloat16")
    data = FeatureDataset(folder.with_name("bits"), [(name_of(image), LAYERS[:2]) for image in range(PICTURES)])
    read = torch.cat(list(loader(data, "spawn")))
    assert read.dtype == torch.bfloat16
    assert torch.equal(read, torch.stack([data[image] for image in range(PICTURES)]))
    damaged = copy_of(folder, "damaged for workers")
    with FeatureStore.open(damaged) as store:
        (damaged / store.shards[-1].file).unlink()
    data = FeatureDataset(damaged, [(name_of(image), LAYERS) for image in range(PICTURES)])
    batches = iter(loader(data, "spawn"))
    assert len(list(itertools.islice(batches, 4))) == 4
    with pytest.raises(CorruptError, match="missing"):
        next(batches)
