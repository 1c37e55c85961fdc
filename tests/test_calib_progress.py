"""Progress where nobody watches: plain lines on stderr, and silence when asked for."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

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


def test_a_detail_stands_beside_the_count(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked anew for each line, so that it says what is true then."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    size = 0
    with Reporter().task("cache", 10, "pictures", lambda: f"{size} MB") as advance:
        size = 3
        advance(4)
        size = 7
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("cache: 4 / 10 pictures, 3 MB, ")
    assert lines[1].startswith("cache: 4 pictures, 7 MB in ")


def test_a_terminal_shows_the_detail_too(capsys: pytest.CaptureFixture[str]) -> None:
    """The live display ends with the last one."""
    reporter = Reporter()
    reporter.console = Console(stderr=True, force_terminal=True, width=100)
    size = 0
    with reporter.task("cache", 10, "pictures", lambda: f"{size} MB") as advance:
        size = 9
        advance(10)
    assert re.search(r"10/10 pictures [\d.]+ a second 9 MB", Text.from_ansi(capsys.readouterr().err).plain)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_pace_is_that_of_the_work(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither what took place before the first step nor what that one found done counts: 20 in 10 seconds."""
    now = 1000.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    reporter = Reporter()
    reporter.console = Console(stderr=True, force_terminal=terminal, width=120)
    with reporter.task("label", 1000, "prompts") as advance:
        now += 300
        advance(900)
        now += 10
        advance(20)
    shown = Text.from_ansi(capsys.readouterr().err).plain
    assert "2.0 a second" in shown
    assert terminal or "label: 920 / 1000 prompts, 2.0 a second, 40 s left" in shown


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
