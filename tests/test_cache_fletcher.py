"""Our fletcher32 is HDF5's: the filter's own bytes, the definition, and what a checksum is for."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from claspkit.cache.fletcher import fletcher32

MANY = 2 * 1024 * (1 << 14)  # bytes of a step of the sum


def by_hdf5(data: NDArray[np.uint8]) -> int:
    """The four bytes that HDF5 itself puts behind a chunk."""
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("x", data=data, chunks=data.shape, fletcher32=True)
        _, chunk = dataset.id.read_direct_chunk((0,))
        assert chunk[:-4] == data.tobytes()
        return int.from_bytes(chunk[-4:], "little")


def by_definition(data: bytes) -> int:
    """Word by word, as HDF5's documentation of the checksum has it."""
    first = second = 0
    for word in (int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2)):
        first += word
        second += first
    return (second and (second - 1) % 65535 + 1) << 16 | (first and (first - 1) % 65535 + 1)


@given(st.binary(min_size=1, max_size=5000))
def test_any_bytes(data: bytes) -> None:
    """Even and odd lengths, shorter and longer than a row."""
    array = np.frombuffer(data, np.uint8)
    assert fletcher32(array) == by_definition(data) == by_hdf5(array)


@pytest.mark.parametrize("size", [1, 2, 3, 719, 720, 721, 2047, 2048, 2049, 4096, 123457])
@pytest.mark.parametrize("fill", [0, 1, 255])
def test_constant_bytes(size: int, fill: int) -> None:
    """All zero and all one bits, where sums are multiples of the modulus, around the lengths at which things change."""
    data = np.full(size, fill, np.uint8)
    assert fletcher32(data) == by_hdf5(data)


@pytest.mark.parametrize("shape", [(576, 1024), (5184, 1280), (49, 64), (144, 3)])
def test_chunks_of_features(shape: tuple[int, int]) -> None:
    """Chunks of real sizes in every storage dtype; those of Qwen2.5-VL take several steps."""
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    for chunk in (values, values.astype(np.float16), (values * 40).astype(np.int8)):
        assert fletcher32(chunk) == by_hdf5(chunk.reshape(-1).view(np.uint8))


@pytest.mark.parametrize("size", [MANY - 1, MANY, MANY + 2, 2 * MANY + 77])
def test_sums_of_several_steps(size: int) -> None:
    """The largest sums that there are, around the border between two steps."""
    data = np.full(size, 255, np.uint8)
    data[::101] = 7
    assert fletcher32(data) == by_hdf5(data)


@given(st.data())
def test_a_flipped_bit_is_seen(data: st.DataObject) -> None:
    """Any single bit of any chunk, and two different words changing places."""
    array = np.random.default_rng(1).integers(0, 256, data.draw(st.integers(2, 9000)), dtype=np.uint8)
    before: Any = fletcher32(array)
    at, bit = data.draw(st.integers(0, array.size - 1)), data.draw(st.integers(0, 7))
    array[at] ^= 1 << bit
    assert fletcher32(array) != before
