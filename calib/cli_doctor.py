"""``claspkit doctor``: look at the machine before anything is started on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from claspkit.profiles.errors import ResourceError

from .doctor import Check, examine

_MARKS = {"ok": "", "note": "!", "fails": "X"}


def doctor(
    out: Annotated[Path, typer.Option(help="Folder of the runs, whose disk is looked at.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="Torch device that is tried.")] = "cpu",
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Measure disk (a file of 256 MiB, deleted again) and device.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show versions, devices, disk, image backend and models, then what will not work here and why.

    The exit code is 5 if calibrating cannot work on this machine as it is.

    Examples:

      claspkit doctor

      claspkit doctor --device cuda --out /data/runs

      claspkit doctor --no-probe --json
    """
    checks = examine(out, device, probe=probe)
    failed = [check for check in checks if check.status == "fails"]
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "checks": [check.to_dict() for check in checks]}))
    else:
        _print(checks)
    if failed:
        raise ResourceError(f"calibrating will not work here: {', '.join(check.name for check in failed)}; see above")


def _print(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        typer.echo(f"{_MARKS[check.status]:<1} {check.name:<{width}}  {check.value}")
    noted = [check for check in checks if check.status != "ok"]
    if noted:
        typer.echo("\nWhat will not work here, or works otherwise:")
    for check in noted:
        typer.echo(f"  {check.name}: {check.why}")
