"""The command line, called in the process of the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from claspkit.calib.cli import main


def exit_code(arguments: Sequence[str], entry: Callable[[list[str]], object] = main) -> int:
    """Run a command; returns its exit code."""
    with pytest.raises(SystemExit) as stop:
        entry(list(arguments))
    return int(stop.value.code or 0)


def claspkit(*words: str) -> int:
    """Run ``claspkit WORDS``; returns its exit code."""
    return exit_code(words)
