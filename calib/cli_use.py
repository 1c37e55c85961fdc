"""``claspkit route``: the classes of one's own prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from claspkit.profiles.errors import UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import open_taxonomy
from claspkit.router.backends import BACKENDS
from claspkit.router.labels import settle
from claspkit.router.route import router_backend

from .cli_backend import RouterDevice, make_named
from .cli_stages import RouterAnswers, RouterEndpoint, RouterKeyEnv, RouterMode, RouterModel, TaxonomyFile
from .table_scores import print_routes

ProfileOption = Annotated[Path, typer.Option("--profile", help="profile.json, or the folder that holds it.")]


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
