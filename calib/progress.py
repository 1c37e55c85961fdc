"""Progress on stderr: a live display on a terminal, a plain line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 10.0
"""Plain lines come at most this often: a log file stays readable."""

_MOMENT = 1e-6  # seconds; nothing is divided by less

Advance = Callable[[int], None]


def steps(advance: Advance) -> Callable[[int, int], None]:
    """Turn "n of m done" calls into the steps between them."""
    before = 0

    def progress(done: int, _: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return progress


class Reporter:
    """Tells a person what a long run is doing.

    Args:
        quiet: say nothing but warnings.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._quiet = quiet

    def say(self, text: str) -> None:
        """Print one line, unless quiet."""
        if not self._quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print one line that a person must not miss."""
        self.console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    def rows(self) -> Callable[[str, int], None]:
        """Return what to call with (data set, rows read so far) while data of unknown length is read."""
        last = time.monotonic()

        def tell(dataset: str, count: int) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_SECONDS:
                last = time.monotonic()
                self.say(f"samples: {count} rows of {dataset} read")

        return tell

    @contextmanager
    def task(self, name: str, total: int, unit: str, detail: Callable[[], str] = str) -> Iterator[Advance]:
        """Show a task of ``total`` units; yields a function to call with the units just done.

        Args:
            name: of the task.
            total: units there are.
            unit: their name.
            detail: says what else is to be shown, asked whenever something is.
        """
        if self._quiet or total == 0:
            yield lambda _: None
        elif self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self.console) as live:
                pace = _Pace()
                task = live.add_task(name, total=total, detail=detail(), rate="")

                def advance(count: int) -> None:
                    live.update(task, advance=count, detail=detail(), rate=f"{pace.step(count):.1f} a second")

                yield advance
        else:
            lines = _Lines(self.say, name, total, unit, detail)
            yield lines.advance
            lines.end()


class _Pace:
    """Units a second.

    Before the first step a model may have been loaded, and the first step may be what an earlier run did. So from the
    second step on only what came after the first counts.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._first: float | None = None
        self._since = 0

    def step(self, count: int) -> float:
        """Count units that are done by now; returns the pace."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return count / max(now - self._start, _MOMENT)
        self._since += count
        return self._since / max(now - self._first, _MOMENT)


class _Lines:
    """Plain progress: ``name: done / total unit, detail, rate, time left``."""

    def __init__(self, say: Callable[[str], None], name: str, total: int, unit: str, detail: Callable[[], str]) -> None:
        self._say, self._name, self._total, self._unit, self._detail = say, name, total, unit, detail
        self._done = 0
        self._pace = _Pace()
        self._start = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        rate = self._pace.step(count)
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            left = (self._total - self._done) / rate if rate else 0.0
            self._say(
                f"{self._name}: {self._done} / {self._total} {self._unit}{self._more()}, {rate:.1f} a second, "
                f"{left:.0f} s left"
            )

    def end(self) -> None:
        self._say(f"{self._name}: {self._done} {self._unit}{self._more()} in {time.monotonic() - self._start:.1f} s")

    def _more(self) -> str:
        detail = self._detail()
        return f", {detail}" if detail else ""
