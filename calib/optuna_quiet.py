"""Optuna without its announcements: it logs to stderr by default, where our progress is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optuna import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Let Optuna log warnings and errors only; afterwards as much as before."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)
