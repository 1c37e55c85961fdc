"""Selection over batches: ragged rows, a budget per row, numbers that are not finite, and no wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_cases import FORMS, Case, as_lists, draw_case, run_case, similarity
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from claspkit.profiles.errors import BadDataError
from claspkit.runtime.cosines import StageWork, cosines
from claspkit.runtime.selection import cosine_gram, select


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from(FORMS))
def test_every_row_keeps_exactly_its_budget(seed: int, rows: int, form: str) -> None:
    """Real slots first, ascending and distinct; min(keep_i, N_i) of them, all valid; no padding."""
    case = draw_case(np.random.default_rng(seed), rows, 30)
    found = run_case(case, form, torch.float32)
    for row, (kept, pivots) in enumerate(as_lists(found)):
        real = int(case.valid[row].sum())
        assert len(kept) == min(case.keep[row], real)
        assert kept == sorted(set(kept))
        assert case.valid[row][kept].all()
        assert len(pivots) == (case.pivots[row] if case.keep[row] < real else 0)
    assert found.kept.shape[1] == min(max(case.keep), case.valid.shape[1])
    assert (found.real.long().diff(dim=1) <= 0).all()
    assert ((found.kept >= 0) & (found.kept < case.valid.shape[1])).all()
    assert not (found.pivot & ~found.real).any()
    assert found.finite.all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMS))
def test_a_row_is_what_it_is_alone(seed: int, form: str) -> None:
    """Neighbours, their lengths and their budgets change nothing, nor does padding that is cut away."""
    case = draw_case(np.random.default_rng(seed), 4, 20)
    together = as_lists(run_case(case, form, torch.float64))
    for row, (kept, pivots) in enumerate(together):
        real = case.valid[row].nonzero()[:, 0]
        if not len(real):
            assert kept == []
            continue
        alone = Case(
            case.saliency[row : row + 1, real],
            case.features[row : row + 1, real],
            torch.ones(1, len(real), dtype=torch.bool),
            [case.keep[row]],
            [case.pivots[row]],
        )
        ((own, own_pivots),) = as_lists(run_case(alone, form, torch.float64))
        assert (kept, pivots) == (real[own].tolist(), real[own_pivots].tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["saliency", "features"])
def test_a_row_that_is_not_finite_is_named_and_harms_no_other(bad: float, form: str, where: str) -> None:
    """The check names it; without the check it hangs nothing, points nowhere outside, and its neighbours stand."""
    generator = torch.Generator().manual_seed(11)
    saliency = torch.rand(3, 30, generator=generator)
    features = torch.randn(3, 30, 6, generator=generator)
    want = select(saliency, similarity(form, features), 9, [5, 0, 3])
    (saliency if where == "saliency" else features)[1, 4] = bad
    similar = similarity(form, features)
    with pytest.raises(BadDataError, match="in row 1 of the batch"):
        select(saliency, similar, 9, [5, 0, 3])
    found = select(saliency, similar, 9, [5, 0, 3], check=False)
    assert found.finite.tolist() == [True, False, True]
    assert ((found.kept >= 0) & (found.kept < 30)).all()
    for row in (0, 2):
        assert torch.equal(found.kept[row], want.kept[row])
    with pytest.raises(BadDataError, match="the scores of layer 2 hold NaN"):
        found.check("the scores of layer 2")


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("form", FORMS)
def test_any_amount_of_nan_stays_inside(share: float, form: str) -> None:
    """Everything broken at random, ragged: valid indices, flagged rows, and the later stage runs too."""
    generator = torch.Generator().manual_seed(12)
    features = torch.randn(4, 40, 5, generator=generator)
    features[torch.rand(4, 40, generator=generator) < share] = torch.nan
    saliency = torch.where(torch.rand(4, 40, generator=generator) < share, torch.nan, 1.0)
    valid = torch.rand(4, 40, generator=generator) < 0.9
    similar = similarity(form, features, valid)
    found = select(saliency, similar, [20, 9, 30, 12], [3, 9, 0, 6], valid=valid, check=False)
    assert not found.finite.any()
    assert ((found.kept >= 0) & (found.kept < 40)).all()
    later = similar.take(found.kept, [StageWork(30, 8, 4)])
    again = select(torch.ones(4, 30), later, 8, [4] * 4, valid=found.real, check=False)
    assert not again.finite.any()
    assert ((again.kept >= 0) & (again.kept < 30)).all()


def test_a_norm_that_overflows_is_not_finite() -> None:
    """Features too long to be divided by their length are refused like infinity, not taken for directions."""
    features = torch.randn(1, 8, 4)
    features[0, 3] = 1e30
    for form in FORMS:
        with pytest.raises(BadDataError, match="overflow"):
            select(torch.rand(1, 8), similarity(form, features), 3, [1])


@pytest.mark.parametrize("keep", [4, [4, 9]])
def test_what_keeps_everything_does_nothing(keep: int | list[int]) -> None:
    """No pivot, original order, padding behind; not even the numbers are looked at."""
    valid = torch.tensor([[True, False, True, True], [False, True, False, False]])
    broken = torch.full((2, 4, 4), torch.nan)
    found = select(torch.full((2, 4), torch.nan), broken, keep, [1, 2], valid=valid)
    assert as_lists(found) == [([0, 2, 3], []), ([1], [])]
    assert as_lists(select(torch.full((2, 4), torch.nan), broken, keep, [1, 2])) == [([0, 1, 2, 3], [])] * 2


@pytest.mark.parametrize("form", FORMS)
def test_rows_without_tokens_or_without_a_budget_keep_none(form: str) -> None:
    """A text-only prompt in a batch of pictures, and a budget of 0 beside another."""
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[1] = False
    features = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1))
    found = select(torch.rand(3, 6), similarity(form, features, valid), [3, 0, 0], [1, 0, 0], valid=valid)
    assert found.real.sum(dim=1).tolist() == [3, 0, 0]
    assert found.kept.shape == (3, 3)
    assert select(torch.rand(1, 6), similarity(form, features[:1]), [0], [0]).kept.shape == (1, 0)


def test_padding_of_a_gram_matrix_from_outside_does_not_count() -> None:
    """A tensor instead of cosines: what its padded rows and columns hold is taken out."""
    generator = torch.Generator().manual_seed(5)
    features, saliency = torch.randn(1, 12, 4, generator=generator), torch.rand(1, 12, generator=generator)
    valid = torch.tensor([[True] * 9 + [False] * 3])
    gram = cosine_gram(features)
    gram[:, 9:] = torch.nan
    gram[:, :, 9:] = 7.0
    for pivots in (0, 2):
        found = select(saliency, gram, 4, [pivots], valid=valid)
        alone = select(saliency[:, :9], cosine_gram(features[:, :9]), 4, [pivots])
        assert torch.equal(found.kept, alone.kept)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gram_matrix_from_outside_is_checked(bad: float) -> None:
    """One broken cosine in the second sample's matrix."""
    gram = cosine_gram(torch.randn(2, 5, 3))
    gram[1, 2, 4] = bad
    assert select(torch.rand(2, 5), gram, 2, [1, 1], check=False).finite.tolist() == [True, False]


class _NoWaiting(TorchDispatchMode):
    """Refuses every operation whose result the host has to wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name in {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "masked_select", "_unique2"}:
            raise AssertionError(f"{name} waits for the device")
        if name in {"index", "index_put", "index_put_"}:
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask as an index"
        if name == "_to_copy" and "device" in kwargs and args[0].device != torch.device(kwargs["device"]):
            assert kwargs.get("non_blocking"), "a copy between devices that is waited for"
        return func(*args, **kwargs)


def _watch() -> AbstractContextManager[Any]:
    watch: AbstractContextManager[Any] = _NoWaiting()  # type: ignore[no-untyped-call]
    return watch


def _two_stages(device: str, ragged: bool) -> None:
    """Features to a second stage, as a prefill does it."""
    features = torch.ones(3, 300, 8, device=device, dtype=torch.bfloat16)
    saliency = torch.ones(3, 300, device=device)
    valid = torch.ones(3, 300, device=device, dtype=torch.bool) if ragged else None
    work = [StageWork(300, 40, 0), StageWork(40, 20, 5)]
    similar = cosines(features, work, valid)
    found = select(saliency, similar, [40, 30, 12] if ragged else 40, [0, 10, 3], valid=valid, check=False)
    later = similar.take(found.kept, work[1:])
    real = found.real if ragged else None
    select(saliency.gather(1, found.kept), later, 20, [5, 20, 12], valid=real, check=False)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("ragged", [False, True])
def test_nothing_waits_for_the_device(device: str, ragged: bool) -> None:
    """The processor's form and the accelerator's (the meta device holds no numbers that anybody could wait for)."""
    with _watch():
        _two_stages(device, ragged)


def _wait_for_a_number() -> object:
    return torch.ones(3).sum().item()


def _wait_for_a_shape() -> object:
    return torch.ones(3)[torch.tensor([True, False, True])]


def _wait_for_a_copy() -> object:
    return torch.tensor([1]).to("meta")


@pytest.mark.parametrize("waiting", [_wait_for_a_number, _wait_for_a_shape, _wait_for_a_copy])
def test_the_watch_notices_waiting(waiting: Callable[[], object]) -> None:
    """A planted wait is found."""
    with _watch(), pytest.raises(AssertionError):
        waiting()


def test_nothing_is_recorded_for_a_backward_pass() -> None:
    """Features and saliency that require a gradient select like others, and keep no graph alive."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 200, 5, generator=generator, requires_grad=True)
    saliency = torch.rand(2, 200, generator=generator, requires_grad=True)
    for form in FORMS:
        similar = similarity(form, features)
        found = select(saliency, similar, 9, [3, 0])
        plain = select(saliency.detach(), similarity(form, features.detach()), 9, [3, 0])
        assert torch.equal(found.kept, plain.kept)
        held: Tensor = similar.gram if form == "gram" else similar.units  # type: ignore[attr-defined]
        assert not held.requires_grad
