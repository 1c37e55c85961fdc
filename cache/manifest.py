"""The manifest: checksummed lines that alone decide which shards a store has, and for which images.

Line kinds, in the order they may come: one ``store`` line, then any mix of ``shard`` and ``drop`` lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from claspkit.profiles.errors import shorten

from .keys import FeatureKey, is_sha256
from .layout import FORMAT, MAX_IMAGES, SHARD_NAME, VERSION, image_bytes, image_shape, shard_number

_MAX_BYTES = 1 << 40


@dataclass(frozen=True)
class ShardEntry:
    """One finished shard as the manifest vouches for it.

    Attributes:
        file: plain file name inside the store's folder.
        sha256: SHA-256 hex of the whole file.
        bytes: size of the file.
        images: SHA-256 hex of each image, in the order of axis 0.
        shape: (images, layers, tokens, width) of the dataset.
    """

    file: str
    sha256: str
    bytes: int
    images: tuple[str, ...]
    shape: tuple[int, int, int, int]

    def to_record(self) -> dict[str, Any]:
        """Return the manifest line of this shard."""
        return {"kind": "shard", **asdict(self), "images": list(self.images), "shape": list(self.shape)}


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
    return {"kind": "store", "format": FORMAT, "version": VERSION, "key": key.to_dict()}


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
    if record.get("version") != VERSION or isinstance(record["version"], bool):
        raise ValueError(f"format version is {shorten(record.get('version'))}; this release reads {VERSION}")
    return FeatureKey.from_dict(record["key"])


def _parse_shard(record: Mapping[str, Any], key: FeatureKey) -> ShardEntry:
    if record.keys() != {"kind", "file", "sha256", "bytes", "images", "shape"}:
        raise ValueError("a shard line has exactly kind, file, sha256, bytes, images, shape")
    file, size, images = record["file"], record["bytes"], record["images"]
    if not isinstance(file, str) or SHARD_NAME.fullmatch(file) is None:
        raise ValueError(f"{shorten(file)} is not a shard's file name")
    if not is_sha256(record["sha256"]):
        raise ValueError(f"sha256 of {file} is not 64 lowercase hex digits")
    if not isinstance(images, list) or not 1 <= len(images) <= MAX_IMAGES:
        raise ValueError(f"{file} must hold 1 to {MAX_IMAGES} images")
    if not all(is_sha256(image) for image in images) or len(set(images)) != len(images):
        raise ValueError(f"{file}: images must be distinct SHA-256 hex digests")
    shape = (len(images), *image_shape(key))
    if record["shape"] != list(shape):
        raise ValueError(f"{file}: shape {shorten(record['shape'])} does not follow from the key: {shape}")
    # A shard is never smaller than its uncompressed data: this bounds every allocation by bytes that exist.
    least = image_bytes(key) * len(images)
    if not isinstance(size, int) or isinstance(size, bool) or not least <= size <= _MAX_BYTES:
        raise ValueError(f"{file}: size {shorten(size)} is absurd or below the {least} its shape needs")
    return ShardEntry(file, record["sha256"], size, tuple(images), shape)


def image_index(shards: Iterable[ShardEntry]) -> dict[str, tuple[ShardEntry, int]]:
    """Image digest -> its shard and row."""
    return {image: (entry, row) for entry in shards for row, image in enumerate(entry.images)}
