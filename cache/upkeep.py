"""What looking after a store finds: damaged shards, leftovers, images that nobody wants any more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .keys import FeatureKey
from .layout import PART_NAME, SHARD_NAME
from .manifest import ShardEntry
from .opening import names_in
from .shard import ShardDamageError, check_file, check_sha256, check_structure

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes to do)."""


@dataclass(frozen=True)
class BadShard:
    """A shard that is not what the manifest promised: its file name, why, and the images lost with it."""

    file: str
    reason: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class VerifyReport:
    """What :meth:`FeatureStore.verify` found.

    Attributes:
        shards: shards checked.
        images: images in the shards that are sound.
        bad: the damaged ones.
        strangers: files in the folder that look like shards but are not listed; they are never read.
    """

    shards: int
    images: int
    bad: tuple[BadShard, ...]
    strangers: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every listed shard is sound."""
        return not self.bad


@dataclass(frozen=True)
class RepairReport:
    """What :meth:`FeatureStore.repair` did.

    Attributes:
        found: the verification before anything was dropped; its ``bad`` shards are gone now.
        leftovers: unlisted shards and unfinished files that were deleted.
        images: SHA-256 hex of the images that were in the dropped shards and must be computed anew.
    """

    found: VerifyReport
    leftovers: tuple[str, ...]
    images: tuple[str, ...]


@dataclass(frozen=True)
class GcReport:
    """What :meth:`FeatureStore.gc` did.

    Attributes:
        leftovers: unlisted shards and unfinished files that were deleted.
        dropped: shards in which no image was wanted; they are gone.
        rewritten: shards that a smaller one with only the wanted images has replaced.
        images: images given up.
        freed: bytes freed.
        compactable: bytes, by share, that unwanted images still take in shards that hold wanted ones too.
    """

    leftovers: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    images: int = 0
    freed: int = 0
    compactable: int = 0


def check_shards(
    folder: Path, entries: Iterable[ShardEntry], key: FeatureKey, progress: Progress | None = None
) -> tuple[BadShard, ...]:
    """Check shards in full, reading all their bytes: plain file, size, SHA-256, structure; returns the bad ones.

    Raises:
        ResourceError: the system does not let one be read.
    """
    entries = tuple(entries)
    total, done = sum(entry.bytes for entry in entries), 0
    bad = []
    for entry in entries:
        path = folder / entry.file
        try:
            check_file(path, entry)
            check_sha256(path, entry)
            check_structure(path, entry, key)
        except ShardDamageError as error:
            bad.append(BadShard(entry.file, str(error), entry.images))
        done += entry.bytes
        if progress is not None:
            progress(done, total)
    return tuple(bad)


def collect(
    entries: Iterable[ShardEntry],
    keep: Collection[str],
    drop: Callable[[str, str], object],
    rewrite: Callable[[ShardEntry, Sequence[str]], int] | None,
) -> GcReport:
    """Go through shards, giving up those images that are not in ``keep``.

    Args:
        entries: the shards.
        keep: images wanted.
        drop: takes (file, reason) and deletes a shard in which nothing is wanted.
        rewrite: takes a shard and its wanted images, keeps only those and returns the bytes freed; None leaves
            shards with any wanted image as they are.
    """
    dropped, rewritten = [], []
    images = freed = compactable = 0
    for entry in entries:
        wanted = [image for image in entry.images if image in keep]
        unwanted = len(entry.images) - len(wanted)
        if not wanted:
            drop(entry.file, "none of its images is wanted any more")
            dropped.append(entry.file)
            freed += entry.bytes
        elif unwanted and rewrite is not None:
            freed += rewrite(entry, wanted)
            rewritten.append(entry.file)
        else:
            compactable += entry.bytes * unwanted // len(entry.images)
            continue
        images += unwanted
    return GcReport((), tuple(dropped), tuple(rewritten), images, freed, compactable)


def unlisted(folder: Path, listed: Collection[str]) -> list[str]:
    """Names in the folder that look like finished shards but are not listed, sorted."""
    return [name for name in names_in(folder) if SHARD_NAME.fullmatch(name) and name not in listed]


def unfinished(folder: Path) -> list[str]:
    """Names of shards that were being written, sorted."""
    return [name for name in names_in(folder) if PART_NAME.fullmatch(name)]
