"""``claspkit plan | inspect | report``: look before, at and after a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from claspkit.profiles.intents import open_taxonomy

from .cli_stages import PrototypesFile, TaxonomyFile
from .plan import make_plan
from .plan_cache import ALL, CacheChoice, parse_picture
from .plan_table import render_plan
from .probe import probe_machine
from .schedule import join_budgets, parse_stages
from .space_file import open_prototypes

RunArgument = Annotated[Path, typer.Argument(help="Run folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def plan(
    model: Annotated[str, typer.Option(help="Alias, hub id, or folder; only its config is read.")],
    per_class: Annotated[int, typer.Option(min=1, help="Samples per class.")] = 2000,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Nominal visual tokens (192) or share of them (1/3, 35%), several times; default: 1/3."),
    ] = None,
    schedule: Annotated[str, typer.Option(help="Named stage list: plain, recycled or interpolated.")] = "plain",
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="AFTER_LAYER:KEEP or before:KEEP, several times: one more column."),
    ] = None,
    cache_layers: Annotated[
        str, typer.Option(help="Vision layers to cache: all, prototypes (what the search reads), or a list 3,12,23.")
    ] = ALL,
    cache_dtype: Annotated[
        str, typer.Option(help="Values of the cache: float16, bfloat16, float32 or int8.")
    ] = "float16",
    picture: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of the pictures; default: the one the model's budgets refer to.")
    ] = None,
    taxonomy: TaxonomyFile = None,
    prototypes: PrototypesFile = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs, whose disk is looked at.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="Torch device whose speed is measured.")] = "cpu",
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Measure disk (a file of 256 MiB, deleted again) and device.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what a calibration would cost and what budgets mean, before anything runs.

    Examples:

      claspkit plan --model llava-1.5-7b --per-class 2000 --budget 192

      claspkit plan --model qwen2.5-vl-7b --budget 1/3 --budget 35% --stage before:432

      claspkit plan --model qwen2.5-vl-7b --picture 1024x1024 --cache-layers prototypes --cache-dtype int8
    """
    cache = CacheChoice(cache_dtype, cache_layers, parse_picture(picture) if picture else None)
    budgets = join_budgets(budget).split(",") if budget else []
    asked = (model, per_class, budgets, schedule, parse_stages(stage or []), cache)
    classes = len(open_taxonomy(taxonomy).ids)
    own = open_prototypes(prototypes)
    make_plan(*asked, classes=classes, own=own)  # what cannot be planned is refused before anything is measured
    facts = make_plan(*asked, probe_machine(out, device, speeds=probe), classes, own)
    typer.echo(json.dumps(facts) if as_json else render_plan(facts))


