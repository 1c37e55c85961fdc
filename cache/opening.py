"""Opening a store's manifest: for writing, for the first time, with suspicion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from claspkit.profiles.errors import CorruptError, ResourceError, UsageError
from claspkit.profiles.records import RecordLog, read_records

from .keys import FeatureKey
from .layout import MANIFEST, SHARD_NAME
from .manifest import Manifest, parse_manifest, store_record

_MIN_FREE: Final = 1 << 16


def open_log(folder: Path) -> RecordLog:
    """Make the folder if need be and take the writer's lock.

    Raises:
        ResourceError: another process writes, or there is no room, or no permission.
        CorruptError: the manifest is damaged.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return RecordLog(folder / MANIFEST)
    except OSError as error:
        # Full, read-only or forbidden: even the few bytes of a lock do not fit.
        raise ResourceError(
            f"the feature store in {folder} cannot be opened for writing ({error.strerror}): at least "
            f"{_MIN_FREE} bytes needed. Make room or choose another folder, and run the same command again."
        ) from error


def read_log(folder: Path) -> list[dict[str, object]]:
    """Read a store's manifest without taking the lock.

    Raises:
        UsageError: there is none.
        CorruptError: it is damaged.
        ResourceError: the system does not let it be read.
    """
    path = folder / MANIFEST
    try:
        if not path.is_file():
            raise UsageError(f"there is no feature store in {folder} (no {MANIFEST}); extract features first")
        return read_records(path)
    except OSError as error:
        raise ResourceError(
            f"{path} could not be read: {error.strerror}. Put that right and run the same command again."
        ) from error


def names_in(folder: Path) -> list[str]:
    """List a store's folder, sorted; ResourceError where the system does not let it be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise ResourceError(
            f"the feature store's folder {folder} could not be listed: {error.strerror}. Put that right and run the "
            "same command again."
        ) from error


def first_record(log: RecordLog, folder: Path, key: FeatureKey | None) -> list[dict[str, object]]:
    """Start an empty manifest, unless shards show that it was not always empty.

    Raises:
        CorruptError: shards lie in the folder.
        UsageError: no key was given.
    """
    if any(map(SHARD_NAME.fullmatch, names_in(folder))):
        raise CorruptError(
            f"{folder} holds shards but {MANIFEST} is missing or empty, so nothing says what they are. "
            "Restore the manifest from a backup, or move the folder away and extract again."
        )
    if key is None:
        raise UsageError(f"there is no feature store in {folder} yet; a key is needed to create one")
    record = store_record(key)
    log.append([record])
    return [record]


def parsed(path: Path, records: Sequence[dict[str, object]]) -> Manifest:
    """What a manifest's records say; CorruptError when they cannot be right."""
    try:
        return parse_manifest(records)
    except ValueError as error:
        raise CorruptError(
            f"{path}, {error}. Restore the file from a backup, or move the folder away and extract again."
        ) from error
