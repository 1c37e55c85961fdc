"""``claspkit space``: the configurations that a calibration would search, before it does."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from claspkit.runtime.models import model_sizes, resolve_model

from .cli_stages import PrototypesFile, Rho
from .space import Space, make_space
from .space_file import open_prototypes
from .table import clean


def space(
    model: Annotated[str, typer.Option(help="Alias, hub id, or folder; only its config is read.")],
    prototypes: PrototypesFile = None,
    rho: Rho = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show the layer prototypes and splits that a calibration of a model searches.

    Examples:

      claspkit space --model mini

      claspkit space --model llava-1.5-7b --prototypes mine.toml
    """
    own = open_prototypes(prototypes)
    facts = model_sizes(resolve_model(model)).facts
    made = make_space(facts.default_layer, sorted(set(rho or [])), own, facts.vision_depth)
    if as_json:
        typer.echo(json.dumps(_facts(made, facts.vision_depth)))
        return
    console = Console()
    console.print(_table(made))
    for name, value in (
        ("vision layers", f"0 to {facts.vision_depth}; the stock model reads {facts.default_layer}"),
        ("rho", ", ".join(f"{value:g}" for value in made.rhos)),
        ("candidates", f"{len(made.candidates)} of {len(made.prototypes)} prototypes; default {made.default.id}"),
        ("digest", made.sha256),
    ):
        console.print(Text(f"{name:<13} {value}"), soft_wrap=True, highlight=False)


def _facts(made: Space, depth: int) -> dict[str, Any]:
    return {
        "vision_depth": depth,
        "prototypes": [
            {
                "name": row.name,
                "layers": list(row.layers),
                "scores": list(row.scores),
                "tau": row.tau,
                "weights": list(row.weights),
            }
            for row in made.prototypes
        ],
        "rhos": list(made.rhos),
        "candidates": len(made.candidates),
        "default": made.default.id,
        "sha256": made.sha256,
    }


def _table(made: Space) -> Table:
    """A row per prototype: its layers, and the share of each in the fusion."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("prototype", overflow="fold")
    table.add_column("layers", overflow="fold")
    table.add_column("weights", overflow="fold")
    for row in made.prototypes:
        weights = " ".join(f"{weight:.3f}" for weight in row.weights)
        table.add_row(Text(clean(row.name)), Text(" ".join(map(str, row.layers))), Text(weights))
    return table
