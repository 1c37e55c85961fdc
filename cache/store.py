"""A folder of shards: which images it has, reading, adding, finding and dropping damaged shards."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, NoReturn

import numpy as np

from claspkit.profiles.errors import BadDataError, CorruptError, MismatchError, ResourceError, UsageError
from claspkit.profiles.records import RecordLog, read_records

from .keys import FeatureKey
from .layout import (
    MANIFEST,
    PART_NAME,
    SHARD_BYTES,
    SHARD_NAME,
    Features,
    image_shape,
    new_shard_name,
    storage_dtype,
)
from .manifest import Manifest, ShardEntry, drop_record, image_index, parse_manifest, store_record
from .pool import ShardPool
from .shard import OpenShard, ShardDamageError, check_file, check_sha256
from .writer import FeatureWriter

REPAIR: Final = "claspkit cache verify RUN --drop-bad"


class MissingImageError(BadDataError, KeyError):
    """An image whose features the store does not have."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the text's repr


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


class FeatureStore:
    """Features of many images under one key; made by :meth:`open`, usable as a context manager.

    Any number of processes may read; one may write, which a lock on the manifest ensures. A reader sees the
    shards that were finished when it opened. Reading is safe between threads and after a fork.

    Attributes:
        folder: where the store is.
        key: identity of the features.
        cleaned: leftovers of killed writers that opening for writing removed.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, log: RecordLog | None, *, hashed: bool, repair: str
    ) -> None:
        """Use :meth:`open`."""
        self.folder = folder
        self.key = manifest.key
        self.cleaned: tuple[str, ...] = ()
        self._log = log
        self._repair = repair
        self._shards = dict(manifest.shards)
        self._index = image_index(self._shards.values())
        self._next_number = manifest.next_number
        self._pool = ShardPool(folder, self.key, hashed=hashed)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        key: FeatureKey | None = None,
        *,
        write: bool = False,
        verify: Literal["open", "never"] = "open",
        repair: str = REPAIR,
    ) -> FeatureStore:
        """Open a store, or with ``write=True`` create it.

        Args:
            folder: the store's folder; made if ``write``.
            key: what the features must be; None accepts what is there (not when creating).
            write: take the writer's lock, and remove what killed writers left.
            verify: "open" compares each shard's SHA-256 before its first use in this process; "never" relies
                on sizes, structure and the checksum of each chunk, which a damaged HDF5 index can escape.
            repair: the command that an error about a damaged shard tells the user to run.

        Raises:
            MismatchError: the store was made with another key; the text holds the fields that differ.
            ResourceError: another process writes this store.
            CorruptError: the manifest is damaged.
            UsageError: no store is there (reading), or no key was given (creating).
        """
        folder = Path(folder)
        path = folder / MANIFEST
        log: RecordLog | None = None
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            log = RecordLog(path)
        elif not path.is_file():
            raise UsageError(f"there is no feature store in {folder} (no {MANIFEST}); extract features first")
        try:
            records = log.found if log is not None else read_records(path)
            if log is not None and not records:
                records = _first_record(log, folder, key)
            manifest = _parsed(path, records)
            if key is not None and key != manifest.key:
                differing = "\n  ".join(manifest.key.diff(key))
                raise MismatchError(
                    f"the feature store in {folder} holds other features than asked for:\n  {differing}\n"
                    "Use another folder for these, or move this one away."
                )
            store = cls(folder, manifest, log, hashed=verify == "open", repair=repair)
            if log is not None:
                store._clean()
        except BaseException:
            if log is not None:
                log.close()
            raise
        return store

    @property
    def digests(self) -> KeysView[str]:
        """SHA-256 hex of the images whose features are here."""
        return self._index.keys()

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(entry.bytes for entry in self._shards.values())

    @property
    def shards(self) -> tuple[ShardEntry, ...]:
        """The shards that count, oldest first."""
        return tuple(self._shards.values())

    def missing(self, images: Iterable[str]) -> list[str]:
        """Those of ``images`` that are not here, in the given order, each once."""
        return [image for image in dict.fromkeys(images) if image not in self._index]

    def read(self, image: str, layers: Sequence[int], out: Features | None = None) -> Features:
        """Read some layers of one image; only their bytes are read.

        Args:
            image: SHA-256 hex of the image.
            layers: layer numbers (``hidden_states`` indexing, 0 = embeddings), in any order.
            out: where to put the values; reusing one array is much faster than a fresh one per call.

        Returns:
            ``out``, or a new array: (len(layers), tokens, width) in storage dtype, which is the key's dtype
            but for bfloat16, whose bit patterns come as uint16 (see ``tensors.to_tensor``).

        Raises:
            MissingImageError: the image is not here.
            MismatchError: a layer is not stored.
            CorruptError: the shard is damaged; names shard, image and the command that repairs it.
            ValueError: ``out`` has another shape or dtype, or is not C-contiguous.
        """
        if image not in self._index:
            raise MissingImageError(
                f"the feature store in {self.folder} has no image {image}; run the extraction again to add it"
            )
        positions = self._positions(layers)
        shape, dtype = (len(positions), *image_shape(self.key)[1:]), storage_dtype(self.key.dtype)
        if out is None:
            out = np.empty(shape, dtype)
        elif out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous {shape} {dtype}, not {out.shape} {out.dtype}")
        entry, row = self._index[image]
        try:
            self._pool.read(entry, row, positions, out)
        except ShardDamageError as error:
            self._corrupt(entry, image, str(error), error)
        return out

    def writer(self, *, shard_bytes: int = SHARD_BYTES, expected: int | None = None) -> FeatureWriter:
        """Start adding images; use the result as a context manager, one at a time.

        Args:
            shard_bytes: target size of a shard.
            expected: how many images are going to be added, if known: the check of free space is then exact.

        Raises:
            UsageError: the store is open for reading only.
        """
        self._writable()
        return FeatureWriter(
            self.folder,
            self.key,
            shard_bytes=shard_bytes,
            expected=expected,
            known=self._index,
            name=self._new_name,
            record=self._record,
        )

    def verify(self) -> VerifyReport:
        """Check every shard in full: plain file, size, SHA-256, structure. Reads all bytes of the store."""
        bad = []
        for entry in self.shards:
            path = self.folder / entry.file
            try:
                check_file(path, entry)
                check_sha256(path, entry)
                OpenShard(path, entry, self.key).close()
            except ShardDamageError as error:
                bad.append(BadShard(entry.file, str(error), entry.images))
        lost = sum(len(item.images) for item in bad)
        return VerifyReport(len(self._shards), len(self._index) - lost, tuple(bad), tuple(self._strangers()))

    def drop(self, file: str, reason: str = "dropped by the user") -> int:
        """Take a shard out of the store and delete its file: its images are missing then, and get recomputed.

        Returns:
            The number of images that are missing now.

        Raises:
            UsageError: no such shard, or the store is open for reading only.
        """
        log = self._writable()
        if file not in self._shards:
            listed = ", ".join(sorted(self._shards)[:8]) or "none"
            raise UsageError(f"the feature store in {self.folder} has no shard {file!r}; it has: {listed}")
        # The manifest first: a file without a line is a leftover, a line without a file is damage.
        log.append([drop_record(file, reason)])
        entry = self._shards.pop(file)
        for image in entry.images:
            del self._index[image]
        self._pool.forget(file)
        self._remove(file)
        return len(entry.images)

    def close(self) -> None:
        """Close all files and give up the writer's lock; may be called twice."""
        self._pool.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _positions(self, layers: Sequence[int]) -> list[int]:
        where = {layer: position for position, layer in enumerate(self.key.layers)}
        absent = [layer for layer in layers if layer not in where]
        if absent:
            raise MismatchError(
                f"layers {absent} are not in the feature store in {self.folder}; it has "
                f"{list(self.key.layers)}. Extract again into another folder with these layers included."
            )
        return [where[layer] for layer in layers]

    def _corrupt(self, entry: ShardEntry, image: str, reason: str, error: Exception) -> NoReturn:
        raise CorruptError(
            f"shard {entry.file} in {self.folder} is damaged: {reason}. Met while reading image {image}; the "
            f"shard holds {len(entry.images)} images. Run `{self._repair}` to drop damaged shards, then the "
            "same command again: only the images that were in them are computed anew."
        ) from error

    def _writable(self) -> RecordLog:
        if self._log is None:
            raise UsageError(f"the feature store in {self.folder} is open for reading only; use write=True")
        return self._log

    def _new_name(self) -> str:
        name = new_shard_name(self._next_number)
        self._next_number += 1
        return name

    def _record(self, entry: ShardEntry) -> None:
        try:
            self._writable().append([entry.to_record()])
        except ResourceError:
            self._remove(entry.file)  # no room for the line: without it the shard only takes more room away
            raise
        self._shards[entry.file] = entry
        self._index.update(image_index([entry]))

    def _strangers(self) -> list[str]:
        names = {path.name for path in self.folder.iterdir() if SHARD_NAME.fullmatch(path.name)}
        return sorted(names - self._shards.keys())

    def _clean(self) -> None:
        """Remove what killed writers left: unfinished shards, and finished ones that got no line."""
        parts = [path.name for path in self.folder.iterdir() if PART_NAME.fullmatch(path.name)]
        self.cleaned = tuple(name for name in (*sorted(parts), *self._strangers()) if self._remove(name))

    def _remove(self, name: str) -> bool:
        """Delete a file that the manifest does not list; one that cannot be deleted may stay, nobody reads it."""
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError:
            return False
        return True


def _first_record(log: RecordLog, folder: Path, key: FeatureKey | None) -> list[dict[str, object]]:
    """Start an empty manifest, unless shards show that it was not always empty."""
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


def _parsed(path: Path, records: Sequence[dict[str, object]]) -> Manifest:
    try:
        return parse_manifest(records)
    except ValueError as error:
        raise CorruptError(
            f"{path}, {error}. Restore the file from a backup, or move the folder away and extract again."
        ) from error
