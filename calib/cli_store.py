"""``claspkit cache``: fill, check, mend, tidy and describe the feature cache of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from claspkit.cache.store import FeatureStore
from claspkit.cache.upkeep import Progress, VerifyReport
from claspkit.profiles.errors import CorruptError

from .cli_stages import stage_command
from .command import command_of
from .config import read_lock
from .folder import RunFolder, read_samples
from .progress import Reporter
from .table import clean

_BUILD_HELP = """Run a calibration up to the feature cache; `calibrate` with the same options goes on.

Example:

  claspkit cache build --model mini --per-class 60 --cache-workers 2
"""

store_app = typer.Typer(help="Fill, check, mend, tidy and describe the feature cache of a run.", no_args_is_help=True)
store_app.command(name="build", help=_BUILD_HELP)(stage_command("cache"))

RunArgument = Annotated[Path, typer.Argument(help="Run folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

_MB = 1_000_000


@store_app.command()
def verify(
    run: RunArgument,
    drop_bad: Annotated[
        bool, typer.Option("--drop-bad", help="Take damaged shards out; the next run recomputes them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every shard and compare it with its checksum; exit code 7 when one is damaged and stays.

    Example:

      claspkit cache verify runs/mini --drop-bad
    """
    with FeatureStore.open(RunFolder(run).features, write=drop_bad) as store:
        with _progress("verify", store, quiet=as_json) as progress:
            found = store.verify(progress)
        if drop_bad:
            for shard in found.bad:
                store.drop(shard.file, shard.reason)
    if as_json:
        typer.echo(json.dumps({**_found(found), "dropped": drop_bad}))
    else:
        _tell_found(found)
        whole = found.shards - len(found.bad)
        typer.echo(f"{whole} shards whole, {len(found.bad)} damaged" + (", dropped" if drop_bad and found.bad else ""))
    if found.bad and not drop_bad:
        raise CorruptError(
            f"damaged shards in {run}; `claspkit cache repair {shlex.quote(str(run))}` takes them out and says what to "
            "compute anew"
        )


@store_app.command()
def repair(run: RunArgument, as_json: AsJson = False) -> None:
    """Verify, take damaged shards out, name the pictures lost with them and the command that computes them anew.

    Example:

      claspkit cache repair runs/mini
    """
    with FeatureStore.open(RunFolder(run).features, write=True) as store:
        with _progress("repair", store, quiet=as_json) as progress:
            done = store.repair(progress)
        left = len(store.digests)
    names = _picture_names(run)
    # A leftover's pictures are named by no manifest; the same command computes those as well.
    command = command_of(read_lock(run), run, "claspkit cache build") if done.images or done.leftovers else None
    if as_json:
        pictures = [{"sha256": image, "picture": names.get(image)} for image in done.images]
        facts = {"leftovers": list(done.leftovers), "recompute": pictures, "command": command, "pictures_left": left}
        typer.echo(json.dumps({**_found(done.found), **facts}))
        return
    _tell_found(done.found)
    for name in done.leftovers:
        typer.echo(f"deleted {name}: left by a run that was killed, or without its manifest line")
    for image in done.images:
        typer.echo(f"recompute {image}" + (f" ({clean(names[image])})" if image in names else ""))
    typer.echo(
        f"{len(done.found.bad)} damaged shards taken out, {len(done.images)} pictures to compute anew, "
        f"{left} pictures whole"
    )
    if command is not None:
        typer.echo(f"now run: {clean(command)}")


@store_app.command()
def gc(
    run: RunArgument,
    compact: Annotated[
        bool, typer.Option("--compact", help="Also rewrite shards that hold wanted and unwanted pictures.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what killed runs left, and shards of pictures that no sample of the run uses.

    Example:

      claspkit cache gc runs/mini --compact
    """
    folder = RunFolder(run)
    keep = set(_picture_names(run)) if folder.samples.exists() else None
    with FeatureStore.open(folder.features, write=True) as store:
        done = store.gc(keep, compact=compact)
        left, size = len(store.digests), store.nbytes
    if as_json:
        facts = {
            "leftovers": list(done.leftovers),
            "dropped": list(done.dropped),
            "rewritten": list(done.rewritten),
            "pictures_given_up": done.images,
            "bytes_freed": done.freed,
            "bytes_compactable": done.compactable,
            "pictures": left,
            "bytes": size,
        }
        typer.echo(json.dumps(facts))
        return
    if keep is None:
        typer.echo(f"{run} has no sample list, so every picture counts as wanted")
    typer.echo(f"{len(done.leftovers)} leftovers deleted")
    typer.echo(
        f"{len(done.dropped)} shards dropped, {len(done.rewritten)} rewritten, {done.images} pictures given up, "
        f"{done.freed / _MB:.1f} MB freed"
    )
    if done.compactable:
        typer.echo(f"{done.compactable / _MB:.1f} MB more with --compact: unwanted pictures in shards that stay")
    typer.echo(f"{left} pictures, {size / _MB:.1f} MB stay")


@store_app.command()
def stats(run: RunArgument, as_json: AsJson = False) -> None:
    """Print what the cache holds.

    Example:

      claspkit cache stats runs/mini --json
    """
    with FeatureStore.open(RunFolder(run).features) as store:
        key, pictures, shards, size = store.key, len(store.digests), len(store.shards), store.nbytes
    if as_json:
        typer.echo(json.dumps({"pictures": pictures, "shards": shards, "bytes": size, "key": key.to_dict()}))
        return
    typer.echo(f"{pictures} pictures in {shards} shards, {size / _MB:.1f} MB")
    tokens = "a varying number of" if key.tokens is None else key.tokens
    typer.echo(f"{len(key.layers)} layers of {tokens} tokens x {key.width} channels, {key.dtype}, model {key.model_id}")


@contextmanager
def _progress(name: str, store: FeatureStore, *, quiet: bool) -> Iterator[Progress]:
    """Show megabytes read of the store's, with the time left."""
    with Reporter(quiet=quiet).task(name, -(-store.nbytes // _MB), "MB") as advance:
        yield _megabytes(advance)


def _megabytes(advance: Callable[[int], None]) -> Progress:
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        now = -(-done // _MB) if done == total else done // _MB
        advance(now - told)
        told = now

    return progress


def _found(found: VerifyReport) -> dict[str, Any]:
    return {
        "ok": found.ok,
        "shards": found.shards,
        "pictures": found.images,
        "bad": [{"file": shard.file, "reason": shard.reason, "pictures": list(shard.images)} for shard in found.bad],
        "unlisted": list(found.strangers),
    }


def _tell_found(found: VerifyReport) -> None:
    for shard in found.bad:
        typer.echo(f"bad {shard.file}: {clean(shard.reason)} ({len(shard.images)} pictures)")
    for name in found.strangers:
        typer.echo(f"unlisted {name}: never read; `claspkit cache gc` deletes it")


def _picture_names(run: Path) -> dict[str, str]:
    """SHA-256 -> name of the run's pictures; empty before the samples are read."""
    folder = RunFolder(run)
    if not folder.samples.exists():
        return {}
    return {sample.image_sha256: sample.image for sample in read_samples(folder).samples}
