"""Hooks that read the hidden states of a vision encoder while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def capture(blocks: nn.ModuleList, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Keep the output of some vision layers of the next encoder pass, by hooks that go away with the block.

    Yields a dict that fills with layer index -> hidden state while the encoder runs; layer 0 is what block 0 takes in.
    """
    seen: dict[int, Tensor] = {}
    handles = watch(blocks, layers, lambda layer, hidden: seen.__setitem__(layer, hidden))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def watch(blocks: nn.ModuleList, layers: Sequence[int], tell: Callable[[int, Tensor], None]) -> list[Any]:
    """Hook blocks so that ``tell(layer, hidden)`` is called for every layer asked for; returns the handles."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tell(0, args[0] if args else kwargs["hidden_states"])

    def after(layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: Any) -> None:
            tell(layer, output if isinstance(output, Tensor) else output[0])

        return hook

    return [
        blocks[0].register_forward_pre_hook(before, with_kwargs=True)
        if layer == 0
        else blocks[layer - 1].register_forward_hook(after(layer))
        for layer in layers
    ]
