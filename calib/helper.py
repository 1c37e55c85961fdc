"""A process that works for a run: started, listened to and ended by the run's own process."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import IO, Any, Final

from claspkit.cache.process import cause_of_death
from claspkit.profiles.errors import (
    BadDataError,
    ClaspError,
    CorruptError,
    MismatchError,
    NotFiniteError,
    ResourceError,
    UsageError,
)

_ERRORS: Final[dict[str, type[ClaspError]]] = {
    kind.__name__: kind
    for kind in (BadDataError, CorruptError, MismatchError, NotFiniteError, ResourceError, UsageError)
}


def start_of(module: str) -> str:
    """What a fresh interpreter runs to become a helper: ``serve`` of a module of this folder, with its first line.

    A fork would take over torch's threads and CUDA's state, which survive none. The job is read before anything large
    is imported, so that the parent can start the next one at once.
    """
    return (
        "import sys; sys.path[:] = sys.argv[1:]; job = sys.stdin.buffer.readline(); "
        f"from claspkit.calib.{module} import serve; serve(job)"
    )


class Helper:
    """One process; what it says goes into ``heard`` as (helper, message), None when it falls silent.

    Attributes:
        index: its number among its like.
    """

    def __init__(
        self, index: int, start: str, message: Mapping[str, Any], heard: queue.SimpleQueue[tuple[Any, Any]]
    ) -> None:
        """Start it with ``start`` (of :func:`start_of`) and send it ``message`` as its job."""
        self.index = index
        self._heard = heard
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-c", start, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            process_group=0,  # Ctrl-C is for the parent, which tells its helpers itself
        )
        self.tell(message)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send it a JSON object, one line; one that is gone says so by its silence."""
        self._write(json.dumps(message))

    def stop(self) -> None:
        """Ask it to end."""
        self._write("stop")

    def wait(self, seconds: float) -> None:
        """Wait for its end, so long at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))

    def close(self) -> None:
        """End it if it still runs, and free what it took."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def death_of(self, what: str, then: str) -> ResourceError:
        """The error for a helper that fell silent before its end.

        Args:
            what: it is, in words.
            then: what is kept, and how to go on.
        """
        how = cause_of_death(self._process.wait(), self._errors)
        return ResourceError(f"worker {self.index}, {what}, {how}. {then}")

    def met(self, message: Mapping[str, Any]) -> ClaspError:
        """The typed error that it told of by ``{"error": name, "text": words}``."""
        kind = _ERRORS.get(message["error"], ResourceError)
        return kind(f"{message['text']} (met by worker {self.index})")

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # cut short by its death
                self._heard.put((self, json.loads(line)))
        self._heard.put((self, None))
