"""``claspkit router study``: what routing errors cost a finished calibration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import is_standard
from claspkit.router.backends import BACKENDS

from .cli_backend import named_options
from .cli_stages import RouterAnswers, RouterConcurrency, RouterEndpoint, RouterKeyEnv, RouterMode, RouterModel
from .finished import read_finished
from .labelling import Access
from .output import write_named
from .progress import Reporter
from .study import CONFIGS, PROFILE, SEEDS, check_study, route_holdout
from .study import study as make_study
from .study_chart import render
from .study_table import print_study


def study(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished calibration.")],
    router: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Router to compare, several times: profile (the run's own), {', '.join(BACKENDS)}; "
            "default: profile, student."
        ),
    ] = None,
    configs: Annotated[
        str, typer.Option(help=f"Configurations of the classes, one of: {', '.join(CONFIGS)}.")
    ] = "profile",
    out: Annotated[Path | None, typer.Option(help="Picture to write: FILE.svg, or FILE.html with the table.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Draws of who is hit by an error.")] = SEEDS,
    router_model: RouterModel = None,
    router_mode: RouterMode = "logits",
    router_endpoint: RouterEndpoint = None,
    router_key_env: RouterKeyEnv = None,
    router_concurrency: RouterConcurrency = Access.concurrency,
    router_answers: RouterAnswers = None,
    device: Annotated[str, typer.Option(help="Torch device of a labelling model.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Say what routing errors cost: prompts sent to the default class, to a random wrong one, or by another router.

    Scores every holdout sample under every class's configuration, once; RUN/study.jsonl keeps what the run's ledger
    does not have. Each way of routing is then looked up in that table.

    Examples:

      claspkit router study runs/mini --configs winners --out study.html

      claspkit router study runs/mini --router student --router replay --router-answers runs/other/labels.jsonl
    """
    if out is not None and out.suffix not in (".html", ".svg"):
        raise UsageError(f"--out {out} is neither a .svg nor a .html file")
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    options = named_options(router_model, router_mode, router_endpoint, router_key_env, router_answers, device)
    options = replace(options, concurrency=router_concurrency)
    check_study(router or [], options, configs)
    report = Reporter(quiet=as_json)
    finished = read_finished(run)
    names = router or ([PROFILE, "student"] if is_standard(finished.taxonomy) else [PROFILE])
    routed = route_holdout(finished, names, replace(options, taxonomy=finished.taxonomy), report)
    found = make_study(finished, routed, configs, seeds, report)
    if out is not None:
        write_named(out, render(found, out.suffix).encode(), "--out")
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_study(found, Console())
        if out is not None:
            typer.echo(f"written to {out}", err=True)
