"""``claspkit run`` and ``claspkit route``: use a profile on one's own pictures and prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from claspkit.profiles.budget import Stage
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import INTENT_IDS, open_taxonomy
from claspkit.router.backends import BACKENDS, BackendOptions, make_backend
from claspkit.router.route import make_router
from claspkit.runtime.models import load_model

from .apply import ask, draw
from .cli_stages import RouterAnswers, RouterEndpoint, RouterKeyEnv, RouterMode, RouterModel, TaxonomyFile
from .images import open_image

ProfileOption = Annotated[Path, typer.Option("--profile", help="profile.json, or the folder that holds it.")]


def run(
    profile: ProfileOption,
    image: Annotated[Path, typer.Option(help="Picture to ask about.")],
    prompt: Annotated[str, typer.Option(help="Question, as a user would type it.")],
    model: Annotated[str, typer.Option(help="Alias, hub id or folder of the model the profile was made for.")],
    intent: Annotated[
        str | None, typer.Option(help=f"Skip the router: {', '.join(INTENT_IDS)}, or a class of the profile's own.")
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="Write the picture with the kept tokens drawn on it.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also answer with all visual tokens.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest answer, in tokens.")] = 64,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Answer one question about one picture with a pruned model, and show what was kept.

    Example:

      claspkit run --profile runs/mini/profile --model mini --image photo.png \\
        --prompt "How many stars are there?" --overlay kept.png
    """
    rules = read_profile(profile)
    picture = open_image(image.name, image.parent)
    if intent is not None:
        rules.for_intent(intent)
    loaded = load_model(model, device=device, revision=rules.model.revision)
    folder = profile if profile.is_dir() else profile.parent
    answer = ask(loaded, rules, folder, picture, prompt, intent, max_new_tokens, compare)
    if overlay is not None:
        draw(loaded, picture, answer).save(overlay)
    if as_json:
        typer.echo(json.dumps(answer.to_dict()))
        return
    typer.echo(f"class    {answer.intent}  ({answer.label_source}, confidence {answer.confidence:.2f})")
    typer.echo(f"config   layers {list(answer.layers)}, rho {answer.rho:g}")
    typer.echo(f"answer   {answer.text}")
    if answer.unpruned is not None:
        typer.echo(f"unpruned {answer.unpruned}")
    typer.echo(f"tokens   {answer.visual_tokens} visual tokens enter the decoder")
    for stage in answer.stages:
        typer.echo(
            f"         {Stage(stage.after_layer, len(stage.kept)).place}: {len(stage.kept)} kept, "
            f"{len(stage.pivots)} pivots and {len(stage.kept) - len(stage.pivots)} completion"
        )
    if overlay is not None:
        typer.echo(f"overlay  {overlay}", err=True)


def route(
    profile: Annotated[Path | None, typer.Option("--profile", help="Route as this profile does.")] = None,
    backend: Annotated[
        str, typer.Option("--backend", "--router", help=f"Without a profile, one of: {', '.join(BACKENDS)}.")
    ] = "student",
    router_model: RouterModel = None,
    router_mode: RouterMode = "logits",
    router_endpoint: RouterEndpoint = None,
    router_key_env: RouterKeyEnv = None,
    router_answers: RouterAnswers = None,
    taxonomy: TaxonomyFile = None,
    device: Annotated[str, typer.Option(help="Torch device of the labelling model.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per prompt instead of columns.")] = False,
) -> None:
    """Read prompts from stdin, one a line, and print the class of each.

    Example:

      echo "How many dogs are there?" | claspkit route --json
    """
    prompts = [line.rstrip("\n") for line in sys.stdin]
    if profile is not None:
        sealed = read_profile(profile)
        folder = profile if profile.is_dir() else profile.parent
        labels = make_router(sealed.router, folder, sealed.read_taxonomy())(prompts)
    else:
        options = BackendOptions(
            model=router_model,
            device=device,
            mode=router_mode,
            endpoint=router_endpoint,
            key_variable=router_key_env,
            answers=Path(router_answers) if router_answers else None,
            taxonomy=open_taxonomy(taxonomy),
        )
        labels = make_backend(backend, options).label(prompts)
    for number, (prompt, label) in enumerate(zip(prompts, labels, strict=True)):
        if as_json:
            found = {"intent": label.intent, "confidence": label.confidence, "source": label.source}
            typer.echo(json.dumps({"id": number, **found}))
        else:
            typer.echo(f"{label.intent:<10} {label.confidence:.2f}  {label.source:<20} {prompt}")
