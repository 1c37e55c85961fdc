"""The manifest: checksummed lines that alone decide which shards a store has, and for which images.

Line kinds, in the order they may come: one ``store`` line, then any mix of ``shard`` and ``drop`` lines.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from claspkit.profiles.errors import shorten

from .keys import MAX_AXIS, FeatureKey, is_int, is_sha256
from .layout import (
    FLETCHER32_BYTES,
    FORMAT,
    MAX_IMAGES,
    SHARD_NAME,
    image_bytes,
    image_parts,
    image_shape,
    shard_number,
    store_version,
)

VERSIONS = (1, 2)
"""Versions of the format that this release reads; which of them a store has follows from its key."""

MAX_GRID = 8
"""Numbers in a grid, at most."""

Grid = tuple[int, ...]
"""What says how an image's tokens lie, in the words of its model family; () where nothing needs to be said."""

_MAX_BYTES = 1 << 40
_HEX_DIGITS = frozenset("0123456789abcdef")
_FIELDS = {"kind", "file", "sha256", "bytes", "images", "shape"}


@dataclass(frozen=True)
class ShardEntry:
    """One finished shard as the manifest vouches for it.

    Attributes:
        file: plain file name inside the store's folder.
        sha256: SHA-256 hex of the whole file.
        bytes: size of the file.
        images: SHA-256 hex of each image, in the order of axis 0.
        shape: (images, layers, tokens, width) of the dataset.
        grids: the grid of each image; () in a store of version 1, which has none.
        checksums: fletcher32 of every chunk's values, 4 little-endian bytes each, (images, layers) of them; int8 has
            two per layer, of the values and of their scales. Empty in stores of earlier releases.
    """

    file: str
    sha256: str
    bytes: int
    images: tuple[str, ...]
    shape: tuple[int, int, int, int]
    grids: tuple[Grid, ...] = ()
    checksums: builtins.bytes = b""

    def to_record(self) -> dict[str, Any]:
        """Return the manifest line of this shard."""
        record = {"kind": "shard", **asdict(self), "images": list(self.images), "shape": list(self.shape)}
        grids, checksums = [list(grid) for grid in record.pop("grids")], record.pop("checksums").hex()
        return record | ({"grids": grids} if grids else {}) | ({"checksums": checksums} if checksums else {})


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        key: identity of the features.
        shards: file name -> entry, of the shards that count, in the order they were written.
        dropped: names of shards that were taken back.
        next_number: running number that no shard has had.
    """

    key: FeatureKey
    shards: Mapping[str, ShardEntry]
    dropped: frozenset[str]
    next_number: int


def store_record(key: FeatureKey) -> dict[str, Any]:
    """Return the first line of a manifest."""
    return {"kind": "store", "format": FORMAT, "version": store_version(key), "key": key.to_dict()}


def drop_record(file: str, reason: str) -> dict[str, Any]:
    """Return the line that takes a shard back."""
    return {"kind": "drop", "file": file, "reason": reason}


def parse_manifest(records: Sequence[Mapping[str, Any]]) -> Manifest:
    """Read a manifest's records, trusting nothing in them.

    Raises:
        ValueError: a record is not what this version writes; the text starts with its line number.
    """
    if not records:
        raise ValueError("line 1: the store line is missing")
    key = _numbered(1, _parse_store, records[0])
    shards: dict[str, ShardEntry] = {}
    dropped: set[str] = set()
    owner: dict[str, str] = {}
    next_number = 0
    for line, record in enumerate(records[1:], start=2):
        kind = record.get("kind")
        if kind == "shard":
            entry = _numbered(line, lambda item: _parse_shard(item, key), record)
            if entry.file in shards or entry.file in dropped:
                raise ValueError(f"line {line}: shard {entry.file} is listed twice")
            twice = next((image for image in entry.images if image in owner), None)
            if twice is not None:
                raise ValueError(f"line {line}: image {twice} is in {owner[twice]} already")
            shards[entry.file] = entry
            owner.update(dict.fromkeys(entry.images, entry.file))
            next_number = max(next_number, shard_number(entry.file) + 1)
        elif kind == "drop":
            file = record.get("file")
            if not isinstance(file, str) or file not in shards:
                raise ValueError(f"line {line}: drops a shard that is not listed")
            for image in shards.pop(file).images:
                del owner[image]
            dropped.add(file)
        else:
            raise ValueError(f"line {line}: unknown kind {shorten(kind)}")
    return Manifest(key, shards, frozenset(dropped), next_number)


def _numbered(line: int, parse: Any, record: Mapping[str, Any]) -> Any:
    try:
        return parse(record)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"line {line}: {error}") from error


def _parse_store(record: Mapping[str, Any]) -> FeatureKey:
    if record.get("kind") != "store" or record.get("format") != FORMAT:
        raise ValueError(f"is not the store line of a {FORMAT} manifest")
    version = record.get("version")
    if not is_int(version, VERSIONS[0], VERSIONS[-1]):
        listed = " and ".join(map(str, VERSIONS))
        raise ValueError(f"format version is {shorten(version)}; this release reads {listed}")
    key = FeatureKey.from_dict(record["key"])
    if version != store_version(key):
        raise ValueError(f"format version is {version}, but a key with these fields has {store_version(key)}")
    return key


def _parse_shard(record: Mapping[str, Any], key: FeatureKey) -> ShardEntry:
    has_grids = store_version(key) > 1
    names = _FIELDS | {"grids"} if has_grids else _FIELDS
    if record.keys() - {"checksums"} != names:
        raise ValueError(f"a shard line of this store has exactly {', '.join(sorted(names))}, and perhaps checksums")
    file, size, images = record["file"], record["bytes"], record["images"]
    if not isinstance(file, str) or SHARD_NAME.fullmatch(file) is None:
        raise ValueError(f"{shorten(file)} is not a shard's file name")
    if not is_sha256(record["sha256"]):
        raise ValueError(f"sha256 of {file} is not 64 lowercase hex digits")
    if not isinstance(images, list) or not 1 <= len(images) <= MAX_IMAGES:
        raise ValueError(f"{file} must hold 1 to {MAX_IMAGES} images")
    if not all(is_sha256(image) for image in images) or len(set(images)) != len(images):
        raise ValueError(f"{file}: images must be distinct SHA-256 hex digests")
    tokens = _parse_tokens(file, record["shape"], len(images), key)
    shape = (len(images), *image_shape(key, tokens))
    # A shard is never smaller than its uncompressed data: this bounds every allocation by bytes that exist.
    least = image_bytes(key, tokens) * len(images)
    if not isinstance(size, int) or isinstance(size, bool) or not least <= size <= _MAX_BYTES:
        raise ValueError(f"{file}: size {shorten(size)} is absurd or below the {least} its shape needs")
    grids = _parse_grids(file, record["grids"], len(images)) if has_grids else ()
    checksums = _parse_checksums(file, record["checksums"], shape, key) if "checksums" in record else b""
    return ShardEntry(file, record["sha256"], size, tuple(images), shape, grids, checksums)


def _parse_tokens(file: str, shape: Any, images: int, key: FeatureKey) -> int:
    """The token count in a shape, which must follow from the key in everything that the key says."""
    layers, width = len(key.layers), key.width
    listed = isinstance(shape, list) and len(shape) == 4 and all(is_int(size, 1, MAX_AXIS) for size in shape)
    tokens = shape[2] if listed and key.tokens is None else key.tokens
    if not listed or shape != [images, layers, tokens, width]:
        wanted = (images, layers, "any" if key.tokens is None else key.tokens, width)
        raise ValueError(f"{file}: shape {shorten(shape)} does not follow from the key: {wanted}")
    return int(shape[2])


def _parse_grids(file: str, grids: Any, images: int) -> tuple[Grid, ...]:
    if not isinstance(grids, list) or len(grids) != images:
        raise ValueError(f"{file}: grids must be a list with one entry per image")
    for grid in grids:
        if not isinstance(grid, list) or not is_grid(grid):
            raise ValueError(
                f"{file}: grid {shorten(grid)} is no list of up to {MAX_GRID} integers from 1 to {MAX_AXIS}"
            )
    return tuple(tuple(grid) for grid in grids)


def _parse_checksums(file: str, listed: Any, shape: tuple[int, int, int, int], key: FeatureKey) -> bytes:
    size = FLETCHER32_BYTES * shape[0] * shape[1] * len(image_parts(key, shape[2]))
    if not isinstance(listed, str) or len(listed) != 2 * size or not set(listed) <= _HEX_DIGITS:
        raise ValueError(f"{file}: checksums must be {2 * size} lowercase hex digits, got {shorten(listed)}")
    return bytes.fromhex(listed)


def is_grid(grid: Sequence[object]) -> bool:
    """Whether a grid is within its bounds."""
    return len(grid) <= MAX_GRID and all(is_int(number, 1, MAX_AXIS) for number in grid)


def image_index(shards: Iterable[ShardEntry]) -> dict[str, tuple[ShardEntry, int]]:
    """Image digest -> its shard and row."""
    return {image: (entry, row) for entry in shards for row, image in enumerate(entry.images)}
