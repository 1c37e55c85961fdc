"""Small feature stores with known contents: what the tests of ``cache`` share."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from claspkit.cache import FeatureKey, FeatureStore
from claspkit.cache.fletcher import fletcher32
from claspkit.cache.layout import MANIFEST, image_bytes, storage_dtype, store_version
from claspkit.cache.manifest import ShardEntry, store_record
from claspkit.cache.quantise import quantise
from claspkit.profiles.records import RecordLog

LAYERS = (0, 2, 5)
SHAPE = (len(LAYERS), 24, 16)


def make_key(dtype: str = "float16", **changes: Any) -> FeatureKey:
    """The key of all stores here: three layers of 24 tokens and 16 channels."""
    fields: dict[str, Any] = {
        "model_id": "test",
        "revision": None,
        "fingerprint": "0" * 64,
        "processor_sha256": "1" * 64,
        "image_backend": "pil",
        "dtype": dtype,
        "layers": LAYERS,
        "tokens": SHAPE[1],
        "width": SHAPE[2],
    }
    return FeatureKey(**{**fields, **changes})


def name_of(image: int) -> str:
    """The digest that stands for picture number ``image``."""
    return hashlib.sha256(f"picture {image}".encode()).hexdigest()


def features_of(image: int, dtype: str = "float16") -> Any:
    """The (3, 24, 16) features of a picture in storage dtype, finite, the same at every call; exact in any dtype."""
    return varied_features(image, SHAPE[1], dtype)


def varied_features(image: int, tokens: int, dtype: str = "float16") -> Any:
    """As :func:`features_of`, with so many tokens."""
    shape = (SHAPE[0], tokens, SHAPE[2])
    values = np.random.default_rng(image).standard_normal(shape).astype("<f4")
    if dtype == "int8":
        values = np.rint(values * 30).clip(-127, 127) / 64  # with a largest of 127 / 64 every channel's scale is 1 / 64
        values[:, image % tokens] = 127 / 64
    if dtype == "bfloat16":
        return (values.view("<u4") >> 16).astype("<u2")
    return values.astype(storage_dtype(dtype))


def shard_size(images: int) -> int:
    """The ``shard_bytes`` that puts ``images`` pictures into each shard."""
    return image_bytes(make_key()) * images


def fill(folder: Path, images: Iterable[int], per_shard: int = 4, dtype: str = "float16") -> None:
    """Add those of ``images`` that the store in ``folder`` lacks."""
    with FeatureStore.open(folder, make_key(dtype), write=True) as store:
        missing = set(store.missing(name_of(image) for image in images))
        with store.writer(shard_bytes=shard_size(per_shard), expected=len(missing)) as writer:
            for image in images:
                if name_of(image) in missing:
                    writer.add(name_of(image), features_of(image, dtype))


def assert_holds(folder: Path, images: Sequence[int], dtype: str = "float16") -> None:
    """The store holds exactly these pictures, their right values, sound shards and no leftovers."""
    with FeatureStore.open(folder, make_key(dtype)) as store:
        report = store.verify()
        assert report.ok
        assert report.strangers == ()
        assert set(store.digests) == {name_of(image) for image in images}
        for image in images:
            assert np.array_equal(store.read(name_of(image), LAYERS), features_of(image, dtype))
        expected = {MANIFEST, MANIFEST + ".lock", *(entry.file for entry in store.shards)}
    assert {path.name for path in folder.iterdir()} == expected


def copy_of(folder: Path, name: str) -> Path:
    """A second copy of a store, to damage; an older one of that name is replaced."""
    target = folder.with_name(name)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return target


def checksums_of(features: Any, quantised: bool = False) -> bytes:
    """What the manifest holds for one picture in storage dtype, float16 to be quantised or not."""
    parts = quantise(features) if quantised else (features,)
    return b"".join(fletcher32(part[layer]).to_bytes(4, "little") for layer in range(len(features)) for part in parts)


def plant(
    folder: Path,
    make: Callable[[Path], None],
    images: int = 2,
    key: FeatureKey | None = None,
    checksums: bool = True,
) -> Path:
    """A store whose manifest vouches, rightly by size and SHA-256, for one shard that ``make`` builds.

    This is what an attacker can hand over: everything fits but what is inside the file. The checksums of the chunks
    are those of the right values, or there are none.
    """
    key, name = key or make_key(), "shard-000000-0badf00d.h5"
    folder.mkdir()
    path = folder / name
    make(path)
    with path.open("ab") as file:  # HDF5 does not mind bytes after its end; the manifest demands a plausible size
        file.write(b"\0" * max(0, image_bytes(key) * images - path.stat().st_size))
    data = path.read_bytes()
    digests = tuple(name_of(image) for image in range(images))
    grids = ((),) * images if store_version(key) > 1 else ()
    sha256 = hashlib.sha256(data).hexdigest()
    right = [features_of(image, key.dtype) for image in range(images)] if checksums else []
    listed = b"".join(checksums_of(features, key.dtype == "int8") for features in right)
    entry = ShardEntry(name, sha256, len(data), digests, (images, *SHAPE), grids, listed)
    with RecordLog(folder / MANIFEST) as log:
        log.append([store_record(key), entry.to_record()])
    return folder
