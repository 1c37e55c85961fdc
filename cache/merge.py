"""Several stores into one: what workers filled side by side becomes the store that is read."""

from __future__ import annotations

from pathlib import Path

from claspkit.profiles.errors import CorruptError

from .shard import ShardDamageError, check_file
from .store import FeatureStore


def merge(store: FeatureStore, folder: Path) -> int:
    """Move everything from another store with the same key into ``store``; the other one is empty afterwards.

    Whole shards move, by a link where both lie in one file system. An interruption loses nothing, and the same call
    continues: a shard leaves the other store only after it is part of this one.

    Args:
        store: open for writing.
        folder: the other store, which nobody may have open for writing.

    Returns:
        The number of images that ``store`` did not have.

    Raises:
        MismatchError: the other store's key is another one.
        CorruptError: the other store is damaged; what was moved before stays moved.
        ResourceError: no room for a copy, or somebody writes to the other store.
    """
    moved = 0
    with FeatureStore.open(folder, store.key, write=True) as other, store.writer() as writer:
        for entry in other.shards:
            new = store.missing(entry.images)
            if len(new) == len(entry.images):
                path = other.folder / entry.file
                try:
                    check_file(path, entry)
                except ShardDamageError as error:
                    raise CorruptError(f"{path}: {error}. Repair that store, then merge again.") from error
                writer.adopt(path, entry)
            else:
                for image in new:
                    writer.add(image, other.read(image, store.key.layers), other.grid(image))
                writer.flush()
            moved += len(new)
            other.drop(entry.file, f"moved into {store.folder.name}")
    return moved
