"""Saliency and fusion against what the model itself computes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import GRID, IMAGE_TOKEN, tiny_batch, tiny_llava

from claspkit.profiles.profile import softmax_weights
from claspkit.runtime.families import find_family
from claspkit.runtime.fusion import fuse
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.saliency import mean_attention

VISUAL = GRID * GRID


@pytest.mark.parametrize("saliency", ["text", "last"])
@pytest.mark.parametrize("layer", [1, 3])
def test_pivots_are_the_top_of_the_models_own_attention(layer: int, saliency: str) -> None:
    """With rho = 1 a stage keeps the visual tokens that the eager model's attention map ranks highest."""
    lengths = [3, 8, 5]
    model, batch = tiny_llava("eager"), tiny_batch(lengths)
    with torch.no_grad():
        maps = model(**batch, output_attentions=True).attentions[layer]  # (B, heads, S, S)
        plan = PrunePlan(((layer, 9),), (RowPlan((3,), (1.0,), 1.0),) * 3, saliency)
        with apply_plan(model, find_family(model), plan) as stages:
            model(**batch)
            (trace,) = stages.last
    for row, length in enumerate(lengths):
        visual = (batch["input_ids"][row] == IMAGE_TOKEN).nonzero()[:, 0]
        rows = maps[row].mean(0)[-length:] if saliency == "text" else maps[row].mean(0)[-1:]
        top = rows.mean(0)[visual].topk(9).indices.sort().values
        assert torch.equal(trace.kept[row], top)
        assert trace.pivot[row].all()


def test_rows_outside_the_reference_set_do_not_count() -> None:
    """Only reference rows enter the mean, and nothing is seen that may not be seen."""
    query, key = torch.randn(1, 2, 3, 4), torch.randn(1, 1, 5, 4)
    visible = torch.tensor([[[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]]).bool()
    found = mean_attention(query, key, visible, torch.tensor([[False, True, False]]), 0.5)
    logits = (query[0, :, 1] @ key[0, 0, :4].T) * 0.5
    assert torch.allclose(found[0, :4], logits.softmax(-1).mean(0), atol=1e-6)
    assert found[0, 4] == 0


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0.01, 20))
def test_fusion_weights_are_on_the_simplex_and_ordered(scores: list[float], tau: float) -> None:
    """Eq. 8: positive, summing to one, larger for the larger score."""
    weights = softmax_weights(scores, tau)
    assert sum(weights) == pytest.approx(1)
    assert all(weight >= 0 for weight in weights)
    assert sorted(range(len(scores)), key=scores.__getitem__) == sorted(
        range(len(scores)), key=lambda i: (weights[i], scores[i], i)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_one_hot_row_returns_its_layer_bit_for_bit(dtype: torch.dtype) -> None:
    """Also in a batch whose rows pick different layers."""
    layers = torch.randn(3, 2, 5, 4).to(dtype)
    fused = fuse(layers, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert torch.equal(fused[0], layers[1, 0])
    assert torch.equal(fused[1], layers[2, 1])


def test_fusion_stays_in_the_convex_hull_and_refuses_odd_shapes() -> None:
    """Eq. 9, and an error instead of broadcasting."""
    layers = torch.rand(4, 2, 6, 3)
    weights = torch.softmax(torch.randn(2, 4), dim=1)
    fused = fuse(layers, weights)
    assert (fused <= layers.amax(0) + 1e-6).all()
    assert (fused >= layers.amin(0) - 1e-6).all()
    with pytest.raises(ValueError, match="weights are"):
        fuse(layers, weights.T)
