"""``claspkit run`` and ``claspkit route``: use a profile on one's own pictures and prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from claspkit.profiles.budget import Stage
from claspkit.profiles.errors import UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import INTENT_IDS, open_taxonomy
from claspkit.router.backends import BACKENDS
from claspkit.router.labels import settle
from claspkit.router.route import router_backend
from claspkit.runtime.models import load_model

from .apply import ask, draw
from .cli_backend import RouterDevice, make_named
from .cli_stages import RouterAnswers, RouterEndpoint, RouterKeyEnv, RouterMode, RouterModel, TaxonomyFile
from .images import open_image
from .table_scores import print_routes

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
        str | None,
        typer.Option(
            "--backend", "--router", help=f"Without a profile, one of: {', '.join(BACKENDS)}; default: student."
        ),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="A label less sure than this becomes the default class; default: what the profile says, what the "
            "student's own file says, 0 for other routers.",
        ),
    ] = None,
    router_model: RouterModel = None,
    router_mode: RouterMode = "logits",
    router_endpoint: RouterEndpoint = None,
    router_key_env: RouterKeyEnv = None,
    router_answers: RouterAnswers = None,
    taxonomy: TaxonomyFile = None,
    device: RouterDevice = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per prompt instead of columns.")] = False,
) -> None:
    """Read prompts from stdin, one a line, and print the class of each.

    The columns are the class, how sure the router is of its answer, the class it answered where that was too unsure (-
    elsewhere), who decided, and the prompt.

    Example:

      echo "How many dogs are there?" | claspkit route --json
    """
    if sys.stdin is None:  # closed by whoever started us
        raise UsageError('prompts are read from stdin, one a line: echo "How many dogs are there?" | claspkit route')
    prompts = [line.rstrip("\n") for line in sys.stdin]
    if profile is not None:
        others = {"--taxonomy": taxonomy, "--router-model": router_model, "--router-endpoint": router_endpoint}
        given = [name for name, value in {**others, "--router-answers": router_answers}.items() if value is not None]
        if given or backend is not None:
            raise UsageError(f"--profile brings its own router; leave {' and '.join(given or ['--router'])} out")
        sealed = read_profile(profile)
        folder = profile if profile.is_dir() else profile.parent
        router = router_backend(sealed.router, folder, sealed.read_taxonomy())
        least, fallback = sealed.router.min_confidence, sealed.router.fallback
    else:
        classes = open_taxonomy(taxonomy)
        router = make_named(
            backend or "student",
            router_model,
            router_mode,
            router_endpoint,
            router_key_env,
            router_answers,
            device,
            classes,
        )
        least, fallback = router.reject_below, classes.default
    raw = router.label(prompts)
    labels = [settle(label, least if min_confidence is None else min_confidence, fallback) for label in raw]
    if as_json:
        for number, (label, answered) in enumerate(zip(labels, raw, strict=True)):
            fields = {"id": number, "intent": label.intent, "raw_intent": answered.intent}
            typer.echo(json.dumps({**fields, "confidence": label.confidence, "source": label.source}))
    else:
        print_routes(prompts, raw, labels, Console())
