"""A folder of shards: which images it has, reading, adding, finding and dropping damaged shards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, KeysView, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

import numpy as np

from claspkit.profiles.errors import BadDataError, CorruptError, MismatchError, ResourceError, UsageError
from claspkit.profiles.records import RecordLog

from .keys import FeatureKey
from .layout import (
    MANIFEST,
    SHARD_BYTES,
    Features,
    new_shard_name,
    storage_dtype,
)
from .manifest import Manifest, ShardEntry, drop_record, image_index
from .opening import first_record, open_log, parsed, read_log
from .pool import ShardPool, Verify
from .shard import ShardDamageError
from .upkeep import GcReport, Progress, RepairReport, VerifyReport, check_shards, collect, unfinished, unlisted
from .writer import FeatureWriter

REPAIR: Final = "claspkit cache repair RUN"


class MissingImageError(BadDataError, KeyError):
    """An image whose features the store does not have."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the text's repr


class FeatureStore:
    """Features of many images under one key; made by :meth:`open`, usable as a context manager.

    Any number of processes may read; one may write, which a lock on the manifest ensures. A reader sees the
    shards that were finished when it opened. Reading is safe between threads and after a fork.

    Attributes:
        folder: where the store is.
        key: identity of the features.
        cleaned: leftovers of killed writers that opening for writing, repair or gc removed.
    """

    def __init__(self, folder: Path, manifest: Manifest, log: RecordLog | None, *, verify: Verify, repair: str) -> None:
        """Use :meth:`open`."""
        self.folder = folder
        self.key = manifest.key
        self.cleaned: tuple[str, ...] = ()
        self._cleaned_bytes = 0
        self._log = log
        self._repair = repair
        self._shards = dict(manifest.shards)
        self._index = image_index(self._shards.values())
        self._next_number = manifest.next_number
        self._pool = ShardPool(folder, self.key, verify)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        key: FeatureKey | None = None,
        *,
        write: bool = False,
        verify: Verify = "chunks",
        repair: str = REPAIR,
    ) -> FeatureStore:
        """Open a store, or with ``write=True`` create it.

        Args:
            folder: the store's folder; made if ``write``.
            key: what the features must be; None accepts what is there (not when creating).
            write: take the writer's lock, and remove what killed writers left.
            verify: "chunks" compares the checksum of each chunk with the manifest's at its first read in this
                process, and anew when its file was touched since; "shards" also the SHA-256 of each shard before
                its first use, which reads all of it. Shards of earlier releases, without checksums in the manifest,
                are always treated the second way.
            repair: the command that an error about a damaged shard tells the user to run.

        Raises:
            MismatchError: the store was made with another key; the text holds the fields that differ.
            ResourceError: another process writes this store, or the system does not let it be read.
            CorruptError: the manifest is damaged.
            UsageError: no store is there (reading), or no key was given (creating).
        """
        folder = Path(folder)
        log = open_log(folder) if write else None
        try:
            records = log.found if log is not None else read_log(folder)
            if log is not None and not records:
                records = first_record(log, folder, key)
            manifest = parsed(folder / MANIFEST, records)
            if key is not None and key != manifest.key:
                differing = "\n  ".join(manifest.key.diff(key))
                raise MismatchError(
                    f"the feature store in {folder} holds other features than asked for:\n  {differing}\n"
                    "Use another folder for these, or move this one away."
                )
            store = cls(folder, manifest, log, verify=verify, repair=repair)
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
            out: where to put the values; reusing one array is much faster than a fresh one per call. Where token
                counts differ, it must have this image's, which :meth:`shape` tells.

        Returns:
            ``out``, or a new array: (len(layers), tokens, width) in storage dtype, which is the key's dtype
            but for bfloat16, whose bit patterns come as uint16 (see ``tensors.to_tensor``), and for int8, whose
            values come multiplied with their scales, as float16.

        Raises:
            MissingImageError: the image is not here.
            MismatchError: a layer is not stored.
            CorruptError: the shard is damaged; names shard, image and the command that repairs it.
            ResourceError: the system does not let the shard be read.
            ValueError: ``out`` has another shape or dtype, or is not C-contiguous.
        """
        entry, row = self._find(image)
        positions = self._positions(layers)
        shape, dtype = (len(positions), *entry.shape[2:]), storage_dtype(self.key.dtype)
        if out is None:
            out = np.empty(shape, dtype)
        elif out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous {shape} {dtype}, not {out.shape} {out.dtype}")
        try:
            self._pool.read(entry, row, positions, out)
        except ShardDamageError as error:
            self._corrupt(entry, image, str(error), error)
        return out

    def shape(self, image: str) -> tuple[int, int, int]:
        """Shape of an image's features, without reading them: (layers, tokens, width).

        Raises:
            MissingImageError: the image is not here.
        """
        return self._find(image)[0].shape[1:]

    def grid(self, image: str) -> tuple[int, ...]:
        """How the tokens of an image lie, as its model family says it; () where the store keeps no grids.

        Raises:
            MissingImageError: the image is not here.
        """
        entry, row = self._find(image)
        return entry.grids[row] if entry.grids else ()

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

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Check every shard in full: plain file, size, SHA-256, structure. Reads all bytes of the store.

        Raises:
            ResourceError: the system does not let a shard be read, which says nothing about it.
        """
        bad = check_shards(self.folder, self.shards, self.key, progress)
        lost = sum(len(item.images) for item in bad)
        return VerifyReport(len(self._shards), len(self._index) - lost, bad, tuple(self._strangers()))

    def repair(self, progress: Progress | None = None) -> RepairReport:
        """Verify, drop what does not verify, and say which images must be computed anew.

        Raises:
            UsageError: the store is open for reading only.
            ResourceError: the system does not let a shard be read; no shard was dropped.
        """
        self._writable()
        self._clean()
        found = self.verify(progress)
        for shard in found.bad:
            self.drop(shard.file, shard.reason)
        return RepairReport(found, self.cleaned, tuple(image for shard in found.bad for image in shard.images))

    def gc(self, keep: Collection[str] | None = None, *, compact: bool = False) -> GcReport:
        """Delete leftovers of killed writers and, given the images still wanted, what holds only others.

        A store that is open for reading elsewhere loses the deleted shards too: its next read of one is a
        CorruptError, never another image's values.

        Args:
            keep: SHA-256 hex of the images still wanted; None wants all.
            compact: also rewrite shards that hold wanted and unwanted images. Each needs room for the new one
                beside the old one, which is deleted last.

        Raises:
            UsageError: the store is open for reading only.
            CorruptError: a shard to rewrite is damaged; it stays as it is.
            ResourceError: no room for a new shard; the old one stays as it is.
        """
        self._writable()
        self._clean()
        keep = self._index.keys() if keep is None else keep
        report = collect(self.shards, keep, self.drop, self._rewrite if compact else None)
        return replace(report, leftovers=self.cleaned, freed=report.freed + self._cleaned_bytes)

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
        return len(self._forget(file).images)

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

    def _find(self, image: str) -> tuple[ShardEntry, int]:
        if image not in self._index:
            raise MissingImageError(
                f"the feature store in {self.folder} has no image {image}; run the extraction again to add it"
            )
        return self._index[image]

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
        self._append([entry.to_record()], entry.file)
        self._shards[entry.file] = entry
        self._index.update(image_index([entry]))

    def _append(self, records: Sequence[dict[str, object]], file: str) -> None:
        """Add manifest lines that list a new shard's file."""
        try:
            self._writable().append(records)
        except ResourceError:
            self._remove(file)  # no room for the line: without it the shard only takes more room away
            raise

    def _forget(self, file: str) -> ShardEntry:
        """Delete a shard that the manifest lists no more."""
        entry = self._shards.pop(file)
        for image in entry.images:
            del self._index[image]
        self._pool.forget(file)
        self._remove(file)
        return entry

    def _rewrite(self, old: ShardEntry, wanted: Sequence[str]) -> int:
        """Put the wanted images of a shard into a new one that takes its place; returns the bytes freed."""

        def swap(new: ShardEntry) -> None:
            if new.images != tuple(wanted):  # cut short by an error: the writer commits what it has
                self._remove(new.file)
                return
            # One append: a manifest cut between the two lines has neither shard, which costs time, not truth.
            self._append([drop_record(old.file, "rewritten without unwanted images"), new.to_record()], new.file)
            self._forget(old.file)
            self._shards[new.file] = new
            self._index.update(image_index([new]))

        with FeatureWriter(
            self.folder,
            self.key,
            shard_bytes=old.bytes,
            expected=len(wanted),
            known=(),
            name=self._new_name,
            record=swap,
        ) as writer:
            for image in wanted:
                writer.add(image, self.read(image, self.key.layers), self.grid(image))
        return old.bytes - writer.bytes

    def _strangers(self) -> list[str]:
        return unlisted(self.folder, self._shards)

    def _clean(self) -> None:
        """Remove what killed writers left: unfinished shards, and finished ones that got no line."""
        for name in (*unfinished(self.folder), *self._strangers()):
            try:
                size = (self.folder / name).lstat().st_size
            except FileNotFoundError:  # its writing process outlived the killed run for a moment, and removed it
                continue
            if self._remove(name):
                self.cleaned += (name,)
                self._cleaned_bytes += size

    def _remove(self, name: str) -> bool:
        """Delete a file that the manifest does not list; one that cannot be deleted may stay, nobody reads it."""
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError:
            return False
        return True
