"""Selection against the float64 loops, known answers, and the corner cases of method.md."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_cases import FORMS, as_lists, similarity
from selection_reference import reference_select

from claspkit.runtime.selection import cosine_gram, select, split_budget


def run(saliency: np.ndarray, features: np.ndarray, keep: int, pivots: list[int]) -> list[tuple[list[int], list[int]]]:
    """Select a batch and return (kept, pivots) per sample as lists; a Gram tensor and both forms have to agree."""
    weight, vectors = torch.from_numpy(saliency), torch.from_numpy(features)
    found = as_lists(select(weight, cosine_gram(vectors), keep, pivots))
    for form in FORMS:
        assert as_lists(select(weight, similarity(form, vectors), keep, pivots)) == found
    return found


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(3, 8), st.integers(1, 3), st.data())
def test_equals_the_loops_in_float64(seed: int, tokens: int, width: int, rows: int, data: st.DataObject) -> None:
    """Same kept set and same pivots, for every batch of random features with its own split per row."""
    generator = np.random.default_rng(seed)
    saliency, features = generator.random((rows, tokens)), generator.normal(size=(rows, tokens, width))
    keep = data.draw(st.integers(1, tokens))
    pivots = data.draw(st.lists(st.integers(0, keep), min_size=rows, max_size=rows))
    assert run(saliency, features, keep, pivots) == [
        reference_select(saliency[row], features[row], keep, pivots[row]) for row in range(rows)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.sampled_from(FORMS), st.data())
def test_keeps_exactly_the_budget_with_ties_everywhere(seed: int, tokens: int, form: str, data: st.DataObject) -> None:
    """Duplicate tokens, zero tokens, equal saliency: exactly R distinct tokens, ascending, all pivots among them."""
    generator = np.random.default_rng(seed)
    features = generator.integers(-1, 2, size=(1, tokens, 2)).astype(float)
    saliency = generator.integers(0, 2, size=(1, tokens)).astype(float)
    keep = data.draw(st.integers(1, tokens))
    pivots = data.draw(st.integers(0, keep))
    similar = similarity(form, torch.from_numpy(features))
    ((kept, chosen),) = as_lists(select(torch.from_numpy(saliency), similar, keep, [pivots]))
    assert len(kept) == keep
    assert kept == sorted(set(kept))
    assert len(chosen) == (pivots if keep < tokens else 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_and_strides(dtype: torch.dtype, form: str) -> None:
    """Half-precision and non-contiguous input select what their float32 values select."""
    features = torch.randn(16, 2, 8, generator=torch.Generator().manual_seed(3)).to(dtype).transpose(0, 1)
    saliency = torch.rand(16, 2, generator=torch.Generator().manual_seed(4)).to(dtype).T
    got = select(saliency, similarity(form, features), 7, [3, 4])
    want = select(saliency.float().contiguous(), cosine_gram(features.float().contiguous()), 7, [3, 4])
    assert torch.equal(got.kept, want.kept)
    assert torch.equal(got.pivot, want.pivot)


def test_a_row_does_not_depend_on_its_batch() -> None:
    """Splits of the neighbours change the number of slots, never this row's result."""
    generator = np.random.default_rng(5)
    saliency, features = generator.random((3, 20)), generator.normal(size=(3, 20, 4))
    together = run(saliency, features, 9, [9, 4, 0])
    assert together == [run(saliency[i : i + 1], features[i : i + 1], 9, [p])[0] for i, p in enumerate([9, 4, 0])]


@pytest.mark.parametrize("form", FORMS)
def test_only_the_order_of_saliency_counts(form: str) -> None:
    """Shifted below zero it selects the same; and a negative cosine with its own centre is a member's like any."""
    generator = torch.Generator().manual_seed(13)
    saliency, features = torch.rand(2, 30, generator=generator), torch.randn(2, 30, 4, generator=generator)
    want = select(saliency, similarity(form, features), 12, [5, 0])
    found = select(saliency - 7, similarity(form, features), 12, [5, 0])
    assert torch.equal(found.kept, want.kept)
    # Two opposites in one cluster: their sum vanishes, so the centre stays on the seed.
    away = np.array([[[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]])
    assert run(np.array([[0.9, 0.1, 0.2]]), away, 2, [1]) == [([0, 1], [0])]


def test_known_answer() -> None:
    """One pivot, three tokens around another direction: completion takes the middle one, salient or not."""
    features = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.1], [0.0, 1.0, 0.0], [0.0, 1.0, -0.1]]])
    saliency = np.array([[0.9, 0.5, 0.1, 0.5]])
    assert run(saliency, features, 2, [1]) == [([0, 2], [0])]


def test_two_member_tie_goes_to_saliency() -> None:
    """Both members of a pair are equally near their mean; the more salient one is kept."""
    features = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.2], [0.0, 1.0, -0.2]]])
    assert run(np.array([[0.9, 0.1, 0.3]]), features, 2, [1]) == [([0, 2], [0])]
    assert run(np.array([[0.9, 0.3, 0.1]]), features, 2, [1]) == [([0, 1], [0])]


def test_identical_tokens_leave_all_but_one_cluster_empty() -> None:
    """Every cosine is 1: one cluster, its most salient token; the empty slots go to the lowest indices."""
    features = np.ones((1, 6, 4))  # of norm 2: exact in binary
    saliency = np.array([[0.9, 0.1, 0.2, 0.1, 0.8, 0.3]])
    assert run(saliency, features, 4, [1]) == [([0, 1, 2, 4], [0])]
    assert run(saliency, features, 4, [0]) == [([0, 1, 2, 3], [])]
    assert run(np.full((1, 6), 0.5), features, 3, [2]) == [([0, 1, 2], [0, 1])]


def test_zero_tokens_resemble_nothing() -> None:
    """Alone they tie; as the seed of a cluster with one real member the centre turns to that member."""
    zeros = np.array([[[1.0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]])
    assert run(np.array([[0.9, 0.1, 0.3, 0.2]]), zeros, 2, [1]) == [([0, 2], [0])]
    assert run(np.array([[0.9, 0.3, 0.3, 0.2]]), zeros, 2, [1]) == [([0, 1], [0])]
    mixed = np.array([[[1.0, 0, 0], [0, 0, 0], [0.9, 0.1, 0], [0, 0, 0]]])
    assert run(np.array([[0.9, 0.8, 0.1, 0.7]]), mixed, 2, [1]) == [([0, 2], [0])]


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
def test_all_but_one(rho: float) -> None:
    """N - 1 of N at every split, down to one of two; one of one is all."""
    generator = np.random.default_rng(6)
    for tokens in range(2, 9):
        saliency, features = generator.random((1, tokens)), generator.normal(size=(1, tokens, 5))
        pivots = split_budget(rho, tokens - 1)
        want = reference_select(saliency[0], features[0], tokens - 1, pivots)
        assert run(saliency, features, tokens - 1, [pivots]) == [want]
    assert run(np.ones((1, 1)), np.ones((1, 1, 3)), 1, [1]) == [([0], [])]


@pytest.mark.parametrize("iterations", [0, 1, 2, 9])
def test_the_number_of_rounds_is_honoured(iterations: int) -> None:
    """As the loops with so many rounds; without any, the seeds themselves are kept."""
    generator = np.random.default_rng(9)
    saliency, features = generator.random((1, 40)), generator.normal(size=(1, 40, 3))
    want = reference_select(saliency[0], features[0], 15, 4, iterations)
    for form in FORMS:
        similar = similarity(form, torch.from_numpy(features))
        found = select(torch.from_numpy(saliency), similar, 15, [4], iterations=iterations)
        assert as_lists(found) == [want]


@pytest.mark.parametrize(
    ("rho", "keep", "pivots"), [(0.7, 5, 4), (0.3, 5, 2), (0.0, 9, 0), (1.0, 9, 9), (0.29, 50, 15)]
)
def test_split_rounds_halves_up(rho: float, keep: int, pivots: int) -> None:
    """floor(rho R + 1/2), also where the float product falls just short of a half."""
    assert split_budget(rho, keep) == pivots


def test_refuses_what_does_not_fit() -> None:
    """Counts and shapes that cannot be."""
    gram = cosine_gram(torch.randn(1, 4, 3))
    with pytest.raises(ValueError, match="pivot counts in"):
        select(torch.rand(1, 4), gram, 2, [3])
    with pytest.raises(ValueError, match="pivot counts in"):
        select(torch.rand(1, 4), gram, 0, [0])
    with pytest.raises(ValueError, match="gram is"):
        select(torch.rand(1, 5), gram, 2, [1])
    with pytest.raises(ValueError, match="gram is 4 tokens"):
        select(torch.rand(1, 5), similarity("direct", torch.randn(1, 4, 3)), 2, [1])
    with pytest.raises(ValueError, match="2 budgets"):
        select(torch.rand(1, 4), gram, [2, 2], [1])
    with pytest.raises(ValueError, match=r"valid is \(4,\)"):
        select(torch.rand(1, 4), gram, 2, [1], valid=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="rho"):
        split_budget(1.2, 3)
