"""Several stores into one: what workers filled side by side becomes the store that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from claspkit.profiles.errors import CorruptError

from .manifest import ShardEntry
from .shard import ShardDamageError, check_file, check_structure
from .store import FeatureStore
from .upkeep import BadShard
from .writer import FeatureWriter


def merge(store: FeatureStore, folder: Path, lost: Callable[[BadShard], None] | None = None) -> int:
    """Move everything from another store with the same key into ``store``; the other one is empty afterwards.

    Whole shards move, by a link where both lie in one file system. An interruption loses nothing, and the same call
    continues: a shard leaves the other store only after it is part of this one. Size and structure of shards are
    checked; their values, as always, when they are read.

    Args:
        store: open for writing.
        folder: the other store, which nobody may have open for writing.
        lost: takes a damaged shard, which is dropped, with the images that ``store`` lacks now; None is a CorruptError.

    Returns:
        The number of images that ``store`` did not have.

    Raises:
        MismatchError: the other store's key is another one.
        CorruptError: the other store is damaged; what was moved before stays moved.
        ResourceError: no room for a copy, somebody writes to the other store, or it cannot be read.
    """
    before = len(store.digests)
    with FeatureStore.open(folder, store.key, write=True) as other, store.writer() as writer:
        for entry in other.shards:
            try:
                _move(entry, other, store, writer)
                reason = f"moved into {store.folder.name}"
            except (ShardDamageError, CorruptError) as error:
                if lost is None:
                    raise CorruptError(
                        f"{other.folder / entry.file}: {error}. Repair that store, then merge again."
                    ) from error
                writer.flush()
                reason = str(error)
                lost(BadShard(entry.file, reason, tuple(store.missing(entry.images))))
            other.drop(entry.file, reason)
    return len(store.digests) - before


def _move(entry: ShardEntry, other: FeatureStore, store: FeatureStore, writer: FeatureWriter) -> None:
    """Move what ``store`` lacks of a shard."""
    new = store.missing(entry.images)
    if len(new) == len(entry.images):
        path = other.folder / entry.file
        check_file(path, entry)
        check_structure(path, entry, store.key)
        writer.adopt(path, entry)
        return
    for image in new:
        writer.add(image, other.read(image, store.key.layers), other.grid(image))
    writer.flush()
