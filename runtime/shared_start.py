"""Prompts that come in several copies, pruned differently, are run once as far as nothing differs yet.

Rows of the batch are copy after copy: the B prompts, the same B prompts again, and so on. Up to and including the layer
of the first stage all copies are equal, so these layers get the first B rows; what leaves the last of them is repeated,
and so are the keys and values they cached, once the prompt's pass is over. Later steps are ordinary ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from claspkit.profiles.errors import UsageError

from .families import Family
from .gram import repeat_rows


@contextmanager
def share_start(model: nn.Module, family: Family, last: int, copies: int, prefix: int = 0) -> Iterator[None]:
    """Inside the block, the decoder runs layers 0 .. ``last`` once for ``copies`` equal parts of a prompt batch.

    Args:
        model: the model; not used by anybody else meanwhile.
        family: its family.
        last: the layer after which the first stage selects, 0-based.
        copies: equal parts that every batch has; 1 shares nothing.
        prefix: tokens that are cached before the prompt's pass; the caches of the layers shared have a row for each row
            of one part then.

    Raises:
        UsageError: inside, a batch of prompts whose rows are no multiple of ``copies``.
    """
    shared = _SharedStart(copies, last, prefix)
    handles = shared.attach(family.decoder(model), family.decoder_layers(model)) if copies > 1 else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _SharedStart:
    """The hooks; state of one pass."""

    def __init__(self, copies: int, last: int, prefix: int) -> None:
        self._copies, self._last, self._prefix = copies, last, prefix
        self._rows = 0  # of the batch, during the prompt's pass; else 0

    def attach(self, decoder: nn.Module, layers: nn.ModuleList) -> list[Any]:
        """Register them: before those of the stages where a layer's input is concerned."""
        handles = [
            decoder.register_forward_pre_hook(self._enter, with_kwargs=True),
            decoder.register_forward_hook(self._leave, with_kwargs=True, always_call=True),
        ]
        handles += [
            layers[index].register_forward_pre_hook(self._narrow, with_kwargs=True) for index in range(self._last + 1)
        ]
        handles.append(layers[self._last].register_forward_hook(self._widen))
        return handles

    def _enter(self, _: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache: Any = kwargs.get("past_key_values")
        rows = int(kwargs["inputs_embeds"].shape[0])
        past = 0 if cache is None else int(cache.get_seq_length())
        self._rows = rows if past == self._prefix else 0
        if self._rows % self._copies:
            raise UsageError(f"a batch of {rows} rows is not made of {self._copies} equal parts")

    def _narrow(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give a layer the first part alone."""
        if not self._rows:
            return None
        return tuple(self._first(value) for value in args), {name: self._part(name, kwargs) for name in kwargs}

    def _part(self, name: str, kwargs: Mapping[str, Any]) -> Any:
        value = kwargs[name]
        if name == "position_embeddings":  # (B or 1, S, C), of several axes (3, B, S, C)
            return tuple(part[..., : self._each, :, :] if part.shape[-3] == self._rows else part for part in value)
        if name == "position_ids" and value is not None and value.ndim == 3:  # (3, B, S)
            return value[:, : self._each]
        return self._first(value)

    def _first(self, value: Any) -> Any:
        # What has one axis counts tokens ("cache_position"), of which there may be as many as rows.
        rows = isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == self._rows
        return value[: self._each] if rows else value

    def _widen(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if not self._rows:
            return None
        if isinstance(output, tuple):
            return (repeat_rows(output[0], self._copies), *output[1:])
        return repeat_rows(cast(Tensor, output), self._copies)

    def _leave(self, _: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Give the caches of the shared layers a row per row of the batch."""
        rows, self._rows = self._rows, 0
        cache = kwargs.get("past_key_values")
        if not rows or output is None or cache is None:
            return
        for layer in cache.layers[: self._last + 1]:
            layer.keys, layer.values = (repeat_rows(part, self._copies) for part in (layer.keys, layer.values))

    @property
    def _each(self) -> int:
        return self._rows // self._copies

