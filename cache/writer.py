"""Filling a store: images in, full shards out, one manifest line after each shard is safely on disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

from claspkit.profiles.canonical import disk_error, fsync_folder
from claspkit.profiles.errors import BadDataError, ClaspError, ResourceError

from .helping import helping_thread, undisturbed
from .keys import MAX_AXIS, FeatureKey, is_sha256
from .layout import PART_SUFFIX, Features, all_finite, image_shape, images_per_shard, storage_dtype, store_version
from .manifest import MAX_GRID, Grid, ShardEntry, is_grid
from .process import ShardWriter, require_space


class FeatureWriter:
    """Collects images into shards; made by ``FeatureStore.writer`` and used as a context manager.

    Leaving the block commits what is pending, also after an exception (Ctrl-C included): every image that
    :meth:`add` accepted is whole, so none of its work needs to be lost. A Ctrl-C that comes while an image or a shard
    is written is raised when that is done; a second one gives the shard in work up.

    Attributes:
        images: images committed so far.
        bytes: bytes of the shards committed so far.
    """

    def __init__(
        self,
        folder: Path,
        key: FeatureKey,
        *,
        shard_bytes: int,
        expected: int | None,
        known: Container[str],
        name: Callable[[], str],
        record: Callable[[ShardEntry], None],
    ) -> None:
        """Start the writing process.

        Args:
            folder: where shards go.
            key: identity of the features.
            shard_bytes: target size of one shard.
            expected: images that are going to be added, for the check of free space; None if unknown.
            known: digests that the store has already.
            name: gives the next shard's file name.
            record: appends a finished shard to the manifest.
        """
        self.images = 0
        self.bytes = 0
        self._folder = folder
        self._key = key
        self._shard_bytes = shard_bytes
        self._tokens = 0  # of the shard in work
        self._expected = expected
        self._known = known
        self._next_name = name
        self._record = record
        self._pending: dict[str, Grid] = {}
        self._helper = helping_thread("feature writing")
        self._process = ShardWriter(folder, key)
        self._broken = False

    def add(self, image: str, features: Features, grid: Sequence[int] = ()) -> None:
        """Add one image; where its token count is not that of the images pending, those are committed first.

        Args:
            image: SHA-256 hex of the image.
            features: (layers, tokens, width) in the key's storage dtype: uint16 bits for bfloat16, float16 for int8.
            grid: how the image's tokens lie, in the words of its model family; only for keys whose token counts
                differ or whose dtype is int8.

        Raises:
            BadDataError: a value is NaN or infinite; nothing was written.
            ResourceError: disk full, or the writing process died.
            ValueError: wrong digest, shape, dtype or grid, or an image that is there already (a caller's mistake).
        """
        tokens = self._check(image, features, grid)
        self._must_work()
        if not all_finite(features, self._key.dtype):
            raise BadDataError(f"the features of image {image} hold NaN or infinity; they are not written")
        undisturbed(self._helper, partial(self._add, image, features, tuple(grid), tokens), self._process.kill)

    def _add(self, image: str, features: Features, grid: Grid, tokens: int) -> None:
        if tokens != self._tokens:
            self._flush()
        try:
            capacity = images_per_shard(self._key, self._shard_bytes, tokens)
            if not self._pending:
                self._process.begin(self._next_name(), self._expected_images(capacity), tokens)
                self._tokens = tokens
            self._process.add(image, features)
            self._pending[image] = grid
            if len(self._pending) == capacity:
                self._flush()
        except BaseException:
            # The child may be gone, or hold an image that is not pending.
            self._broken = True
            raise

    def adopt(self, path: Path, entry: ShardEntry) -> None:
        """Take over a finished shard of another store with the same key; its file there stays.

        Args:
            path: the shard's file; linked, or copied where the file systems cannot link.
            entry: what the other store's manifest says of it, all of it to be believed at reading only.

        Raises:
            ResourceError: no room for a copy.
            ValueError: an image of it is there already.
        """
        twice = next((image for image in entry.images if image in self._known or image in self._pending), None)
        if twice is not None:
            raise ValueError(f"image {twice} is in the store already")
        name = self._next_name()
        _link_or_copy(path, self._folder / name, entry.bytes)
        self._record(replace(entry, file=name))
        self.images += len(entry.images)
        self.bytes += entry.bytes

    def flush(self) -> None:
        """Commit the pending images as a shard, however few; shard and manifest line are on disk on return.

        Raises:
            ResourceError: disk full, or the writing process died.
        """
        undisturbed(self._helper, self._flush, self._process.kill)

    def _flush(self) -> None:
        self._must_work()
        if not self._pending:
            return
        try:
            entry = self._process.commit()
            if store_version(self._key) > 1:
                entry = replace(entry, grids=tuple(self._pending[image] for image in entry.images))
            self._record(entry)
        except BaseException:
            self._broken = True
            raise
        self.images += len(entry.images)
        self.bytes += entry.bytes
        self._pending.clear()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._broken:
                self.flush()
        except ClaspError as second:
            if error is None:
                raise
            error.add_note(f"In addition, the pending images were lost: {second}")
        finally:
            self._process.close()
            self._helper.shutdown()

    def _check(self, image: str, features: Features, grid: Sequence[int]) -> int:
        """Refuse a caller's mistakes; returns the image's token count."""
        if not is_sha256(image):
            raise ValueError(f"{image!r} is no SHA-256 hex digest")
        if image in self._known or image in self._pending:
            raise ValueError(f"image {image} is in the store already")
        tokens = self._key.tokens
        if tokens is None and features.ndim == 3 and 1 <= features.shape[1] <= MAX_AXIS:
            tokens = features.shape[1]
        wanted = image_shape(self._key, tokens or 1), storage_dtype(self._key.dtype)
        if tokens is None or (features.shape, features.dtype) != wanted:
            raise ValueError(f"features must be {wanted}, not {(features.shape, features.dtype)}")
        if not is_grid(grid) or (grid and store_version(self._key) == 1):
            raise ValueError(
                f"grid {tuple(grid)} of image {image} must be at most {MAX_GRID} integers from 1 to {MAX_AXIS}, and "
                "empty where every image has the same tokens"
            )
        return tokens

    def _must_work(self) -> None:
        if self._broken:
            raise ResourceError("this writer failed earlier; open a new one to go on")

    def _expected_images(self, capacity: int) -> int:
        if self._expected is None:
            return capacity
        return max(1, min(capacity, self._expected - self.images))


def _link_or_copy(path: Path, target: Path, size: int) -> None:
    """Give a finished file a second name, durably; by a copy on another file system, or on one without links."""
    try:
        os.link(path, target)
    except OSError:
        require_space(target.parent, size, f"a copy of {path}")
        part = target.with_name(target.name + PART_SUFFIX)
        try:
            shutil.copyfile(path, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.rename(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise disk_error(error, target, size) from error
    fsync_folder(target.parent)
