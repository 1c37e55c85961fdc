"""Reading one shard: nothing in the file is believed until it equals what the manifest promised."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .keys import FeatureKey
from .layout import (
    DATASET,
    IMAGES,
    SCALES,
    Features,
    Part,
    fixed_attributes,
    image_parts,
    open_hdf5,
    pack_digests,
)
from .manifest import ShardEntry
from .quantise import are_scales, restore

_FLETCHER32: int = h5py.h5z.FILTER_FLETCHER32

FileState = tuple[int, int, int, int]
"""(device, inode, size, modification time in ns): unchanged as long as the file is."""


class ShardDamageError(Exception):
    """A shard's file is not what the manifest promised; the text is the reason. It never leaves ``cache``."""


def check_file(path: Path, entry: ShardEntry) -> FileState:
    """Check that the shard's file is a plain file of the promised size, without reading it.

    Raises:
        ShardDamageError: it is missing, no plain file, or has another size.
    """
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise ShardDamageError("the file is missing") from error
    except OSError as error:
        raise ShardDamageError(f"the file cannot be examined: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ShardDamageError("the file is a link or a special file; only plain files are read")
    if found.st_size != entry.bytes:
        raise ShardDamageError(f"the file has {found.st_size} bytes, the manifest promises {entry.bytes}")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def check_sha256(path: Path, entry: ShardEntry) -> None:
    """Read the whole file and compare its SHA-256.

    Raises:
        ShardDamageError: it differs, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ShardDamageError(f"the file cannot be read: {error.strerror}") from error
    if found != entry.sha256:
        raise ShardDamageError(f"its sha256 is {found[:12]}..., the manifest promises {entry.sha256[:12]}...")


class OpenShard:
    """One shard, open for reading, its structure checked. Not to be shared between threads or over a fork."""

    def __init__(self, path: Path, entry: ShardEntry, key: FeatureKey) -> None:
        """Open and check.

        Raises:
            ShardDamageError: the file is no HDF5 file or not laid out as ``key`` and ``entry`` say.
        """
        try:
            self._file = open_hdf5(str(path), "r")
        except Exception as error:  # h5py: OSError, RuntimeError, ValueError, KeyError...
            raise ShardDamageError(f"HDF5 cannot open it: {_short(error)}") from error
        try:
            parts = _checked_datasets(self._file, entry, key)
            self._dataset, self._scales = parts[DATASET], parts.get(SCALES)
        except ShardDamageError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise ShardDamageError(f"HDF5 cannot read its structure: {_short(error)}") from error
        self._whole = np.empty(entry.shape[2:], np.int8) if self._scales is not None else None

    def read(self, row: int, positions: Sequence[int], out: Features) -> None:
        """Read some layers of one image into ``out``.

        Args:
            row: index on the images axis.
            positions: indices on the layers axis (not layer numbers).
            out: (len(positions), tokens, width), C-contiguous, storage dtype.

        Raises:
            ShardDamageError: a chunk's fletcher32 does not fit its bytes, or a scale of int8 values is none.
        """
        try:
            for place, position in enumerate(positions):
                if self._scales is None:
                    self._dataset.read_direct(out, np.s_[row, position], np.s_[place])
                else:
                    self._restore(row, position, out[place])
        except ShardDamageError:
            raise
        except Exception as error:
            raise ShardDamageError(f"HDF5 cannot read the values of image {row}: {_short(error)}") from error

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    def _restore(self, row: int, position: int, out: Features) -> None:
        assert self._scales is not None
        assert self._whole is not None
        self._dataset.read_direct(self._whole, np.s_[row, position])
        scales = self._scales[row, position]
        if not are_scales(scales):
            raise ShardDamageError(f"the scales of image {row} are not those of float16 features")
        restore(self._whole, scales, out)


def _checked_datasets(file: Any, entry: ShardEntry, key: FeatureKey) -> dict[str, Any]:
    """Check links before following them, storage before touching it, sizes before allocating."""
    root, parts = file.id, image_parts(key, entry.shape[2])
    if root.get_num_objs() != len(parts) or not all(root.links.exists(name.encode()) for name in parts):
        raise ShardDamageError(_objects(parts))
    found = {name: _checked_part(root, name, part, len(entry.images)) for name, part in parts.items()}
    expected = fixed_attributes(key) | {IMAGES: pack_digests(entry.images)}
    for attribute, value in expected.items():
        _check_attribute(found[DATASET], attribute, value)
    return {name: h5py.Dataset(low) for name, low in found.items()}


def _objects(parts: Mapping[str, Part]) -> str:
    if len(parts) == 1:
        return f"it must hold exactly one object, {DATASET!r}"
    return f"it must hold exactly the objects {', '.join(map(repr, parts))}"


def _checked_part(root: Any, label: str, part: Part, images: int) -> Any:
    name, its = label.encode(), "its" if label == DATASET else f"its {label}'"
    if root.links.get_info(name).type != h5py.h5l.TYPE_HARD:
        raise ShardDamageError(f"{label!r} is a soft or external link; links are not followed")
    if h5py.h5o.get_info(root, name).type != h5py.h5o.TYPE_DATASET:
        raise ShardDamageError(f"{label!r} is not a dataset")
    low = h5py.h5d.open(root, name)
    _check_storage(low.get_create_plist(), its, part)
    shape = (images, *part.shape)
    if low.shape != shape:
        raise ShardDamageError(f"{its} shape is {low.shape}, the manifest promises {shape}")
    if not low.get_type().equal(h5py.h5t.py_create(part.dtype)):
        raise ShardDamageError(f"{its} values are {low.dtype}, expected {part.dtype}")
    # A chunk that was never written would read as zeros without any error.
    chunks, stored = images * part.shape[0], part.bytes * images
    if low.get_num_chunks() != chunks:
        raise ShardDamageError(f"it holds {low.get_num_chunks()} of {chunks} chunks of {its} values")
    if low.get_storage_size() != stored:  # a chunk may also say of itself that it has no checksum
        raise ShardDamageError(f"it holds {low.get_storage_size()} bytes of chunks of {its} values, expected {stored}")
    return low


def _check_storage(creation: Any, its: str, part: Part) -> None:
    """Refuse every way in which a dataset's bytes can come from elsewhere or through foreign code."""
    if creation.get_layout() != h5py.h5d.CHUNKED:
        raise ShardDamageError(f"{its} dataset is not chunked (virtual and contiguous datasets are refused)")
    if creation.get_external_count():
        raise ShardDamageError(f"{its} dataset lies in other files (external storage is refused)")
    filters = [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]
    if filters != [_FLETCHER32]:
        raise ShardDamageError(f"{its} filters are {filters}; only fletcher32 ({_FLETCHER32}) alone is read")
    if creation.get_chunk() != part.chunk:
        raise ShardDamageError(f"{its} chunks are {creation.get_chunk()}, expected {part.chunk}")


def _check_attribute(dataset: Any, name: str, expected: NDArray[Any]) -> None:
    """Compare an attribute, its type and size before its value: variable-length values are never parsed."""
    if not h5py.h5a.exists(dataset, name.encode()):
        raise ShardDamageError(f"its attribute {name!r} is missing")
    attribute = h5py.h5a.open(dataset, name.encode())
    if attribute.dtype == expected.dtype and attribute.shape == expected.shape:
        found = np.empty(expected.shape, expected.dtype)
        attribute.read(found)
        if np.array_equal(found, expected):
            return
    raise ShardDamageError(f"its attribute {name!r} differs from the manifest; it is from another store")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
