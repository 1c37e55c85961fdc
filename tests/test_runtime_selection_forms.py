"""Cosines in Gram space and as unit vectors: the same answers, and the rule that picks between them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_cases import FORMS, as_lists, similarity

from claspkit.runtime.cosines import DirectCosines, GramCosines, StageWork, cosines, gram_is_cheaper
from claspkit.runtime.gram import (
    cosine_gram,
    gather_rows,
    gram_matrix,
    membership,
    sums_by_addition,
    sums_by_product,
    symmetric_product,
    unit_vectors,
)
from claspkit.runtime.selection import select, split_budget

LISTS = {(300, 200, 118): GramCosines, (66, 34, 20): DirectCosines}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def schedule(tokens: int, keeps: tuple[int, ...], rho: float) -> list[StageWork]:
    """The work of a schedule."""
    alive = (tokens, *keeps[:-1])
    return [StageWork(n, keep, split_budget(rho, keep)) for n, keep in zip(alive, keeps, strict=True)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2), st.integers(1, 420), st.integers(1, 9))
def test_the_banded_product_is_the_product_and_symmetric(seed: int, batch: int, tokens: int, width: int) -> None:
    """Also where the last band is narrow; in float64 to the last bits."""
    rows = torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = symmetric_product(rows)
    assert torch.allclose(found, torch.einsum("bnd,bmd->bnm", rows, rows), rtol=0, atol=1e-13)
    assert torch.equal(found, found.transpose(1, 2)) or tokens < 192


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_both_forms_hold_the_cosines(device: str, dtype: torch.dtype) -> None:
    """To 1e-6 of the cosines in float64, for any dtype of the features, strided, with lengths from 1e-3 to 1e3."""
    generator = torch.Generator().manual_seed(8)
    length = torch.logspace(-3, 3, 250)[:, None]
    features = (torch.randn(2, 250, 40, generator=generator) * length).to(device, dtype)
    want = torch.nn.functional.normalize(features.double(), dim=2)
    gram, finite = gram_matrix(features.transpose(1, 2).contiguous().transpose(1, 2))
    units, units_finite = unit_vectors(features)
    assert gram.dtype == units.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert finite.all()
    assert units_finite.all()
    assert torch.allclose(gram.double(), want @ want.transpose(1, 2), rtol=0, atol=1e-6)
    assert torch.allclose(units.double(), want, rtol=0, atol=1e-6)
    assert torch.equal(gram, cosine_gram(features))


def test_a_token_without_direction_has_no_cosine() -> None:
    """Zero, and padding whatever it holds."""
    features = torch.randn(1, 5, 3)
    features[0, 1] = 0
    features[0, 2] = torch.inf
    valid = torch.tensor([[True, True, False, True, True]])
    gram, finite = gram_matrix(features, valid)
    units, units_finite = unit_vectors(features, valid)
    assert finite.item() is units_finite.item() is True
    for blank in (1, 2):
        assert not gram[0, blank].any()
        assert not gram[0, :, blank].any()
        assert not units[0, blank].any()
    assert gram[0, 3, 3] == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 30), st.integers(1, 8), st.integers(1, 5))
def test_sums_per_cluster_are_the_same_by_addition_and_by_product(
    seed: int, batch: int, tokens: int, clusters: int, columns: int
) -> None:
    """The accelerator's form is the processor's; tokens of no cluster are in no sum, empty clusters are 0."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-9, 10, (batch, tokens, columns), generator=generator).double()
    cluster = torch.randint(0, clusters + 1, (batch, tokens), generator=generator)
    want = torch.zeros(batch, clusters, columns, dtype=torch.float64)
    for b in range(batch):
        for i in range(tokens):
            if cluster[b, i] < clusters:
                want[b, cluster[b, i]] += rows[b, i]
    assert torch.equal(sums_by_addition(rows, cluster, clusters), want)
    assert torch.equal(sums_by_product(rows, membership(cluster, clusters, rows.dtype)), want)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
def test_the_accelerators_form_keeps_the_same_tokens(
    device: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums as products instead of additions, run here on the processor by swapping them in."""
    generator = torch.Generator().manual_seed(21)
    features = torch.randn(3, 60, 6, generator=generator, dtype=torch.float64)
    saliency = torch.rand(3, 60, generator=generator, dtype=torch.float64)
    want = select(saliency, similarity(form, features), [20, 31, 7], [4, 0, 7])

    def as_product(rows: torch.Tensor, cluster: torch.Tensor, clusters: int) -> torch.Tensor:
        return sums_by_product(rows, membership(cluster, clusters, rows.dtype))

    monkeypatch.setattr("claspkit.runtime.cosines.sums_by_addition", as_product)
    found = select(saliency.to(device), similarity(form, features.to(device)), [20, 31, 7], [4, 0, 7])
    assert as_lists(found) == as_lists(want)


def test_rows_are_gathered_per_sample() -> None:
    """As torch.gather along the tokens, also from strided rows."""
    rows = torch.randn(6, 3, 4).transpose(0, 1)
    places = torch.tensor([[0, 5], [3, 3], [1, 0]])
    assert torch.equal(gather_rows(rows, places), rows.gather(1, places[:, :, None].expand(-1, -1, 4)))


@pytest.mark.parametrize("valid", [None, torch.tensor([[True] * 5 + [False] * 4] * 2)])
def test_the_answers_of_both_forms_agree(valid: torch.Tensor | None) -> None:
    """Nearest, mean, first cosines and those after a round, and the same for survivors."""
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    gram, direct = (similarity(form, features, valid) for form in FORMS)
    assert gram.tokens == direct.tokens == 9
    places = torch.tensor([[0, 3, 3], [4, 1, 0]])
    assert torch.allclose(gram.nearest(places), direct.nearest(places))
    assert torch.allclose(gram.mean(valid), direct.mean(valid))
    cluster = torch.tensor([[0, 1, 3, 1, 0, 3, 3, 3, 3], [3, 3, 3, 2, 2, 2, 3, 3, 3]])
    for one, other in ((gram, direct), (gram.take(places, []), direct.take(places, []))):
        first, second = (form.centres(torch.tensor([[0, 1, 2], [1, 2, 0]])) for form in (one, other))
        assert torch.allclose(first.cosines(), second.cosines())
        moved = cluster[:, : one.tokens]
        assert torch.allclose(first.recentred(moved, 1e-6).cosines(), second.recentred(moved, 1e-6).cosines())


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_or_vanishing_cluster_keeps_its_centre(form: str) -> None:
    """Opposite members cancel, but for 9e-8 of squared norm; a cluster nobody is in stays; the third moves."""
    features = torch.tensor([[[1.0, 0.0], [-1.0, 3e-4], [0.0, 1.0], [0.6, 0.8]]])
    centres = similarity(form, features).centres(torch.tensor([[0, 2, 3]]))
    moved = centres.recentred(torch.tensor([[0, 0, 2, 2]]), 1e-6)
    assert torch.equal(moved.cosines()[:, :2], centres.cosines()[:, :2])
    middle = torch.tensor([0.6, 1.8]) / torch.tensor([0.6, 1.8]).norm()
    assert torch.allclose(moved.cosines()[0, 2], features[0] @ middle)


@pytest.mark.parametrize(("keeps", "first"), list(LISTS.items()))
def test_the_rule_on_published_schedules(keeps: tuple[int, ...], first: type) -> None:
    """A third of the tokens pays for the Gram matrix at once; a ninth does from its second stage on."""
    work = schedule(576, keeps, 0.7)
    similar = cosines(torch.randn(1, 576, 16), work)
    assert type(similar) is first
    assert type(similar.take(torch.arange(keeps[0])[None], work[1:])) is GramCosines


@given(st.integers(2, 3000), st.integers(1, 6000), st.integers(0, 20), st.data())
def test_the_rule_compares_the_two_costs(tokens: int, width: int, rounds: int, data: st.DataObject) -> None:
    """2 n^2 D against p + (T+1) m + T products per token; the width is on both sides."""
    keep = data.draw(st.integers(1, tokens))
    pivots = data.draw(st.integers(0, keep))
    found = gram_is_cheaper(width, [StageWork(tokens, keep, pivots)], rounds)
    busy = keep < tokens and pivots < keep
    assert found == (busy and tokens <= max(pivots, 2) + (rounds + 1) * (keep - pivots) + rounds)


def test_stages_that_need_no_cosines_pay_for_no_matrix() -> None:
    """Nothing to come, everything kept, pivots only; and idle stages beside a busy one change nothing."""
    busy = StageWork(100, 50, 10)
    for idle in (StageWork(100, 100, 50), StageWork(100, 50, 50)):
        assert not gram_is_cheaper(64, [idle])
        assert gram_is_cheaper(64, [idle, busy]) == gram_is_cheaper(64, [busy])
    assert not gram_is_cheaper(64, [])
    assert type(cosines(torch.randn(1, 4, 3), [])) is DirectCosines


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_three_stages_keep_the_same_tokens_in_every_form(seed: int, rho: float) -> None:
    """By the rule, in Gram space throughout, and as vectors throughout: survivors and pivots of every stage."""
    generator = torch.Generator().manual_seed(seed)
    tokens, keeps = 64, (30, 13, 6)
    features = torch.randn(2, tokens, 7, generator=generator, dtype=torch.float64)
    saliencies = [torch.rand(2, n, generator=generator) for n in (tokens, *keeps[:-1])]
    work = schedule(tokens, keeps, rho)
    results: list[list[object]] = []
    for similar in (cosines(features, work), *(similarity(form, features) for form in FORMS)):
        direct = type(similar) is DirectCosines and len(results) == 2
        stages: list[object] = []
        for stage, saliency in enumerate(saliencies):
            found = select(saliency, similar, work[stage].keep, [work[stage].pivots] * 2)
            stages.append(as_lists(found))
            similar = similar.take(found.kept, [] if direct else work[stage + 1 :])
        results.append(stages)
    assert results[0] == results[1] == results[2]


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Features of one sample without its batch axis, and a mask of another batch."""
    with pytest.raises(ValueError, match=r"\(B, N, D\)"):
        cosines(torch.randn(4, 3), [])
    with pytest.raises(ValueError, match="valid"):
        cosines(torch.randn(1, 4, 3), [], torch.ones(2, 4, dtype=torch.bool))
