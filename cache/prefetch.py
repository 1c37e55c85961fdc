"""Reading ahead: a background thread fills buffers in the order in which they will be wanted.

Torch is loaded only where pinned memory is asked for.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from types import TracebackType
from typing import Any

import numpy as np

from .layout import Features, storage_dtype
from .store import FeatureStore

Request = tuple[str, Sequence[int]]
"""SHA-256 hex of an image, and layer numbers in any order."""


class Prefetcher(Iterator[Features]):
    """Iterates over the features of ``requests``, read ahead in a background thread; a context manager too.

    Each item is (len(layers), tokens, width) in storage dtype, as of :meth:`FeatureStore.read`, and lies in one of a
    few buffers that are used again: it is valid until the next item is asked for. An error ends the iteration, at the
    item it belongs to; those before it are given out. Ctrl-C, an exception in the loop or :meth:`close` stop the
    thread after the read it is at; so does dropping the iterator, and the end of the process. A forked process has the
    iterator without its thread: there it ends at once.

    Attributes:
        pinned: whether the buffers are page-locked, so that copies to a GPU need not wait.
    """

    def __init__(self, store: FeatureStore, requests: Iterable[Request], buffers: int = 4, pin: bool = False) -> None:
        """Start reading.

        Args:
            store: open; it must stay open until the iteration has ended.
            requests: what to read, in order; taken one at a time, in the background thread.
            buffers: how many items are in memory at once, the one given out included; at least 2.
            pin: use page-locked memory where there is a GPU; elsewhere it means nothing.

        Raises:
            ValueError: fewer than 2 buffers.
        """
        if buffers < 2:
            raise ValueError(f"reading ahead takes at least 2 buffers, got {buffers}")
        self.pinned = pin and _has_gpu()
        self._shared = _Shared([_Buffer(self.pinned) for _ in range(buffers)])
        self._held: _Buffer | None = None
        # The thread knows what it shares, not this object, so that an iterator that is dropped ends it.
        self._drop = weakref.finalize(self, _forget, self._shared)
        self._drop.atexit = False
        # A thread that the interpreter freezes inside HDF5 would keep HDF5's lock, and the exit would wait for that.
        atexit.register(self._shared.settle)
        thread = threading.Thread(
            target=_read_all, args=(store, iter(requests), self._shared), name="feature prefetch", daemon=True
        )
        thread.start()

    def __next__(self) -> Features:
        """Give the next item out and take the one before it back."""
        held, self._held = self._held, None
        self._held, features = self._shared.exchange(held)
        if features is None:
            self.close()
            raise StopIteration
        if isinstance(features, BaseException):
            self.close()
            raise features
        return features

    def close(self) -> None:
        """Stop reading; when this returns, the store is not in use any more. May be called twice."""
        self._shared.settle()
        self._drop()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Buffer:
    """Memory that grows to the largest item it has held."""

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._bytes = np.empty(0, np.uint8)
        self._owner: Any = None

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Features:
        """The front of the memory as an array; its former contents are lost."""
        size = prod(shape) * dtype.itemsize
        if self._bytes.size < size:
            self._bytes = self._pinned_bytes(size) if self._pinned else np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype).reshape(shape)

    def _pinned_bytes(self, size: int) -> Features:
        import torch

        self._owner = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        array: Features = self._owner.numpy()
        return array


class _Shared:
    """What the two threads share: free buffers, and items in order; an item is features, an error, or None: the end."""

    def __init__(self, buffers: Sequence[_Buffer]) -> None:
        self._free = deque(buffers)
        self._items: deque[tuple[_Buffer | None, Features | BaseException | None]] = deque()
        self._stopped = self._reading = False
        self._pid = os.getpid()
        # Re-entrant: the interpreter may finalise an iterator, which stops it, in the midst of any of these.
        self._changed = threading.Condition(threading.RLock())

    @property
    def _foreign(self) -> bool:
        """Whether this is a fork's copy: the thread is not there, and the lock may be held by it for ever."""
        return os.getpid() != self._pid

    def stop(self) -> None:
        """Make both sides return as soon as they can; never waits."""
        if self._foreign:
            return
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._free.clear()
            self._changed.notify_all()

    def settle(self) -> None:
        """Stop, and wait for the read that is going on; the requests, which may never deliver, are not waited for."""
        if self._foreign:
            return
        self.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._reading)

    @contextmanager
    def reading(self) -> Iterator[bool]:
        """Enclose a read; yields False when there is to be none, because all is stopped."""
        with self._changed:
            self._reading = not self._stopped
        try:
            yield self._reading
        finally:
            with self._changed:
                self._reading = False
                self._changed.notify_all()

    def take(self) -> _Buffer | None:
        """Wait for a free buffer; None when stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._stopped)
            return None if self._stopped else self._free.popleft()

    def put(self, buffer: _Buffer | None, item: Features | BaseException | None) -> None:
        """Hand an item over."""
        with self._changed:
            if not self._stopped:
                self._items.append((buffer, item))
                self._changed.notify_all()

    def exchange(self, used: _Buffer | None) -> tuple[_Buffer | None, Features | BaseException | None]:
        """Give a buffer back and wait for the next item; the end, when stopped."""
        if self._foreign:
            return None, None
        with self._changed:
            if used is not None:
                self._free.append(used)
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._items or self._stopped)
            return (None, None) if self._stopped else self._items.popleft()


def _read_all(store: FeatureStore, requests: Iterator[Request], shared: _Shared) -> None:
    """The background thread: every error, also one of ``requests``, becomes the item at its place."""
    try:
        dtype = storage_dtype(store.key.dtype)
        while (buffer := shared.take()) is not None:
            request = next(requests, None)
            if request is None:
                shared.put(None, None)
                return
            image, layers = request
            with shared.reading() as wanted:
                if not wanted:
                    return
                out = buffer.view((len(layers), *store.shape(image)[1:]), dtype)
                store.read(image, layers, out=out)
            shared.put(buffer, out)
    except BaseException as error:
        shared.put(None, error)


def _forget(shared: _Shared) -> None:
    shared.stop()
    atexit.unregister(shared.settle)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
