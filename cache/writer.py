"""Filling a store: images in, full shards out, one manifest line after each shard is safely on disk."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from types import TracebackType

from claspkit.profiles.errors import BadDataError, ClaspError, ResourceError

from .keys import FeatureKey, is_sha256
from .layout import Features, all_finite, image_shape, images_per_shard, storage_dtype
from .manifest import ShardEntry
from .process import ShardWriter


class FeatureWriter:
    """Collects images into shards; made by ``FeatureStore.writer`` and used as a context manager.

    Leaving the block commits what is pending, also after an exception (Ctrl-C included): every image that
    :meth:`add` accepted is whole, so none of its work needs to be lost.

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
        self._key = key
        self._capacity = images_per_shard(key, shard_bytes)
        self._expected = expected
        self._known = known
        self._next_name = name
        self._record = record
        self._pending: set[str] = set()
        self._process = ShardWriter(folder, key)
        self._broken = False

    def add(self, image: str, features: Features) -> None:
        """Add one image.

        Args:
            image: SHA-256 hex of the image.
            features: (layers, tokens, width) in the key's storage dtype (uint16 bits for bfloat16).

        Raises:
            BadDataError: a value is NaN or infinite; nothing was written.
            ResourceError: disk full, or the writing process died.
            ValueError: wrong digest, shape or dtype, or an image that is there already (a caller's mistake).
        """
        self._check(image, features)
        self._must_work()
        if not all_finite(features, self._key.dtype):
            raise BadDataError(f"the features of image {image} hold NaN or infinity; they are not written")
        try:
            if not self._pending:
                self._process.begin(self._next_name(), self._expected_images())
            self._process.add(image, features)
            self._pending.add(image)
            if len(self._pending) == self._capacity:
                self.flush()
        except BaseException:
            # Also on Ctrl-C: half an image may be in the pipe, and nothing after it would be understood.
            self._broken = True
            raise

    def flush(self) -> None:
        """Commit the pending images as a shard, however few; shard and manifest line are on disk on return.

        Raises:
            ResourceError: disk full, or the writing process died.
        """
        self._must_work()
        if not self._pending:
            return
        try:
            entry = self._process.commit()
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

    def _check(self, image: str, features: Features) -> None:
        if not is_sha256(image):
            raise ValueError(f"{image!r} is no SHA-256 hex digest")
        if image in self._known or image in self._pending:
            raise ValueError(f"image {image} is in the store already")
        wanted = image_shape(self._key), storage_dtype(self._key.dtype)
        if (features.shape, features.dtype) != wanted:
            raise ValueError(f"features must be {wanted}, not {(features.shape, features.dtype)}")

    def _must_work(self) -> None:
        if self._broken:
            raise ResourceError("this writer failed earlier; open a new one to go on")

    def _expected_images(self) -> int:
        if self._expected is None:
            return self._capacity
        return max(1, min(self._capacity, self._expected - self.images))
