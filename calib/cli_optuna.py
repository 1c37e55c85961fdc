"""``claspkit export-optuna``: a run's search, to look at with Optuna's tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_optuna(
    run: Annotated[Path, typer.Argument(help="Run folder, finished or not.")],
    file: Annotated[
        Path, typer.Argument(help="File to write: FILE.db (SQLite) or FILE.log (a journal of Optuna).")
    ],
) -> None:
    """Write the scores of a run's search as Optuna studies, one per class. Needs no model.

    A trial is a candidate. Pruned are those that saw fewer samples than others of their class; scores at 32, 64, ...
    samples are the intermediate values. The best trial is the winner of the search, before the holdout decided.

    Example:

      claspkit export-optuna runs/mini scores.db

      optuna-dashboard sqlite:///scores.db
    """
    from .optuna_export import export_optuna as write  # optuna takes a while to load, and no other command needs it

    for intent, trials in write(run, file).items():
        typer.echo(f"{intent:<12} {trials} trials", err=True)
    typer.echo(str(file))
