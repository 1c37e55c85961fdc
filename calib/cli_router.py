"""``claspkit router``: score a router on labelled prompts, attack one, and train a student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from claspkit.profiles.intents import open_taxonomy
from claspkit.router.backends import BACKENDS
from claspkit.router.scoring import rejection, score
from claspkit.router.student_training import WANTED, train_student

from .cli_attack import attack_router
from .cli_backend import RouterDevice, make_named
from .cli_stages import RouterAnswers, RouterEndpoint, RouterKeyEnv, RouterMode, RouterModel, TaxonomyFile
from .labelled import is_run_log, read_labelled
from .output import write_named
from .picture_scores import write_picture
from .table_scores import print_scores

router_app = typer.Typer(help="Score routers on labelled prompts, and train a student.", no_args_is_help=True)
router_app.command("attack")(attack_router)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Part = Annotated[str | None, typer.Option(help='Take only lines whose "part" is this.')]


@router_app.command("eval")
def evaluate(
    file: Annotated[Path, typer.Argument(help='Lines of {"prompt", "fine"}, or a run\'s labels.jsonl.')],
    router: Annotated[str, typer.Option(help=f"Who is scored, one of: {', '.join(BACKENDS)}.")] = "student",
    part: Part = None,
    router_model: RouterModel = None,
    router_mode: RouterMode = "logits",
    router_endpoint: RouterEndpoint = None,
    router_key_env: RouterKeyEnv = None,
    router_answers: RouterAnswers = None,
    taxonomy: TaxonomyFile = None,
    device: RouterDevice = "cpu",
    picture: Annotated[
        Path | None, typer.Option(help="Draw confusion and accuracy by coverage into this .svg or .html file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a router's classes with known ones: accuracy, F1, confusion, calibration, accuracy by coverage.

    Of a run's label log that is agreement with its labeller, not accuracy.

    Example:

      claspkit router eval router/reference/prompts.jsonl --part test --picture student.svg
    """
    classes = open_taxonomy(taxonomy)
    known = read_labelled(file, part, classes)
    backend = make_named(
        router, router_model, router_mode, router_endpoint, router_key_env, router_answers, device, classes
    )
    truth, labels = [row.intent for row in known], backend.label([row.prompt for row in known])
    found = score(truth, labels, classes.ids)
    rejected = rejection(truth, labels, backend.reject_below, classes.default)
    taught = is_run_log(file)
    word = "agreement" if taught else "accuracy"
    where = str(file) if part is None else f"{file}, part {part}"
    title = f"{backend.source} against the labels of {where}" if taught else f"{backend.source} on {where}"
    if picture is not None:
        write_picture(picture, found, rejected, title, word)
    if as_json:
        measured = {"router": backend.source, "measure": word, "rejection": rejected.to_dict()}
        typer.echo(json.dumps({**measured, **found.to_dict()}))
    else:
        print_scores(found, title, Console(), rejected, word)


@router_app.command()
def distill(
    file: Annotated[Path, typer.Argument(help='Lines of {"prompt", "fine"}, or a run\'s labels.jsonl.')],
    out: Annotated[Path, typer.Option(help="Student to write, a safetensors file.")],
    part: Part = None,
    taxonomy: TaxonomyFile = None,
    seed: Annotated[int, typer.Option(min=0, help="Order of the prompts in training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a student on labelled prompts, and print how it does on the tenth of them that was held out.

    Example:

      claspkit router distill runs/mine/labels.jsonl --out student.safetensors
    """
    classes = open_taxonomy(taxonomy)
    known = read_labelled(file, part, classes)
    trained = train_student([row.prompt for row in known], [row.fine for row in known], seed=seed, taxonomy=classes)
    data = trained.student.to_bytes()
    write_named(out, data, "--out")
    facts: dict[str, Any] = {
        "student": trained.student.source,
        "bytes": len(data),
        "prompts": len(known),
        "temperature": trained.student.temperature,
        "reject_below": trained.student.reject_below,
        "threshold_reached": trained.reached,
        "held_out": None if trained.held_out is None else trained.held_out.to_dict(),
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    if trained.held_out is not None:
        print_scores(trained.held_out, "held-out tenth", Console())
    typer.echo(f"{facts['student']}: {len(known)} prompts, {len(data)} bytes, temperature {facts['temperature']:.3f}")
    if trained.reached:
        below = f"{trained.student.reject_below:.3f}"
        typer.echo(f"labels less sure than {below} should be default: of the others {WANTED:.0%} are right")
    elif trained.held_out is not None:
        typer.echo(f"no threshold makes the accepted labels right {WANTED:.0%} of the time: reject_below is 1")
    else:
        typer.echo("too few prompts to hold any out: not calibrated, reject_below is 1")
    typer.echo(f"try it: claspkit router eval FILE.jsonl --router student --router-model {out}")
