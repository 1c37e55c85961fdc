"""A running ``claspkit demo`` for tests: the command in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from house import ROOT

EXAMPLE = ROOT / "docs" / "example-profile.json"


@contextmanager
def running_demo(*options: object, profiles: tuple[Path, ...] = (EXAMPLE,)) -> Iterator[str]:
    """Start the demo on any free port; yields its address, and ends it as Ctrl-C does."""
    command = [sys.executable, "-c", "from claspkit.calib.cli import main; main()", "demo", "--model", "mini"]
    words = [word for path in profiles for word in ("--profile", str(path))]
    process = subprocess.Popen(
        [*command, *words, "--port", "0", "--max-new-tokens", "8", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address.startswith("http://127.0.0.1:"):
            raise RuntimeError(process.communicate()[1])
        yield address
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        assert told.splitlines()[-1] == "ended", told  # and no traceback of any request before it
        assert "Traceback" not in told
    finally:
        process.kill()
        process.wait()
