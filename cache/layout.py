"""The shard format as code: names, attributes, dtypes, chunks; ``docs/format-cache.md`` has it in prose.

Axis order of the values: (images, layers, tokens, width). One chunk is one image at one layer. All images of a shard
have one token count; where a key leaves that open, shards differ in it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from .keys import FeatureKey

FORMAT: Final = "clasp-features"
DATASET: Final = "features"
SCALES: Final = "scales"
IMAGES: Final = "images"
MANIFEST: Final = "manifest.jsonl"

SHARD_NAME: Final = re.compile(r"shard-([0-9]{6})-[0-9a-f]{8}\.h5")
PART_SUFFIX: Final = ".part"
PART_NAME: Final = re.compile(SHARD_NAME.pattern + re.escape(PART_SUFFIX))

MAX_IMAGES: Final = 1024
"""Images per shard at most: their digests (32 bytes each) are an attribute, and HDF5 holds 64 KiB in one."""

SHARD_BYTES: Final = 256 * 1024 * 1024
"""Default target size of a shard."""

FLETCHER32_BYTES: Final = 4
"""What the checksum filter adds to each chunk."""

Features = NDArray[Any]
"""An array in a storage dtype: float16, float32, or uint16 bit patterns of bfloat16."""

_STORAGE: Final[dict[str, str]] = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "int8": "<f2"}
# All exponent bits set means infinity or NaN; one integer test per value, and it works for bfloat16 too.
_EXPONENT: Final[dict[str, tuple[str, int]]] = {
    "float16": ("<u2", 0x7C00),
    "bfloat16": ("<u2", 0x7F80),
    "float32": ("<u4", 0x7F800000),
    "int8": ("<u2", 0x7C00),
}


def storage_dtype(logical: str) -> np.dtype[Any]:
    """The little-endian numpy dtype in which writers hand over a logical dtype and readers get it.

    It is the one on disk too, but for int8, which is float16 outside of the file.
    """
    return np.dtype(_STORAGE[logical])


def store_version(key: FeatureKey) -> int:
    """The format's version that can express a key: 1, or 2 where token counts differ or values are int8."""
    return 2 if key.tokens is None or key.dtype == "int8" else 1


def image_shape(key: FeatureKey, tokens: int | None = None) -> tuple[int, int, int]:
    """Shape of one image's features: (layers, tokens, width).

    Args:
        key: identity of the features.
        tokens: the image's token count; may be left out where the key has it.

    Raises:
        ValueError: neither says how many tokens, or they contradict each other.
    """
    count = key.tokens if tokens is None else tokens
    if count is None or count != (key.tokens or count):
        raise ValueError(f"an image of {tokens} tokens does not fit a key for {key.tokens}")
    return len(key.layers), count, key.width


@dataclass(frozen=True)
class Part:
    """One dataset of a shard, for one image.

    Attributes:
        shape: its axes but the images', layers first; one chunk is one image at one layer.
        dtype: of its values on disk.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a chunk, images axis first."""
        return (1, 1, *self.shape[1:])

    @property
    def bytes(self) -> int:
        """Bytes on disk, checksums included."""
        return self.shape[0] * (prod(self.shape[1:]) * self.dtype.itemsize + FLETCHER32_BYTES)


def image_parts(key: FeatureKey, tokens: int | None = None) -> dict[str, Part]:
    """The datasets of a shard by name; see :func:`image_shape` for the arguments."""
    layers, count, width = image_shape(key, tokens)
    if key.dtype != "int8":
        return {DATASET: Part((layers, count, width), storage_dtype(key.dtype))}
    return {
        DATASET: Part((layers, count, width), np.dtype("i1")),
        SCALES: Part((layers, width), np.dtype("<f4")),
    }


def image_bytes(key: FeatureKey, tokens: int | None = None) -> int:
    """Bytes one image takes in a shard, checksums included; see :func:`image_shape` for the arguments."""
    return sum(part.bytes for part in image_parts(key, tokens).values())


def images_per_shard(key: FeatureKey, shard_bytes: int, tokens: int | None = None) -> int:
    """How many images fill a shard of about ``shard_bytes``: at least one, at most ``MAX_IMAGES``."""
    return max(1, min(MAX_IMAGES, shard_bytes // image_bytes(key, tokens)))


def shard_bytes_needed(key: FeatureKey, images: int, tokens: int | None = None) -> int:
    """Free space to ask for before writing ``images`` images: their bytes, 5 % and 64 KiB for HDF5's own."""
    return image_bytes(key, tokens) * images * 105 // 100 + (1 << 16)


def new_shard_name(number: int) -> str:
    """A name no other writer chooses: a late rename by an orphaned child then never hits a listed shard."""
    return f"shard-{number:06d}-{secrets.token_hex(4)}.h5"


def shard_number(name: str) -> int:
    """The running number inside a shard's name."""
    found = SHARD_NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is not a shard's file name")
    return int(found[1])


def all_finite(array: Features, logical: str) -> bool:
    """Whether an array in storage dtype holds neither NaN nor infinity."""
    view, mask = _EXPONENT[logical]
    bits = array.view(view)
    return array.size == 0 or int((bits & bits.dtype.type(mask)).max()) != mask


def pack_digests(digests: Sequence[str]) -> NDArray[np.uint8]:
    """SHA-256 hex digests -> (images, 32) uint8, the form of the ``images`` attribute."""
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint8).reshape(len(digests), 32)


def create_dataset(file: Any, key: FeatureKey, tokens: int | None = None) -> Any:
    """Lay out an empty shard in an open HDF5 file: its datasets, images axis 0 long and growable.

    Returns:
        The dataset of the values; the one of int8's scales is beside it.
    """
    for name, part in image_parts(key, tokens).items():
        file.create_dataset(
            name,
            shape=(0, *part.shape),
            maxshape=(MAX_IMAGES, *part.shape),
            chunks=part.chunk,
            dtype=part.dtype,
            fletcher32=True,
            track_times=False,
        )
    dataset = file[DATASET]
    for name, value in fixed_attributes(key).items():
        dataset.attrs.create(name, value)
    return dataset


def fixed_attributes(key: FeatureKey) -> dict[str, NDArray[Any]]:
    """The attributes every shard of a store carries, fixed-size scalars: no variable-length heap to parse."""
    return {
        "format": np.array(FORMAT.encode()),
        "version": np.array(store_version(key), dtype="<i8"),
        "key": np.array(key.digest.encode()),
        "dtype": np.array(key.dtype.encode()),
    }


def finish_dataset(dataset: Any, digests: Sequence[str]) -> None:
    """Write the last attribute: which image each row is."""
    dataset.attrs.create(IMAGES, pack_digests(digests))


def open_hdf5(path: str, mode: str) -> Any:
    """Open an HDF5 file our way: without file locks, as shards never change, and without a cache of chunks."""
    return h5py.File(path, mode, locking=False, rdcc_nbytes=0)
