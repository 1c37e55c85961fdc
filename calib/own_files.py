"""Files of a user's own that decide a run, taxonomy and prototypes: the run keeps a copy and needs the file no more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from claspkit.profiles.canonical import write_atomic
from claspkit.profiles.errors import CorruptError
from claspkit.profiles.intents import open_taxonomy
from claspkit.profiles.taxonomy import Taxonomy

from .config import RunConfig
from .folder import RunFolder
from .space_file import OwnSpace, open_prototypes


def own_file(name: str | None, copy: Path) -> Path | None:
    """The file that was named, or the run's copy where that is gone; None where none was named."""
    if name is None:
        return None
    return copy if not Path(name).exists() and copy.exists() else Path(name)


def kept_prototypes(folder: RunFolder) -> OwnSpace | None:
    """The prototypes that a run keeps a copy of; None where it has the built-in ones.

    Raises:
        UsageError, BadDataError, CorruptError: the copy cannot be read, or is no such file.
    """
    return open_prototypes(_kept(folder.prototypes))


def kept_taxonomy(folder: RunFolder) -> Taxonomy:
    """The taxonomy that a run keeps a copy of; the standard one where it has none. Errors as of kept_prototypes."""
    return open_taxonomy(_kept(folder.taxonomy))


def _kept(copy: Path) -> Path | None:
    if copy.exists() and not copy.is_file():  # a pipe, say, that would be waited for
        raise CorruptError(f"{copy} is no plain file; put the run's copy back, or start over with --fresh")
    return copy if copy.exists() else None


def read_own(config: RunConfig, folder: RunFolder, fresh: bool) -> dict[Path, bytes]:
    """Read the files that were named, before anything is done or deleted; returns them by the place of their copy.

    Args:
        config: names them.
        folder: has the copies of an earlier invocation.
        fresh: the copies will not do: they go.

    Raises:
        UsageError: a file cannot be read.
        BadDataError: it does not hold what it should.
    """
    found = {}
    for name, copy, read in (
        (config.taxonomy, folder.taxonomy, open_taxonomy),
        (config.prototypes, folder.prototypes, open_prototypes),
    ):
        source = own_file(name, copy)
        if name is not None and source is not None:
            read(name if fresh else source)
            found[copy] = source.read_bytes()
    return found


def keep_own(copies: Mapping[Path, bytes]) -> None:
    """Write the copies that the run does not have yet."""
    for copy, data in copies.items():
        if not copy.exists():
            write_atomic(copy, data)
