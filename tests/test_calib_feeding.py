"""How many plans of a block are run together, what happens where they do not fit, and how layers are fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from claspkit.calib import feeding
from claspkit.calib.feeding import TOGETHER, Feed, FusedBlock, _products, halving
from claspkit.profiles.errors import ResourceError
from claspkit.runtime.fusion import fuse
from claspkit.runtime.greedy import Answers
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.work import Work

ROWS, TOKENS = 4, 8


def device(fits: int) -> tuple[Callable[[Sequence[PrunePlan]], list[Answers]], list[int]]:
    """A device on which ``fits`` plans fit at a time, and the sizes that were tried; a plan answers its own number."""
    tried: list[int] = []

    def run(plans: Sequence[PrunePlan]) -> list[Answers]:
        tried.append(len(plans))
        if len(plans) > fits:
            raise torch.OutOfMemoryError("no room")
        return [
            Answers(torch.full((ROWS, 1), plan.stages[0][1]), (1,) * ROWS, (False,) * ROWS, Work()) for plan in plans
        ]

    return run, tried


def numbers(count: int) -> list[PrunePlan]:
    """Plans that are told apart by what they keep."""
    return [PrunePlan(((1, number + 1),), (RowPlan((1,), (1.0,), 0.5),) * ROWS) for number in range(count)]


@pytest.mark.parametrize("fits", [1, 2, 3, 7, 11])
def test_what_does_not_fit_is_halved_and_answers_the_same(fits: int) -> None:
    """In the order of the plans, whatever had to be repeated."""
    run, tried = device(fits)
    assert [int(part.ids[0]) for part in halving(numbers(11), run)] == list(range(1, 12))
    assert sum(size for size in tried if size <= fits) == 11


def test_one_plan_that_does_not_fit_says_what_to_do() -> None:
    """And not that CUDA is out of memory."""
    run, _ = device(0)
    with pytest.raises(ResourceError, match=r"for 4 samples at a time; make --block-size smaller"):
        halving(numbers(3), run)


def test_large_blocks_are_run_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the tokens of the prompts; one at least."""
    run, tried = device(99)
    monkeypatch.setattr(feeding, "is_plainly_greedy", lambda model: True)
    monkeypatch.setattr(FusedBlock, "_together", lambda self, most, drafts: run)
    monkeypatch.setattr(FusedBlock, "prompts", SimpleNamespace(mask=torch.ones(ROWS, TOKENS)))
    feed = cast(Feed, SimpleNamespace(loaded=SimpleNamespace(model=None)))
    asked = FusedBlock(feed, [], [], cast(Any, None))
    monkeypatch.setattr(feeding, "TOGETHER", 3 * ROWS * TOKENS + 1)
    asked.ask(numbers(8), 4)
    monkeypatch.setattr(feeding, "TOGETHER", 1)
    asked.ask(numbers(2), 4)
    assert tried == [3, 3, 2, 1, 1]
    assert TOGETHER == 65_536


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 5))
def test_one_product_is_every_fusion(seed: int, layers: int, mixes: int) -> None:
    """The same as fusing mix by mix, to float32 rounding; a single layer comes through bit for bit."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(layers, 7, 5, generator=random)
    table = torch.rand(mixes, layers, generator=random, dtype=torch.float64)
    table[0] = 0
    table[0, seed % layers] = 1
    table = table / table.sum(dim=1, keepdim=True)
    found = _products(table, values)
    assert torch.equal(found[0], values[seed % layers])
    for row, fused in zip(table, found, strict=True):
        assert torch.allclose(fused, fuse(values[:, None], row[None])[0], atol=1e-6)
    assert _products(table, values.half()).dtype == torch.float16
