"""The options that name a labeller, where a command is about labelling alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.backends import Backend, BackendOptions, make_backend

RouterDevice = Annotated[str, typer.Option("--device", help="Torch device of the labelling model.")]


def make_named(
    name: str,
    model: str | None,
    mode: str,
    endpoint: str | None,
    key_variable: str | None,
    answers: str | None,
    device: str,
    taxonomy: Taxonomy,
) -> Backend:
    """Build the labeller that ``--router`` and the options beside it name.

    Raises:
        UsageError: an unknown name, or options that it does not take.
    """
    options = named_options(model, mode, endpoint, key_variable, answers, device)
    return make_backend(name, replace(options, taxonomy=taxonomy))


def named_options(
    model: str | None, mode: str, endpoint: str | None, key_variable: str | None, answers: str | None, device: str
) -> BackendOptions:
    """What the command line says to a labeller, for the standard classes; UsageError for what none of them takes."""
    return BackendOptions(
        model=model,
        device=device,
        mode=mode,
        endpoint=endpoint,
        key_variable=key_variable,
        answers=Path(answers) if answers else None,
    )
