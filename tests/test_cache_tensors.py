"""Tensors to stored arrays and back: rounding once, no copy on the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from claspkit.cache import DTYPES
from claspkit.cache.layout import all_finite, storage_dtype
from claspkit.cache.tensors import to_stored, to_tensor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_round_trip_rounds_once(dtype: str, source: torch.dtype) -> None:
    values = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(source)
    stored = to_stored(values.transpose(0, 2), dtype)
    assert stored.dtype == storage_dtype(dtype)
    assert stored.flags.c_contiguous
    back = to_tensor(stored, dtype)
    handed = "float16" if dtype == "int8" else dtype  # eight bits exist in the file only
    assert torch.equal(back, values.transpose(0, 2).to(getattr(torch, handed)))


def test_every_bfloat16_pattern_survives() -> None:
    patterns = np.arange(1 << 16, dtype="<u2")
    assert np.array_equal(to_stored(to_tensor(patterns, "bfloat16"), "bfloat16"), patterns)


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 16), ("bfloat16", 16), ("int8", 16)])
def test_every_pattern_is_judged_as_torch_does(dtype: str, bits: int) -> None:
    patterns = np.arange(1 << bits, dtype="<u2").view(storage_dtype(dtype))
    finite = torch.isfinite(to_tensor(patterns, dtype)).tolist()
    assert [all_finite(patterns[i : i + 1], dtype) for i in range(1 << bits)] == finite


def test_another_storage_is_refused() -> None:
    with pytest.raises(ValueError, match="stored as"):
        to_tensor(np.zeros(3, "<f2"), "bfloat16")
