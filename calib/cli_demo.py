"""``claspkit demo``: a page on this machine to try a profile by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from claspkit.profiles.errors import MismatchError
from claspkit.profiles.files import read_profile
from claspkit.runtime.models import load_model

from .demo import Demo, drawn_examples, folder_examples
from .demo_server import DemoServer


def demo(
    profile: Annotated[
        list[Path], typer.Option("--profile", help="profile.json, or its folder; several times to switch between them.")
    ],
    model: Annotated[str, typer.Option(help="Alias, hub id or folder of the model the profiles were made for.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes any free one.")] = 8642,
    examples: Annotated[
        Path | None, typer.Option(help="Folder of pictures to choose from; default: some that mini draws.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest answer, in tokens.")] = 64,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
) -> None:
    """Serve a page on this machine: choose or upload a picture, ask, see answers and kept tokens; until Ctrl-C.

    The page shows the pruned answer beside the unpruned one, with the tokens every stage kept and the time, and
    switches between profiles and classes. It listens on 127.0.0.1 only and fetches nothing from anywhere.

    Examples:

      claspkit demo --profile runs/mini/profile --model mini

      claspkit demo --profile runs/mini/profile --profile runs/mini/profile-16 --model mini --examples photos
    """
    rules = [read_profile(path) for path in profile]
    pictures = drawn_examples() if examples is None else folder_examples(examples)
    revisions = {item.model.revision for item in rules}
    if len(revisions) > 1:
        listed = ", ".join(sorted(str(revision) for revision in revisions))
        raise MismatchError(f"the profiles were made for different revisions of the model: {listed}")
    loaded = load_model(model, device=device, revision=rules[0].model.revision)
    with DemoServer(Demo(loaded, profile, pictures, max_new_tokens), port) as server:
        typer.echo(server.address)
        typer.echo("open this address in a browser on this machine; Ctrl-C ends the demo", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended", err=True)
