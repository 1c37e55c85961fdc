"""A helping thread that has ended its work when control leaves, whatever interrupts the wait for it.

Signals interrupt the main thread only. What a helping thread does is done as a whole, and a Ctrl-C that comes meanwhile
is raised afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def helping_thread(name: str) -> ThreadPoolExecutor:
    """Start one thread, which does what it is given in order; RuntimeError where the system gives no more threads."""
    helper = ThreadPoolExecutor(1, thread_name_prefix=name)
    helper.submit(_nothing).result()  # it runs from now on: handing work over starts no second one
    return helper


def undisturbed(helper: ThreadPoolExecutor, work: Callable[[], T], give_up: Callable[[], None]) -> T:
    """Return what ``work`` returns or raise what it raises; an interruption is raised once the work is over.

    Args:
        helper: of :func:`helping_thread`.
        work: what to do.
        give_up: called at every interruption but the first; makes the work end soon.
    """
    try:
        return helper.submit(work).result()
    except BaseException:
        settle(helper, give_up)
        raise


def settle(helper: ThreadPoolExecutor, give_up: Callable[[], None] | None = None) -> None:
    """Wait until all that the helper was given is over, however often that is interrupted.

    The interruption that led here is the caller's to raise; those that come meanwhile add nothing to it.
    """
    while True:
        try:
            # Not the future of the work: an interruption may have come before the caller had it in hand.
            helper.submit(_nothing).result()
        except RuntimeError:  # shut down, which has waited for its work
            return
        except BaseException:
            if give_up is not None:
                give_up()
        else:
            return


def _nothing() -> None:
    pass
