"""``claspkit paper``: the paper's tables, and one's own numbers beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from claspkit.profiles.errors import UsageError
from claspkit.runtime.models import ALIASES, load_model

from .cli_evaluate import (
    BATCH_SIZE,
    AsJson,
    BatchSize,
    Device,
    Dtype,
    ImageRoot,
    MaxNewTokens,
    MaxRows,
    Out,
    Seed,
    check_dtype,
    out_folder,
    revision_of,
)
from .config import RunConfig
from .evaluate import Setting, check_finite, evaluate
from .evaluate_data import MINI_SEED, read_rows
from .paper import PaperTable, computed_average, find_table, follows, paper_tables
from .paper_own import beside, data_notes, own_rows, parse_data, ways_of
from .paper_view import print_beside, print_list, print_table
from .progress import Reporter
from .run_model import DTYPES


def paper(
    number: Annotated[
        int | None, typer.Argument(metavar="TABLE", help="Table of the paper; without one they are listed.")
    ] = None,
    profile: Annotated[
        list[Path] | None, typer.Option("--profile", help="Profile for one of the table's budgets; several times.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Alias, hub id or folder of the profiles' model.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=DATA: other rows in the place of a column's data set; several times."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Column to evaluate, several times; default: all.")] = None,
    max_rows: MaxRows = None,
    image_root: ImageRoot = None,
    seed: Seed = MINI_SEED,
    out: Out = None,
    max_new_tokens: MaxNewTokens = RunConfig.max_new_tokens,
    batch_size: BatchSize = BATCH_SIZE,
    device: Device = "cpu",
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """List the paper's tables, print one, or evaluate profiles on its data sets and print both side by side.

    Without a table all 25 are listed: what can be had here, what cannot, and why.
    With --profile and --model the table's data sets are evaluated, as by
    claspkit evaluate, which goes on where it stopped. A profile is put beside
    the row of its budget; rows of an ablation are had by replacing a part of it.

    Examples:

      claspkit paper

      claspkit paper 2

      claspkit paper 1 --model llava-1.5-7b --profile runs/llava/profile --profile runs/llava/profile-128 \\
        --profile runs/llava/profile-64 --device cuda --out runs/paper

      claspkit paper 10 --model mini --profile runs/mini/profile --only gqa --data gqa=mini --max-rows 90
    """
    given = {
        "--model": model,
        "--data": data,
        "--only": only,
        "--max-rows": max_rows,
        "--out": out,
        "--image-root": image_root,
        "--dtype": dtype,
        "--device": device != "cpu",
        "--seed": seed != MINI_SEED,
        "--max-new-tokens": max_new_tokens != RunConfig.max_new_tokens,
        "--batch-size": batch_size != BATCH_SIZE,
    }
    if number is None:
        _refuse({"--profile": profile, **given}, "a table")
        _list(as_json)
        return
    table = find_table(number)
    if not profile:
        _refuse(given, "--profile")
        if as_json:
            typer.echo(json.dumps(_facts(table), ensure_ascii=False))
        else:
            print_table(table, Console())
        return
    if model is None:
        raise UsageError("--profile needs --model, the model that it was made for")
    check_dtype(dtype)
    rows = own_rows(table, profile)
    chosen = parse_data(table, data or [], only or [])
    report = Reporter(quiet=as_json)
    folder = out_folder(out, model)
    wanted = list(chosen.values())
    read = read_rows(wanted, model, folder, image_root=image_root, max_rows=max_rows, seed=seed, report=report)
    notes = [*_model_notes(table, model, max_rows), *data_notes(chosen, read)]
    for note in notes:
        report.warn(note)
    ways = ways_of(rows)
    loaded = load_model(model, device=device, dtype=DTYPES[dtype] if dtype else None, revision=revision_of(ways))
    found = evaluate(Setting(loaded, max_new_tokens, batch_size), ways, read, folder, report)
    made = beside(table, rows, chosen, found)
    if as_json:
        typer.echo(json.dumps({**made, "notes": notes}, ensure_ascii=False))
    else:
        print_beside(table, made, notes, Console())
    check_finite(found)


def _refuse(given: Mapping[str, object], lacking: str) -> None:
    """Refuse options of an evaluation where there is none."""
    if named := [name for name, value in given.items() if value]:
        raise UsageError(f"{named[0]} needs {lacking}: claspkit paper 1 --model MODEL --profile PROFILE")


def _model_notes(table: PaperTable, model: str, max_rows: int | None) -> list[str]:
    notes = []
    if model not in table.models and model not in {ALIASES.get(alias) for alias in table.models}:
        notes.append(f"the paper's model is {' or '.join(table.models)}, this is {model}")
    if max_rows is not None:
        notes.append(f"only the first {max_rows} rows of every data set are asked (--max-rows)")
    return notes


def _list(as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_facts(table) for table in paper_tables().values()], ensure_ascii=False))
    else:
        print_list(Console())


def _facts(table: PaperTable) -> dict[str, Any]:
    """A table as JSON, with what its averages should be."""
    budgets = [
        {
            "label": budget.label,
            "share": None if budget.share is None else float(budget.share),
            "rows": [
                {**asdict(row), "computed_average": computed_average(table, row), "follows": follows(table, row)}
                for row in budget.rows
            ],
        }
        for budget in table.budgets
    ]
    return {**asdict(table), "budgets": budgets}
