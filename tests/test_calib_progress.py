"""Progress where nobody watches: plain lines on stderr, and silence when asked for."""

from __future__ import annotations

import pytest

from claspkit.calib import progress
from claspkit.calib.progress import Reporter


def test_plain_lines_name_task_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Off a terminal: a line when it is due, one at the end, nothing on stdout."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    reporter = Reporter()
    with reporter.task("cache", 10, "pictures") as advance:
        advance(4)
        advance(6)
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("cache: 4 / 10 pictures, ")
    assert lines[0].endswith("s left")
    assert lines[-1].startswith("cache: 10 pictures in ")


def test_quiet_says_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json nothing but warnings reaches stderr; text in brackets is no markup."""
    reporter = Reporter(quiet=True)
    reporter.say("hello")
    with reporter.task("search", 5, "evaluations") as advance:
        advance(5)
    reporter.warn("[red]quarantined[/red] row 3")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "warning: [red]quarantined[/red] row 3\n"


def test_an_error_inside_a_task_passes_through() -> None:
    """The display does not swallow what went wrong."""
    with pytest.raises(RuntimeError, match="boom"), Reporter().task("x", 3, "things"):
        raise RuntimeError("boom")
