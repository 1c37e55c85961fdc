"""``claspkit inspect`` and ``claspkit report``: what a run found, or how far it came."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from claspkit.profiles.errors import CorruptError

from .inspect_table import print_inspection
from .inspecting import SECTIONS, inspect_run
from .report_run import MOST_SHOWN, report_view
from .table import print_summary
from .view import read_view

RunArgument = Annotated[Path, typer.Argument(help="Run folder.")]


def inspect(
    run: RunArgument,
    intents: Annotated[list[str] | None, typer.Option("--class", help="Class to tell of, several times.")] = None,
    candidates: Annotated[
        list[str] | None, typer.Option("--candidate", help="Candidate to follow through the race, such as deep/0.3.")
    ] = None,
    sections: Annotated[
        list[str] | None, typer.Option("--section", help=f"One of {', '.join(SECTIONS)}, several times; default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show what a run found: classes, race, costs, labels, rows left out. Of an unfinished one, what is there so far.

    Takes no lock and loads no model, so it may be called while the run goes on.

    Examples:

      claspkit inspect runs/mini

      claspkit inspect runs/mini --section race --class counting

      claspkit inspect runs/mini --candidate deep/0.3 --json
    """
    view = read_view(run)
    asked = (sections or (), intents or (), candidates or ())
    facts = inspect_run(view, *asked)
    if as_json:
        if view.summary is not None and not any(asked):
            facts["summary"] = view.summary
        typer.echo(json.dumps(facts))
        return
    console = Console()
    whole = view.summary is not None and not any(asked)
    if view.summary is not None and whole:
        print_summary(view.summary, console, view.folder.profile, view.folder.report)
    print_inspection(facts, console, full=bool(intents or candidates), tables=not whole)
    if facts["next"]:
        typer.echo(f"unfinished; this goes on: {facts['next']}", err=True)


def report(
    run: RunArgument,
    gallery: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST_SHOWN,
            help="Draw the tokens kept of so many right and so many wrong samples per class anew; loads the model.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Torch device, with --gallery.")] = "cpu",
) -> None:
    """Write RUN/report.html anew from what the run found.

    Examples:

      claspkit report runs/mini

      claspkit report runs/mini --gallery 3
    """
    view = read_view(run)
    if not view.finished:
        raise CorruptError(
            f"{run} is not finished, there is nothing to report yet; `claspkit inspect {shlex.quote(str(run))}` says "
            "how far it is"
        )
    typer.echo(str(report_view(view, gallery, device)))
