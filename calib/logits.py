"""A model's own ``generate``, watched: it takes a token from NaN as from any other logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from claspkit.profiles.errors import NotFiniteError


@contextmanager
def finite_logits(model: nn.Module) -> Iterator[None]:
    """Look at what the model's head gives inside the block.

    The stages look at features and attention up to the last of them; what overflows in a later layer shows here. Only
    the last place counts, which is never padding. Minus infinity is no fault: a model may forbid a token by it.

    Raises:
        NotFiniteError: at the end of the block, if NaN or infinity was among it.
    """
    broken: list[Tensor] = []
    find: Any = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None

    def look(_: nn.Module, __: tuple[Any, ...], logits: Tensor) -> None:
        last = logits[:, -1] if logits.ndim == 3 else logits
        odd = last.detach().amax(dim=-1).isfinite().all().logical_not()
        broken[:] = [odd.logical_or(broken[0])] if broken else [odd]

    handle = head.register_forward_hook(look) if isinstance(head, nn.Module) else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
    if broken and bool(broken[0]):
        raise NotFiniteError("the model's logits hold NaN or infinity; run it in float32 or bfloat16")
