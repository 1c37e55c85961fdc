"""HDF5 files made to harm: their manifest fits them, so only the checks of the structure stand in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from feature_stores import LAYERS, SHAPE, features_of, make_key, name_of, plant

from claspkit.cache import FeatureStore
from claspkit.cache.chunks import ImageWriter
from claspkit.cache.layout import create_dataset, finish_dataset, open_hdf5, pack_digests
from claspkit.cache.pool import Verify
from claspkit.profiles.errors import CorruptError

CHUNK = (1, 1, *SHAPE[1:])
FULL = (2, *SHAPE)
UNKNOWN_FILTER = 311


def write_sound(path: Path, images: int = 2) -> None:
    """A shard as the writer makes it."""
    with open_hdf5(str(path), "w") as file:
        dataset = create_dataset(file, make_key())
        for image in range(images):
            ImageWriter(dataset).append(features_of(image))
        finish_dataset(dataset, [name_of(image) for image in range(images)])


def mark(dataset: Any) -> None:
    """Give a dataset the attributes of a sound one."""
    for name, value in {
        "format": np.array(b"clasp-features"),
        "version": np.array(1, "<i8"),
        "key": np.array(make_key().digest.encode()),
        "dtype": np.array(b"float16"),
        "images": pack_digests([name_of(0), name_of(1)]),
    }.items():
        dataset.attrs.create(name, value)


def _dataset(path: Path, **options: Any) -> None:
    """A file with one full dataset, laid out as sound but for ``options``."""
    wanted = {"chunks": CHUNK, "fletcher32": True, "dtype": "<f2", "shape": FULL, **options}
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("features", **wanted)
        dataset[...] = 1
        mark(dataset)


def external_link(path: Path) -> None:
    write_sound(path.parent.parent / "secret.h5")
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink(str(path.parent.parent / "secret.h5"), "features")


def soft_link(path: Path) -> None:
    write_sound(path)
    with h5py.File(path, "r+") as file:
        file.move("features", "other")
        file["features"] = h5py.SoftLink("/other")


def lone_soft_link(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = h5py.SoftLink("/features")


def external_storage(path: Path) -> None:
    secret = path.parent.parent / "secret.txt"
    secret.write_bytes(b"s" * 10_000)
    with h5py.File(path, "w") as file:
        mark(file.create_dataset("features", FULL, "<f2", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]))


def virtual(path: Path) -> None:
    write_sound(path.parent.parent / "secret.h5")
    layout = h5py.VirtualLayout(FULL, "<f2")
    layout[...] = h5py.VirtualSource(str(path.parent.parent / "secret.h5"), "features", FULL)
    with h5py.File(path, "w", libver="latest") as file:
        mark(file.create_virtual_dataset("features", layout))


def huge_shape(path: Path) -> None:
    with h5py.File(path, "w") as file:
        mark(file.create_dataset("features", (2**44, *SHAPE), "<f2", chunks=CHUNK, fletcher32=True))


def unwritten_chunks(path: Path) -> None:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("features", FULL, "<f2", chunks=CHUNK, fletcher32=True)
        dataset[0] = 1
        mark(dataset)


def unchecked_chunks(path: Path) -> None:
    """Chunks whose mask says that the checksum was left out."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("features", FULL, "<f2", chunks=CHUNK, fletcher32=True)
        for image in range(2):
            for layer in range(len(LAYERS)):
                data = features_of(image)[layer].tobytes()
                dataset.id.write_direct_chunk((image, layer, 0, 0), data, filter_mask=1)
        mark(dataset)


def unknown_filter(path: Path) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(CHUNK)
    creation.set_fletcher32()
    creation.set_filter(UNKNOWN_FILTER, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    with h5py.File(path, "w") as file:
        space, kind = h5py.h5s.create_simple(FULL), h5py.h5t.py_create(np.dtype("<f2"))
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"features", kind, space, creation))
        dataset[...] = 1
        mark(dataset)


def gzip(path: Path) -> None:
    _dataset(path, compression="gzip")


def shuffle(path: Path) -> None:
    _dataset(path, shuffle=True)


def lzf(path: Path) -> None:
    _dataset(path, compression="lzf")


def szip(path: Path) -> None:
    if not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        pytest.skip("this HDF5 has no szip to make the file with")
    _dataset(path, compression="szip", fletcher32=False)


def no_checksum(path: Path) -> None:
    _dataset(path, fletcher32=False)


def contiguous(path: Path) -> None:
    _dataset(path, chunks=None, fletcher32=False)


def other_chunks(path: Path) -> None:
    _dataset(path, chunks=FULL)


def other_shape(path: Path) -> None:
    _dataset(path, shape=(2, 3, 25, 16))


def transposed(path: Path) -> None:
    _dataset(path, shape=(2, 3, 16, 24), chunks=(1, 1, 16, 24))


def other_dtype(path: Path) -> None:
    _dataset(path, dtype="<u2")


def big_endian(path: Path) -> None:
    _dataset(path, dtype=">f2")


def text_dtype(path: Path) -> None:
    with h5py.File(path, "w") as file:
        mark(file.create_dataset("features", FULL, h5py.string_dtype(), chunks=CHUNK))


def a_group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("features")


def a_loop(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = file["/"]


def a_type(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = np.dtype("<f2")


def something_beside(path: Path) -> None:
    write_sound(path)
    with h5py.File(path, "r+") as file:
        file.create_group("more")


def an_empty_file(path: Path) -> None:
    with h5py.File(path, "w"):
        pass


def no_hdf5(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04")


def no_attributes(path: Path) -> None:
    _dataset(path)
    with h5py.File(path, "r+") as file:
        for name in list(file["features"].attrs):
            del file["features"].attrs[name]


def text_attribute(path: Path) -> None:
    """Variable-length text, which would have to be parsed out of a heap."""
    _dataset(path)
    with h5py.File(path, "r+") as file:
        file["features"].attrs["key"] = make_key().digest


def newer_version(path: Path) -> None:
    _dataset(path)
    with h5py.File(path, "r+") as file:
        file["features"].attrs.create("version", np.array(2, "<i8"))


def images_swapped(path: Path) -> None:
    _dataset(path)
    with h5py.File(path, "r+") as file:
        file["features"].attrs.create("images", pack_digests([name_of(1), name_of(0)]))


HOSTILE: list[tuple[Callable[[Path], None], str]] = [
    (external_link, "links are not followed"),
    (soft_link, "exactly one object"),
    (lone_soft_link, "links are not followed"),
    (external_storage, "not chunked"),
    (virtual, "virtual"),
    (huge_shape, "its shape is"),
    (unwritten_chunks, "3 of 6 chunks"),
    (unchecked_chunks, "bytes of chunks"),
    (unknown_filter, "filters"),
    (gzip, "filters"),
    (shuffle, "filters"),
    (lzf, "filters"),
    (szip, "filters"),
    (no_checksum, "filters"),
    (contiguous, "not chunked"),
    (other_chunks, "its chunks are"),
    (other_shape, "its shape is|its chunks are"),
    (transposed, "its shape is|its chunks are"),
    (other_dtype, "its values are"),
    (big_endian, "its values are"),
    (text_dtype, "filters"),
    (a_group, "not a dataset"),
    (a_loop, "not a dataset"),
    (a_type, "not a dataset"),
    (something_beside, "exactly one object"),
    (an_empty_file, "exactly one object"),
    (no_hdf5, "cannot open"),
    (no_attributes, "attribute 'format' is missing"),
    (text_attribute, "attribute 'key'"),
    (newer_version, "attribute 'version'"),
    (images_swapped, "attribute 'images'"),
]


@pytest.mark.parametrize(("make", "reason"), HOSTILE, ids=[make.__name__ for make, _ in HOSTILE])
def test_a_hostile_file_is_refused(make: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    folder = plant(tmp_path / "store", make)
    ways: tuple[Verify, ...] = ("chunks", "shards")
    for verify in ways:
        with FeatureStore.open(folder, verify=verify) as store:
            with pytest.raises(CorruptError, match=reason):
                store.read(name_of(0), LAYERS)
            assert [item.file for item in store.verify().bad] == [store.shards[0].file]


def test_the_planted_file_would_be_read_if_it_were_sound(tmp_path: Path) -> None:
    folder = plant(tmp_path / "store", write_sound)
    with FeatureStore.open(folder) as store:
        assert store.verify().ok
        assert np.array_equal(store.read(name_of(1), LAYERS), features_of(1))
