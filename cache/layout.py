"""The shard format as code: names, attributes, dtypes, chunks; ``docs/format-cache.md`` has it in prose.

Axis order of the one dataset: (images, layers, tokens, width). One chunk is one image at one layer.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from .keys import FeatureKey

FORMAT: Final = "clasp-features"
VERSION: Final = 1
DATASET: Final = "features"
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

_STORAGE: Final[dict[str, str]] = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}
# All exponent bits set means infinity or NaN; one integer test per value, and it works for bfloat16 too.
_EXPONENT: Final[dict[str, tuple[str, int]]] = {
    "float16": ("<u2", 0x7C00),
    "bfloat16": ("<u2", 0x7F80),
    "float32": ("<u4", 0x7F800000),
}


def storage_dtype(logical: str) -> np.dtype[Any]:
    """The little-endian numpy dtype in which a logical dtype lies on disk and in arrays handed to readers."""
    return np.dtype(_STORAGE[logical])


def image_shape(key: FeatureKey) -> tuple[int, int, int]:
    """Shape of one image's features: (layers, tokens, width)."""
    return len(key.layers), key.tokens, key.width


def image_bytes(key: FeatureKey) -> int:
    """Bytes one image takes in a shard, checksums included."""
    layers, tokens, width = image_shape(key)
    return layers * (tokens * width * storage_dtype(key.dtype).itemsize + FLETCHER32_BYTES)


def images_per_shard(key: FeatureKey, shard_bytes: int) -> int:
    """How many images fill a shard of about ``shard_bytes``: at least one, at most ``MAX_IMAGES``."""
    return max(1, min(MAX_IMAGES, shard_bytes // image_bytes(key)))


def shard_bytes_needed(key: FeatureKey, images: int) -> int:
    """Free space to ask for before writing ``images`` images: their bytes, 5 % and 64 KiB for HDF5's own."""
    return image_bytes(key) * images * 105 // 100 + (1 << 16)


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


def create_dataset(file: Any, key: FeatureKey) -> Any:
    """Lay out an empty shard in an open HDF5 file and return its dataset, images axis 0 long and growable."""
    layers, tokens, width = image_shape(key)
    dataset = file.create_dataset(
        DATASET,
        shape=(0, layers, tokens, width),
        maxshape=(MAX_IMAGES, layers, tokens, width),
        chunks=(1, 1, tokens, width),
        dtype=storage_dtype(key.dtype),
        fletcher32=True,
        track_times=False,
    )
    for name, value in fixed_attributes(key).items():
        dataset.attrs.create(name, value)
    return dataset


def fixed_attributes(key: FeatureKey) -> dict[str, NDArray[Any]]:
    """The attributes every shard of a store carries, fixed-size scalars: no variable-length heap to parse."""
    return {
        "format": np.array(FORMAT.encode()),
        "version": np.array(VERSION, dtype="<i8"),
        "key": np.array(key.digest.encode()),
        "dtype": np.array(key.dtype.encode()),
    }


def append_image(dataset: Any, features: Features) -> None:
    """Add one image's (layers, tokens, width) array at the end of an open shard."""
    count = dataset.shape[0]
    dataset.resize(count + 1, axis=0)
    dataset[count] = features


def finish_dataset(dataset: Any, digests: Sequence[str]) -> None:
    """Write the last attribute: which image each row is."""
    dataset.attrs.create(IMAGES, pack_digests(digests))


def open_hdf5(path: str, mode: str) -> Any:
    """Open an HDF5 file our way: without file locks, as shards never change; see below for the chunk cache."""
    # Reading uses each chunk once, so a cache would only copy it; writing is a third faster through one.
    cache_bytes = 0 if mode == "r" else 8 << 20
    return h5py.File(path, mode, locking=False, rdcc_nbytes=cache_bytes)
