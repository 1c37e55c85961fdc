"""``claspkit cache``: fill, check and describe the feature cache of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from claspkit.cache.store import FeatureStore
from claspkit.profiles.errors import CorruptError

from .cli_stages import stage_command
from .folder import RunFolder

store_app = typer.Typer(help="Fill, check and describe the feature cache of a run.", no_args_is_help=True)
store_app.command(name="build", help="Run a calibration up to the feature cache.")(stage_command("cache"))

RunArgument = Annotated[Path, typer.Argument(help="Run folder.")]


@store_app.command()
def verify(
    run: RunArgument,
    drop_bad: Annotated[
        bool, typer.Option("--drop-bad", help="Take damaged shards out; the next run recomputes them.")
    ] = False,
) -> None:
    """Read every shard and compare it with its checksum."""
    store = FeatureStore.open(RunFolder(run).features, write=drop_bad)
    try:
        found = store.verify()
        for shard in found.bad:
            typer.echo(f"bad {shard.file}: {shard.reason} ({len(shard.images)} pictures)")
            if drop_bad:
                store.drop(shard.file, shard.reason)
        for name in found.strangers:
            typer.echo(f"unlisted {name}: never read; delete it if you did not put it there")
        whole = found.shards - len(found.bad)
        typer.echo(f"{whole} shards whole, {len(found.bad)} damaged" + (", dropped" if drop_bad and found.bad else ""))
    finally:
        store.close()
    if found.bad and not drop_bad:
        raise CorruptError(f"damaged shards in {run}; `claspkit cache verify {run} --drop-bad` takes them out")


@store_app.command()
def stats(run: RunArgument) -> None:
    """Print what the cache holds."""
    store = FeatureStore.open(RunFolder(run).features)
    try:
        key = store.key
        typer.echo(f"{len(store.digests)} pictures, {store.nbytes / 1e6:.1f} MB")
        typer.echo(
            f"{len(key.layers)} layers of {key.tokens} tokens x {key.width} channels, {key.dtype}, model {key.model_id}"
        )
    finally:
        store.close()
