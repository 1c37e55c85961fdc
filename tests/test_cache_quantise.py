"""Eight-bit features: how far they are off, and that nothing is off where it need not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from feature_stores import LAYERS, SHAPE, fill, make_key, name_of, plant, varied_features
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from claspkit.cache import FeatureStore
from claspkit.cache.chunks import ImageWriter
from claspkit.cache.layout import FLETCHER32_BYTES, create_dataset, finish_dataset, image_bytes
from claspkit.cache.quantise import are_scales, quantise, restore
from claspkit.profiles.errors import BadDataError, CorruptError

HALVES = arrays.arrays(
    np.float16,
    st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 4)),
    elements=st.floats(width=16, allow_nan=False, allow_infinity=False),
)


def restored(values: Any, scales: Any) -> Any:
    """All layers."""
    out = np.empty(values.shape, np.float16)
    for layer in range(len(values)):
        restore(values[layer], scales[layer], out[layer])
    return out


def test_known_values() -> None:
    """A channel up to 127 / 64 has steps of 1 / 64, another its own; one of zeros stays zeros, with scale 1."""
    features = np.array([[[127, 0, -1016], [-3, 0, 20], [0.75, 0, 19]]], np.float16) / np.float16(64)
    values, scales = quantise(features)
    assert values.tolist() == [[[127, 0, -127], [-3, 0, 2], [1, 0, 2]]]  # 20 / 8 goes to the even one of 2 and 3
    assert scales.tolist() == [[1 / 64, 1, 1 / 8]]


@settings(max_examples=300, deadline=None)
@given(HALVES)
def test_off_by_half_a_step_at_most_and_not_at_the_largest(features: Any) -> None:
    """|x - x~| <= s / 2 and one rounding to float16; the largest of a channel is exact; never NaN or infinity."""
    values, scales = quantise(features)
    assert values.min() >= -127
    assert are_scales(scales)
    back = restored(values, scales)
    exact = features.astype(np.float64)
    step = scales[:, None, :].astype(np.float64)
    rounding = np.spacing(np.abs(features)).astype(np.float64)
    assert (np.abs(back.astype(np.float64) - exact) <= step * (0.5 + 1e-5) + rounding).all()
    top = np.abs(features) == np.abs(features).max(axis=1, keepdims=True)
    assert np.array_equal(back[top], features[top])


@settings(max_examples=300, deadline=None)
@given(HALVES)
def test_what_was_read_can_be_stored_again(features: Any) -> None:
    """Compaction reads and writes again: the values stay."""
    once = restored(*quantise(features))
    assert np.array_equal(restored(*quantise(once)), once)


def test_the_largest_float16_survives() -> None:
    """127 steps of the largest scale round to 65504, not to infinity."""
    features = np.full((1, 2, 1), 65504, np.float16)
    assert restored(*quantise(features)).tolist() == [[[65504.0], [65504.0]]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0, 516.0])
def test_what_is_no_scale(bad: float) -> None:
    """NaN, infinity, zero, negative, and what would leave float16."""
    assert are_scales(np.array([1e-9, 515.0], np.float32))
    assert not are_scales(np.array([1.0, bad], np.float32))


def test_half_the_bytes_and_the_layout(tmp_path: Path) -> None:
    """Values and scales with the documented shapes, types, chunks and checksums."""
    fill(tmp_path, range(3), dtype="int8")
    with FeatureStore.open(tmp_path) as store, h5py.File(tmp_path / store.shards[0].file) as file:
        assert set(file) == {"features", "scales"}
        assert (file["features"].dtype, file["scales"].dtype) == (np.int8, np.dtype("<f4"))
        assert (file["features"].chunks, file["scales"].chunks) == ((1, 1, *SHAPE[1:]), (1, 1, SHAPE[2]))
        assert file["features"].fletcher32
        assert file["scales"].fletcher32
        assert dict(file["features"].attrs)["version"] == 2
    values = SHAPE[1] * SHAPE[2]
    assert image_bytes(make_key("int8")) == 3 * (values + FLETCHER32_BYTES + 4 * SHAPE[2] + FLETCHER32_BYTES)


def test_nan_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    """As in every other dtype."""
    bad = np.zeros(SHAPE, np.float16)
    bad[1, 2, 3] = np.nan
    with FeatureStore.open(tmp_path, make_key("int8"), write=True) as store:
        with store.writer() as writer:
            with pytest.raises(BadDataError, match="NaN"):
                writer.add(name_of(0), bad)
            writer.add(name_of(1), varied_features(1, SHAPE[1], "int8"))
        assert np.array_equal(store.read(name_of(1), LAYERS[::-1]), varied_features(1, SHAPE[1], "int8")[::-1])


KEY = make_key("int8")


def sound(path: Path) -> None:
    """A shard as we write it, to damage."""
    with h5py.File(path, "w") as file:
        dataset = create_dataset(file, KEY)
        for image in range(2):
            ImageWriter(dataset).append(varied_features(image, SHAPE[1], "int8"))
        finish_dataset(dataset, [name_of(0), name_of(1)])


def _replaced(path: Path, **options: Any) -> None:
    sound(path)
    with h5py.File(path, "r+") as file:
        old = file["scales"][:]
        del file["scales"]
        shape = options.pop("shape", old.shape)
        made = {"chunks": (1, 1, SHAPE[2]), "fletcher32": True, "dtype": "<f4"} | options
        data = None if shape != old.shape else old
        file.create_dataset("scales", shape=shape, data=data, **made)


def no_scales(path: Path) -> None:
    """The second dataset is missing."""
    sound(path)
    with h5py.File(path, "r+") as file:
        del file["scales"]


def linked_scales(path: Path) -> None:
    """It is a link."""
    no_scales(path)
    with h5py.File(path, "r+") as file:
        file["scales"] = h5py.ExternalLink("/etc/passwd", "x")


def one_more(path: Path) -> None:
    """There is a third."""
    sound(path)
    with h5py.File(path, "r+") as file:
        file["more"] = 1


def a_bad_scale(path: Path) -> None:
    """A scale is NaN; the rest is in order."""
    sound(path)
    with h5py.File(path, "r+") as file:
        file["scales"][0, 0, 0] = np.nan


def float_values(path: Path) -> None:
    """The values are not eight-bit."""
    sound(path)
    with h5py.File(path, "r+") as file:
        old = file["features"]
        attrs = dict(old.attrs)
        del file["features"]
        new = file.create_dataset(
            "features", data=np.zeros((2, *SHAPE), "<f2"), chunks=(1, 1, *SHAPE[1:]), fletcher32=True
        )
        for name, value in attrs.items():
            new.attrs.create(name, value)


HOSTILE = [
    (no_scales, "exactly the objects 'features', 'scales'"),
    (linked_scales, "links are not followed"),
    (one_more, "exactly the objects"),
    (lambda path: _replaced(path, fletcher32=False), "scales' filters"),
    (lambda path: _replaced(path, compression="gzip"), "scales' filters"),
    (lambda path: _replaced(path, chunks=(2, 1, SHAPE[2])), "scales' chunks"),
    (lambda path: _replaced(path, dtype="<f8"), "scales' values"),
    (lambda path: _replaced(path, shape=(2, 3, 99)), "scales' shape"),
    (lambda path: _replaced(path, shape=(1 << 40, 3, SHAPE[2])), "scales' shape"),
    (float_values, "its values are"),
    (a_bad_scale, "are not those of float16"),
]


@pytest.mark.parametrize(("make", "reason"), HOSTILE)
def test_a_hostile_second_dataset_is_refused(make: Any, reason: str, tmp_path: Path) -> None:
    """Whatever is wrong with the scales is damage, said before a value of them is used."""
    folder = plant(tmp_path / "s", make, key=KEY, checksums=False)
    with FeatureStore.open(folder) as store, pytest.raises(CorruptError, match=reason):
        store.read(name_of(0), LAYERS)


def test_the_sound_one_is_read(tmp_path: Path) -> None:
    """What the hostile ones are made from is in order."""
    with FeatureStore.open(plant(tmp_path / "s", sound, key=KEY)) as store:
        assert np.array_equal(store.read(name_of(1), LAYERS), varied_features(1, SHAPE[1], "int8"))
