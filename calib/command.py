"""The command that made a run, written out again so that a message can name it whole."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from claspkit.profiles.budget import BEFORE_DECODER

from .config import RunConfig

_NAMES = {"stages": "--stage", "rhos": "--rho"}


def command_of(facts: Mapping[str, Any], run: Path, command: str = "claspkit calibrate") -> str:
    """Return a line for a shell that resumes the run in ``run``.

    Args:
        facts: what the run was locked with (``config.read_lock``); fields that are no option are left out.
        run: its folder.
        command: one of those that take a calibration's options.
    """
    defaults = {field.name: field.default for field in fields(RunConfig)}
    words = command.split()
    for name, default in defaults.items():
        value = facts.get(name)
        if default is MISSING or value != (list(default) if isinstance(default, tuple) else default):
            words += _option(name, value)
    return shlex.join([*words, "--out", str(run)])


def _option(name: str, value: Any) -> Iterator[str]:
    option = _NAMES.get(name, "--" + name.replace("_", "-"))
    if name == "columns":
        yield from (option, ",".join(f"{field}={column}" for field, column in value))
    elif name == "stages":
        for layer, keep in value:
            yield from (option, f"{'before' if layer == BEFORE_DECODER else layer}:{keep}")
    elif name == "rhos":
        for rho in value:
            yield from (option, str(rho))
    elif value is True:
        yield option
    elif value is not None:
        yield from (option, str(value))
