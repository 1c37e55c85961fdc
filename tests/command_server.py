"""Run ``claspkit`` commands, each in a process of its own that ends as a user's does, but imports everything once.

One JSON line per command on standard input: ``arguments``; ``said``, a file for all it prints; ``blind``, whether the
checks of free space see endless room, as when another program takes it afterwards; ``shard_bytes``. The answer is
one line: the exit code, or minus the signal.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from typing import Any

import claspkit.calib.cli as cli
from claspkit.cache import extract as extraction
from claspkit.cache import process
from claspkit.calib import features
from claspkit.runtime.models import load_model


def command(asked: dict[str, Any]) -> None:
    """Become that command; ends the process, the interpreter's own end included."""
    target = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(target, standard)
    os.close(target)
    if asked["blind"]:
        for module in (process, extraction):
            module.require_space = lambda *_: None  # type: ignore[attr-defined]
    extract = functools.partial(extraction.extract, shard_bytes=asked["shard_bytes"])
    features.extract = extract  # type: ignore[attr-defined]
    cli.main(asked["arguments"])


def main() -> None:
    """Answer until the input ends."""
    load_model("mini")  # so that transformers imports before the fork what it imports late
    for line in sys.stdin:
        child = os.fork()
        if not child:
            command(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
