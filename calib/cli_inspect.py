"""``claspkit inspect`` and ``claspkit report``: what a run found, or how far it came."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from claspkit.profiles.errors import CorruptError, UsageError

from .inspect_table import print_inspection
from .inspecting import SECTIONS, inspect_run
from .report_run import MOST_SHOWN, report_view
from .summary_budgets import at_budget
from .table import print_summary
from .table_budgets import ADAPTIVE
from .view import RunView, read_view
from .which_budget import list_budgets, show_budget

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
    budget: Annotated[
        str | None,
        typer.Option(
            help="Of a run with several: the budget (192, 1/3) to tell of, or adaptive; default: the first."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show what a run found: classes, race, costs, labels, rows left out. Of an unfinished one, what is there so far.

    Takes no lock and loads no model, so it may be called while the run goes on.

    Examples:

      claspkit inspect runs/mini

      claspkit inspect runs/mini --section race --class counting

      claspkit inspect runs/mini --candidate deep/0.3 --json

      claspkit inspect runs/mini --budget 1/9
    """
    view = read_view(run)
    asked = (sections or (), intents or (), candidates or ())
    facts = inspect_run(view, *asked, budget)
    if as_json:
        if view.summary is not None and not any(asked):
            facts["summary"] = view.summary
        typer.echo(json.dumps(facts))
        return
    console = Console()
    whole = view.summary is not None and not any(asked) and facts["budget"] != ADAPTIVE
    if view.summary is not None and whole:
        summary = at_budget(view.summary, facts["budget"])
        print_summary(summary, console, _profile(view, facts["budget"]), view.folder.report)
        console.print()
    print_inspection(facts, console, full=bool(intents or candidates), tables=not whole)
    if facts["next"]:
        typer.echo(f"unfinished; this goes on: {facts['next']}", err=True)


def _profile(view: RunView, nominal: int) -> Path:
    rows = view.summary.get("budgets", ()) if view.summary else ()
    return next((view.folder.root / row["path"] for row in rows if row["nominal"] == nominal), view.folder.profile)


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
    budget: Annotated[
        str | None, typer.Option(help="With --gallery: of which budget (192, 1/3) of several; default: the first.")
    ] = None,
    device: Annotated[str, typer.Option(help="Torch device, with --gallery.")] = "cpu",
) -> None:
    """Write RUN/report.html anew from what the run found.

    Examples:

      claspkit report runs/mini

      claspkit report runs/mini --gallery 3

      claspkit report runs/mini --gallery 2 --budget 1/9
    """
    if budget is not None and gallery is None:
        raise UsageError(
            "--budget says whose samples --gallery draws, and goes with it: for example --gallery 2; the report itself "
            "has all budgets"
        )
    view = read_view(run)
    if not view.finished:
        raise CorruptError(
            f"{run} is not finished, there is nothing to report yet; `claspkit inspect {shlex.quote(str(run))}` says "
            "how far it is"
        )
    shown = show_budget(view, budget)
    if shown.number is None:
        raise UsageError("--budget adaptive has no samples of its own; name one of its budgets: " + list_budgets(view))
    typer.echo(str(report_view(view, gallery, device, shown.number)))
