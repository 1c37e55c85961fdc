"""How many operations a piece of tensor work hands to an accelerator, counted without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = ("as_strided", "diagonal", "expand", "permute", "select", "slice", "split", "squeeze", "transpose", "unsqueeze")
FREE = (*VIEWS, "_unsafe_view", "alias", "detach", "empty", "lift_fresh", "new_empty", "t", "unbind", "view")
"""Operations that launch nothing: views, and memory without contents."""


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in FREE:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def on_meta(tree: Any) -> Any:
    """The same nest of tuples, lists and dictionaries with tensors that have sizes and no contents."""
    if isinstance(tree, Tensor):
        return tree.to("meta")
    if isinstance(tree, dict):
        return {key: on_meta(part) for key, part in tree.items()}
    return type(tree)(map(on_meta, tree)) if isinstance(tree, tuple | list) else tree


def launches(work: Callable[[], object]) -> Counter[str]:
    """Operations that ``work`` computes with, by name; on meta tensors, those of an accelerator's form."""
    mode = _Counting()
    # Without a gradient, but not in inference mode: there, compound operations would count as one.
    with torch.inference_mode(False), torch.no_grad(), mode:
        work()
    return mode.seen
