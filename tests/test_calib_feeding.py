"""How many plans of a block are run together, and what happens where they do not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch

from claspkit.calib import feeding
from claspkit.calib.feeding import TOGETHER, _Embedded
from claspkit.profiles.errors import ResourceError
from claspkit.runtime.plan import PrunePlan

ROWS, TOKENS = 4, 8


def block(monkeypatch: pytest.MonkeyPatch, fits: int) -> tuple[_Embedded, list[int]]:
    """A block on a device on which ``fits`` plans fit at a time, and the sizes that were tried; a plan answers its own
    number."""
    tried: list[int] = []

    def together(_: _Embedded, plans: Sequence[Any], __: int) -> list[torch.Tensor]:
        tried.append(len(plans))
        if len(plans) > fits:
            raise torch.OutOfMemoryError("no room")
        return [torch.full((ROWS, 1), plan) for plan in plans]

    monkeypatch.setattr(_Embedded, "_together", together)
    mask = torch.ones(ROWS, TOKENS, dtype=torch.long)
    return _Embedded(cast(Any, None), torch.zeros(ROWS, TOKENS, 2), mask, mask.bool()), tried


def numbers(count: int) -> Sequence[PrunePlan]:
    """Plans that are told apart."""
    return cast(Sequence[PrunePlan], list(range(count)))


@pytest.mark.parametrize("fits", [1, 2, 3, 7, 11])
def test_what_does_not_fit_is_halved_and_answers_the_same(monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    """In the order of the plans, whatever had to be repeated."""
    asked, tried = block(monkeypatch, fits)
    assert [int(part[0]) for part in asked.generate(numbers(11), 4)] == list(range(11))
    assert sum(size for size in tried if size <= fits) == 11


def test_one_plan_that_does_not_fit_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that CUDA is out of memory."""
    asked, _ = block(monkeypatch, 0)
    with pytest.raises(ResourceError, match=r"for 4 samples at a time; make --block-size smaller"):
        asked.generate(numbers(3), 4)


def test_large_blocks_are_run_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the tokens of the prompts; one at least."""
    asked, tried = block(monkeypatch, 99)
    monkeypatch.setattr(feeding, "TOGETHER", 3 * ROWS * TOKENS + 1)
    asked.generate(numbers(8), 4)
    monkeypatch.setattr(feeding, "TOGETHER", 1)
    asked.generate(numbers(2), 4)
    assert tried == [3, 3, 2, 1, 1]
    assert TOGETHER == 65_536
