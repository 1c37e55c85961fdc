"""``claspkit export | verify | diff``: what leaves a run, what came from elsewhere, and what changed between two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from claspkit.profiles.errors import CorruptError, UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import INTENT_IDS

from .compare import compare_profiles, render_comparison
from .embed import export_embedded
from .export import budget_profile, export_folded, export_profile, profile_file
from .verify import verify_folder

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, or a profile.")],
    to: Annotated[Path | None, typer.Option(help="Folder to write; it must not exist or be empty.")] = None,
    fold_class: Annotated[
        str | None,
        typer.Option(help=f"Write a model with this class's fusion: {', '.join(INTENT_IDS)}, or the profile's own."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="To fold: alias, hub id or folder of the model the profile was made for.")
    ] = None,
    embed: Annotated[
        Path | None, typer.Option(help="Write the profile into config.json of this model folder, which is changed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --embed: replace a profile that is there.")] = False,
    budget: Annotated[
        str | None, typer.Option(help="Of a run with several: the budget (192, 1/3) whose profile it is, or adaptive.")
    ] = None,
) -> None:
    """Copy a profile for deployment, embed it into a model folder, or fold one class's layer fusion into a model.

    A copied profile is profile.json, its router, its JSON Schema, a card and a list of digests: a folder that can be
    uploaded to a model hub as it is. An embedded one is an object under "claspkit" in the model's own config.json. A
    folded model is an ordinary folder for transformers that needs no claspkit; it holds the fusion only, it prunes no
    tokens and routes no prompts.

    Examples:

      claspkit export runs/mini --to deploy

      claspkit export runs/mini --embed my-model

      claspkit export runs/mini --fold-class default --model mini --to folded

      claspkit export runs/mini --budget 1/9 --to deploy-small
    """
    if (fold_class is None) != (model is None):
        raise UsageError(
            "--fold-class and --model go together: the class whose fusion is folded, and the model it is folded into"
        )
    source = run if budget is None else budget_profile(run, budget)
    if embed is not None and to is None:
        if fold_class is not None:
            raise UsageError("--fold-class writes a new model folder; give --to in the place of --embed")
        target, names = embed, export_embedded(source, embed, force=force)
    elif to is not None and embed is None:
        if force:
            raise UsageError("--force goes with --embed; --to takes a new or empty folder")
        target = to
        if fold_class is None or model is None:
            names = export_profile(source, to)
        else:
            names = export_folded(source, fold_class, model, to)
    else:
        raise UsageError("export writes either a new folder (--to FOLDER) or into a model's (--embed FOLDER); give one")
    for name in names:
        typer.echo(str(target / name))


def verify(
    folder: Annotated[Path, typer.Argument(help="Profile folder, as `claspkit export RUN --to FOLDER` writes it.")],
    as_json: AsJson = False,
) -> None:
    """Check a profile folder that was copied or made elsewhere: digests, schema, profile, router, card.

    Everything that is wrong is a line that names the file; the exit code is then 7. Links are not followed.

    Examples:

      claspkit verify deploy

      claspkit verify deploy --json
    """
    found = verify_folder(folder)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
    else:
        wrong = {problem.file for problem in found.problems}
        for name, (size, sha256) in found.files.items():
            typer.echo(f"{'BAD' if name in wrong else 'ok':<3}  {sha256[:12]}  {size:>9}  {name}")
        if found.profile is not None:
            typer.echo(f"profile {found.profile.profile_id} for {found.profile.model.id}")
    for problem in found.problems:
        typer.echo(f"error: {problem}", err=True)
    if found.problems:
        raise CorruptError(f"{folder}: {len(found.problems)} things are wrong with it; do not use it, copy it again")


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="Run folder, profile folder or profile.json.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The same, of the other profile.")],
    as_json: AsJson = False,
) -> None:
    """Say what changed from profile A to profile B, as Markdown: classes, budgets, evidence, everything else.

    The exit code is 0 whether they differ or not; with --json the field `same` tells.

    Examples:

      claspkit diff runs/old runs/new > change.md

      claspkit diff runs/mini/profile runs/mini/profile-16 --json
    """
    old, new = (read_profile(profile_file(path)) for path in (before, after))
    if as_json:
        typer.echo(json.dumps(compare_profiles(old, new), ensure_ascii=False))
    else:
        typer.echo(render_comparison(old, new))
