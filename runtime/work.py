"""What the decoder was made to compute, counted where its layers take their input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass
class Work:
    """Counts over all decoder layers, padding included: it is computed like everything else.

    Attributes:
        token_layers: tokens that went through a layer, summed over layers, rows and passes.
        pairs: query-key pairs of causal attention, summed in the same way.
    """

    token_layers: float = 0
    pairs: float = 0

    def add(self, rows: int, new: int, past: int) -> None:
        """Count one layer's pass of ``new`` tokens per row behind ``past`` cached ones."""
        self.token_layers += rows * new
        self.pairs += rows * (new * past + new * (new + 1) // 2)


@contextmanager
def count_work(layers: nn.ModuleList) -> Iterator[Work]:
    """Count inside the block; entered after every hook that changes what a layer gets."""
    work = Work()

    def count(number: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            cache = kwargs.get("past_key_values")
            past = 0 if cache is None else int(cache.get_seq_length(number))
            work.add(hidden.shape[0], hidden.shape[1], past)

        return hook

    handles = [
        layer.register_forward_pre_hook(count(number), with_kwargs=True) for number, layer in enumerate(layers)
    ]
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()


def work_alone(entering: Sequence[int], text: int, new: int) -> Work:
    """What one prompt takes by itself: a prefill without padding, and a pass for every later token.

    Args:
        entering: visual tokens that every decoder layer computes on.
        text: all other tokens of the prompt.
        new: tokens of the answer; the last one is not fed back.
    """
    work = Work()
    for visual in entering:
        tokens = visual + text
        work.add(1, tokens, 0)
        for step in range(new - 1):
            work.add(1, 1, tokens + step)
    return work
