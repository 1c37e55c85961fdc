"""The same work on many items by several threads, for work that waits for something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T, Event], R], items: Sequence[T], workers: int) -> list[R]:
    """``work(item, stop)`` for every item, at most ``workers`` at a time; the results in the items' order.

    The first error, Ctrl-C included, ends it at once: ``stop`` is set, and what still runs is left behind. The threads
    do not keep the program from ending.
    """
    waiting: SimpleQueue[tuple[int, T]] = SimpleQueue()
    for pair in enumerate(items):
        waiting.put(pair)
    done: SimpleQueue[tuple[int, R] | BaseException] = SimpleQueue()
    stop = Event()

    def loop() -> None:
        while not stop.is_set():
            try:
                index, item = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((index, work(item, stop)))
            except BaseException as error:
                done.put(error)
                return

    for number in range(min(workers, len(items))):
        Thread(target=loop, name=f"label-{number}", daemon=True).start()
    found: dict[int, R] = {}
    try:
        while len(found) < len(items):
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            found[result[0]] = result[1]
    finally:
        stop.set()
    return [found[index] for index in range(len(items))]
