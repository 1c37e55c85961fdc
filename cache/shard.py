"""Reading one shard: nothing in the file is believed until it equals what the manifest promised."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from claspkit.profiles.errors import ResourceError

from .chunks import ChunkError, Job, chunk_places, read_chunks
from .keys import FeatureKey
from .layout import (
    DATASET,
    IMAGES,
    MANIFEST,
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
_HDF5_ERRNO: Final = re.compile(r"\berrno = (\d+)")
_FAULTS_OF_FILES: Final = frozenset({errno.EINVAL, errno.EISDIR, errno.ELOOP})

FileState = tuple[int, int, int, int]
"""(device, inode, size, modification time in ns): unchanged as long as the file is."""

Compared = NDArray[np.bool_]
"""Which chunks of values a process has read and found to fit their checksums: (images, layers)."""


class ShardDamageError(Exception):
    """A shard's file is not what the manifest promised; the text is the reason. It never leaves ``cache``."""


def check_file(path: Path, entry: ShardEntry) -> FileState:
    """Check that the shard's file is a plain file of the promised size, without reading it.

    Raises:
        ShardDamageError: it is missing, no plain file, or has another size.
        ResourceError: the system does not let it be examined.
    """
    try:
        found = path.lstat()
    except OSError as error:
        raise _refused(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise ShardDamageError("the file is a link or a special file; only plain files are read")
    if found.st_size != entry.bytes:
        raise ShardDamageError(f"the file has {found.st_size} bytes, the manifest promises {entry.bytes}")
    return _state(found)


def check_sha256(path: Path, entry: ShardEntry) -> None:
    """Read the whole file and compare its SHA-256.

    Raises:
        ShardDamageError: it differs.
        ResourceError: the system does not let the file be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _refused(path, error) from error
    if found != entry.sha256:
        raise ShardDamageError(f"its sha256 is {found[:12]}..., the manifest promises {entry.sha256[:12]}...")


class OpenShard:
    """One shard, open for reading, its structure checked. Not to be shared between threads or over a fork."""

    def __init__(self, path: Path, entry: ShardEntry, key: FeatureKey, compared: Compared) -> None:
        """Open and check.

        Args:
            path: the shard's file.
            entry: what the manifest says of it.
            key: what the features are.
            compared: chunks whose checksums are not compared again; those that a read compares are added.

        Raises:
            ShardDamageError: the file is no HDF5 file or not laid out as ``key`` and ``entry`` say.
            ResourceError: the system does not let it be opened or read.
        """
        self._path = path
        self._places = check_structure(path, entry, key)
        parts = image_parts(key, entry.shape[2])
        self._compared = compared
        self._checksums = np.frombuffer(entry.checksums, "<u4").reshape(*entry.shape[:2], -1)
        self._whole = [np.empty(part.shape[1:], part.dtype) for part in parts.values()] if SCALES in parts else None
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _refused(path, error) from error
        # Also for who drops a store without closing it, and for what a forked process has of its parent's.
        self._close = weakref.finalize(self, os.close, self._file)
        self._close.atexit = False

    def read(self, row: int, positions: Sequence[int], out: Features, helper: ThreadPoolExecutor | None = None) -> None:
        """Read some layers of one image into ``out``.

        Args:
            row: index on the images axis.
            positions: indices on the layers axis (not layer numbers).
            out: (len(positions), tokens, width), C-contiguous, storage dtype.
            helper: a thread that takes half of a large read.

        Raises:
            ShardDamageError: a chunk's fletcher32 does not fit its bytes, or a scale of int8 values is none.
            ResourceError: the system does not let the file be read.
        """
        try:
            if self._whole is None:
                jobs = [self._job(DATASET, row, position, out[index]) for index, position in enumerate(positions)]
                read_chunks(self._file, jobs, helper)
            else:
                for index, position in enumerate(positions):
                    self._restore(row, position, self._whole, out[index])
            self._compared[row, list(positions)] = True
        except ChunkError as error:
            raise ShardDamageError(f"the values of image {row} cannot be read: {_short(error)}") from error
        except OSError as error:
            raise _refused(self._path, error) from error

    def state(self) -> FileState:
        """What the file is now; it is never written again, so another state than before means foul play.

        Raises:
            ResourceError: the system does not let the file be examined.
        """
        try:
            return _state(os.fstat(self._file))
        except OSError as error:
            raise _refused(self._path, error) from error

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file = -1
        self._close()

    def _job(self, part: str, row: int, position: int, out: NDArray[Any]) -> Job:
        known = self._compared[row, position]
        checksum = None if known else int(self._checksums[row, position, 1 if part == SCALES else 0])
        return Job(int(self._places[part][row, position]), out, checksum)

    def _restore(self, row: int, position: int, parts: Sequence[NDArray[Any]], out: Features) -> None:
        values, scales = parts
        read_chunks(self._file, [self._job(DATASET, row, position, values), self._job(SCALES, row, position, scales)])
        if not are_scales(scales):
            raise ShardDamageError(f"the scales of image {row} are not those of float16 features")
        restore(values, scales, out)


def _state(found: os.stat_result) -> FileState:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _refused(path: Path, error: OSError) -> ShardDamageError | ResourceError:
    """What it means that the system refused: damage only where it is the file's own fault."""
    # A missing folder, or a disk that is not mounted any more, says nothing about the shard.
    if isinstance(error, FileNotFoundError) and os.path.isfile(path.with_name(MANIFEST)):
        return ShardDamageError("the file is missing")
    if error.errno in _FAULTS_OF_FILES:
        return ShardDamageError(f"the file cannot be read: {error.strerror}")
    return ResourceError(
        f"shard {path} could not be read: {error.strerror}. That says nothing about what is in it, so it stays. Put "
        "that right and run the same command again; should the disk have lost the file for good, delete it, and "
        "repair takes its images out."
    )


def check_structure(path: Path, entry: ShardEntry, key: FeatureKey) -> dict[str, NDArray[np.int64]]:
    """Check what HDF5 says of a file; returns where the chunks of each part lie: (images, layers) byte offsets.

    Raises:
        ShardDamageError: the file is no HDF5 file or not laid out as ``key`` and ``entry`` say.
        ResourceError: the system does not let it be opened or read.
    """
    doing = "open it"
    try:
        with open_hdf5(str(path), "r") as file:
            doing = "read its structure"
            datasets = _checked_datasets(file, entry, key)
            return {name: chunk_places(found, entry.bytes) for name, found in datasets.items()}
    except ShardDamageError:
        raise
    except ChunkError as error:
        raise ShardDamageError(str(error)) from error
    except Exception as error:  # h5py: OSError, RuntimeError, ValueError, KeyError...
        if (number := _system_error(error)) is not None:
            raise _refused(path, OSError(number, os.strerror(number))) from error
        raise ShardDamageError(f"HDF5 cannot {doing}: {_short(error)}") from error


def _system_error(error: BaseException) -> int | None:
    """The system's number behind an error; HDF5 has it in the text only, a module that was to be loaded in a cause."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno is not None:
            return link.errno
        if (found := _HDF5_ERRNO.search(str(link))) is not None:
            return int(found[1])
        link = link.__cause__ or link.__context__
    return None


def _checked_datasets(file: Any, entry: ShardEntry, key: FeatureKey) -> dict[str, Any]:
    """Check links before following them, storage before touching it, sizes before allocating."""
    root, parts = file.id, image_parts(key, entry.shape[2])
    if root.get_num_objs() != len(parts) or not all(root.links.exists(name.encode()) for name in parts):
        raise ShardDamageError(_objects(parts))
    found = {name: _checked_part(root, name, part, len(entry.images)) for name, part in parts.items()}
    expected = fixed_attributes(key) | {IMAGES: pack_digests(entry.images)}
    for attribute, value in expected.items():
        _check_attribute(found[DATASET], attribute, value)
    return found


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
