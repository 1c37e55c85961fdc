"""Opening a store's manifest: for writing, for the first time, with suspicion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from claspkit.profiles.errors import CorruptError, ResourceError, UsageError
from claspkit.profiles.records import RecordLog

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


def first_record(log: RecordLog, folder: Path, key: FeatureKey | None) -> list[dict[str, object]]:
    """Start an empty manifest, unless shards show that it was not always empty.

    Raises:
        CorruptError: shards lie in the folder.
        UsageError: no key was given.
    """
    if any(SHARD_NAME.fullmatch(path.name) for path in folder.iterdir()):
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
