"""Fusion of vision layers: against plain sums, one-hot rows bit for bit, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.runtime.fusion import fuse


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3), st.integers(1, 7), st.integers(1, 5))
def test_equals_the_weighted_sum_of_every_row(seed: int, layers: int, rows: int, tokens: int, width: int) -> None:
    """Own weights per row, strided layers, in float64; the input stays as it was."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, layers, tokens, width))
    weights = generator.dirichlet(np.ones(layers), size=rows)
    given_layers = torch.from_numpy(values).transpose(0, 1)
    before = given_layers.clone()
    found = fuse(given_layers, torch.from_numpy(weights))
    want = np.stack([sum(weights[b, i] * values[b, i] for i in range(layers)) for b in range(rows)])
    assert np.allclose(found.numpy(), want, rtol=0, atol=1e-12)
    assert torch.equal(given_layers, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_a_one_hot_row_is_its_layer_bit_for_bit(layers: int, dtype: torch.dtype) -> None:
    """Every layer in turn, beside a row that mixes all; magnitudes over the whole range of half precision."""
    generator = torch.Generator().manual_seed(layers)
    scale = torch.logspace(-4, 4, 11, dtype=torch.float64)
    values = (torch.randn(layers, 2, 11, 3, generator=generator, dtype=torch.float64) * scale[:, None]).to(dtype)
    for picked in range(layers):
        weights = torch.full((2, layers), 1 / layers)
        weights[0] = torch.nn.functional.one_hot(torch.tensor(picked), layers)
        found = fuse(values, weights)
        assert found.dtype == dtype
        assert torch.equal(found[0], values[picked, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """The sum runs in float32: rounding it is the only loss."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(5, 2, 9, 4, generator=generator).to(dtype)
    weights = torch.softmax(torch.randn(2, 5, generator=generator), dim=1)
    exact = torch.einsum("bl,lbnd->bnd", weights.double(), values.double())
    step = torch.finfo(dtype).eps
    assert ((fuse(values, weights).double() - exact).abs() <= 0.51 * step * exact.abs() + 1e-6).all()


def test_what_does_not_fit_is_refused() -> None:
    """Transposed weights, a missing batch axis, no layers at all."""
    with pytest.raises(ValueError, match="weights are"):
        fuse(torch.randn(4, 2, 6, 3), torch.ones(4, 2))
    with pytest.raises(ValueError, match="layers are"):
        fuse(torch.randn(4, 6, 3), torch.ones(6, 4))
    with pytest.raises(ValueError, match="layers are"):
        fuse(torch.randn(0, 2, 6, 3), torch.ones(2, 0))
