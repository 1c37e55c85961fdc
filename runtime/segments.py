"""The sequence between two stages: which tokens of the prompt a run of decoder layers sees, as pure tensor functions.

Rows that lose different numbers of tokens stay rectangular: every row is left-padded with *fillers*, first with the
padding it had, and where that is not enough with tokens it dropped, which are then hidden by the mask.

Shape alphabet: B rows, S tokens of the prompt, s tokens of the segment, q new tokens of a later step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

_DROPPED, _PADDING, _STAYS = 0, 1, 2


@dataclass(frozen=True)
class Segment:
    """What the layers of one segment see.

    Attributes:
        positions: (B, s) int64, index into the prompt's S tokens; ascending among the real ones, which stand right.
        real: (B, s) bool, False for padding and fillers.
        counts: real tokens per row, on the host.
        order: (B, s) int64, index into the previous segment's sequence.
        hides: whether the model's own mask lets through tokens that are not real, so that we have to hide them.
        shift: (B, s) int64, tokens dropped so far that stood before this one.
        dropped: (B, 1) int64, tokens dropped so far.
        prefix: tokens of every layer's cache that stand before the prompt, real in every row.
    """

    positions: Tensor
    real: Tensor
    counts: tuple[int, ...]
    order: Tensor
    hides: bool
    shift: Tensor
    dropped: Tensor
    prefix: int = 0

    @property
    def size(self) -> int:
        """Tokens of the segment, s."""
        return self.positions.shape[1]

    def take(self, rows: Tensor) -> Segment:
        """Only some rows, (b,) int64."""
        return replace(
            self,
            positions=self.positions[rows],
            real=self.real[rows],
            counts=tuple(self.counts[row] for row in rows.tolist()),
            order=self.order[rows],
            shift=self.shift[rows],
            dropped=self.dropped[rows],
        )


def whole(real: Tensor, counts: Sequence[int], prefix: int = 0) -> Segment:
    """The first segment: the prompt as it came, (B, S), behind a cached prefix."""
    rows, size = real.shape
    places = torch.arange(size, device=real.device).expand(rows, -1)
    nothing = torch.zeros_like(places)
    return Segment(places, real, tuple(counts), places, False, nothing, nothing[:, :1], prefix)


def shorten(segment: Segment, stays: Tensor, counts: Sequence[int]) -> tuple[Segment, Tensor]:
    """Drop tokens.

    Args:
        segment: what there was.
        stays: (B, s) bool, real tokens that survive.
        counts: how many those are per row, known on the host, so that nothing waits for the device.

    Returns:
        The next segment of ``max(counts)`` tokens, and (B, s) int64: where every surviving token went.
    """
    size = max(1, *counts)
    kind = torch.where(stays, _STAYS, torch.where(segment.real, _DROPPED, _PADDING))
    order = torch.sort(kind, dim=1, stable=True).indices[:, segment.size - size :]
    gone = segment.real & ~stays
    before = gone.cumsum(dim=1)
    uncovered = any(
        size - now > segment.size - earlier for now, earlier in zip(counts, segment.counts, strict=True)
    )  # more fillers needed than there was padding
    following = Segment(
        positions=segment.positions.gather(1, order),
        real=stays.gather(1, order),
        counts=tuple(counts),
        order=order,
        hides=segment.hides or uncovered,
        shift=(segment.shift + before).gather(1, order),
        dropped=segment.dropped + before[:, -1:],
        prefix=segment.prefix,
    )
    rank = stays.cumsum(dim=1)
    return following, rank - 1 + (size - rank[:, -1:])


def cut_rotary(part: Tensor, segment: Segment) -> Tensor:
    """Rotary cos or sin (..., B or 1, S, C) of the prompt -> (..., B, s, C) of the segment."""
    part = part.expand(*part.shape[:-3], segment.positions.shape[0], -1, -1)
    return part.gather(-2, segment.positions[:, :, None].expand(*part.shape[:-2], -1, part.shape[-1]))


def cut_prompt_mask(mask: Tensor | None, segment: Segment, attention: str, dtype: torch.dtype) -> Tensor | None:
    """Attention mask of the prompt's own pass, for the segment.

    Args:
        mask: what the model made for the whole prompt: None, (B, S) for flash kernels, or (B or 1, h, S, S) boolean
            or additive; keys (the last axis) count from the cached prefix on.
        segment: what the layer sees.
        attention: the model's attention implementation; it decides the form of a mask we make ourselves.
        dtype: dtype of the hidden states, for additive masks.

    Returns:
        The same form for s tokens; None where plain causal attention is right.
    """
    keys = _behind_prefix(segment, segment.positions + segment.prefix)
    real = pad(segment.real, (segment.prefix, 0), value=True)
    if mask is not None and mask.ndim == 2:
        return mask.gather(1, keys) * real.to(mask.dtype)
    if mask is not None:
        mask = mask.expand(segment.positions.shape[0], -1, -1, -1)
        rows = segment.positions[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
        cut = _columns(mask.gather(2, rows), keys)
        return _hide(cut, real) if segment.hides else cut
    if not segment.hides:
        return None
    if _is_flash(attention):
        return real.long()
    causal = torch.ones(segment.size, keys.shape[1], dtype=torch.bool, device=real.device).tril(segment.prefix)
    return _in_form(_hide(causal.expand(len(real), 1, -1, -1), real), attention, dtype)


def cut_later_mask(
    mask: Tensor | None, segment: Segment, prompt: int, seen: int, new: int, attention: str, dtype: torch.dtype
) -> Tensor | None:
    """Attention mask of a later step (decoding, or more text), for the segment.

    Args:
        mask: what the model made: None, (B, seen + new), or (B or 1, h, new, seen + new).
        segment: what the layer's cache holds of the prompt.
        prompt: S, tokens of the prompt, without a cached prefix.
        seen: tokens cached by an unpruned layer before this step.
        new: tokens of this step.
        attention: see :func:`cut_prompt_mask`.
        dtype: see :func:`cut_prompt_mask`.
    """
    if mask is None and not segment.hides:
        return None
    if (mask is None and _is_flash(attention)) or (mask is not None and mask.ndim == 2):
        return cut_later_padding(mask, segment, prompt, seen, new)
    columns, visible = _later(segment, prompt, seen + new)
    if mask is not None:
        cut = _columns(mask.expand(columns.shape[0], -1, -1, -1), columns)
        return _mask_out(cut, ~visible[:, None, None, :]) if segment.hides else cut
    width = visible.shape[1]
    causal = torch.ones(new, width, dtype=torch.bool, device=visible.device).tril(width - new)
    return _in_form(causal[None, None] & visible[:, None, None, :], attention, dtype)


def cut_later_padding(mask: Tensor | None, segment: Segment, prompt: int, seen: int, new: int) -> Tensor | None:
    """The same for a mask of two dimensions, (B, seen + new), 0 for padding; None where nothing is hidden."""
    columns, visible = _later(segment, prompt, seen + new)
    if mask is not None:
        return mask.gather(1, columns) * visible.to(mask.dtype)
    return visible.long() if segment.hides else None


def _later(segment: Segment, prompt: int, total: int) -> tuple[Tensor, Tensor]:
    """Columns of a step of ``total`` tokens that the segment's cache holds, and which of them are real."""
    start = segment.prefix + prompt
    tail = torch.arange(start, total, device=segment.positions.device).expand(segment.positions.shape[0], -1)
    visible = pad(segment.real, (segment.prefix, total - start), value=True)
    return torch.cat((_behind_prefix(segment, segment.positions + segment.prefix), tail), dim=1), visible


def _behind_prefix(segment: Segment, places: Tensor) -> Tensor:
    """Columns of the prefix, and behind them ``places`` (B, s)."""
    before = torch.arange(segment.prefix, device=places.device).expand(len(places), -1)
    return torch.cat((before, places), dim=1) if segment.prefix else places


def _columns(mask: Tensor, columns: Tensor) -> Tensor:
    return mask.gather(3, columns[:, None, None, :].expand(-1, mask.shape[1], mask.shape[2], -1))


def _hide(mask: Tensor, real: Tensor) -> Tensor:
    """Hide keys that are not real from everyone but themselves: a row of nothing but hidden keys has no softmax."""
    size = mask.shape[2]  # the last so many keys are those of the rows
    own = pad(torch.eye(size, dtype=torch.bool, device=real.device), (real.shape[1] - size, 0))
    hidden = ~real[:, None, None, :]
    covered = _mask_out(mask, hidden & ~own)
    shown = torch.ones_like(covered) if covered.dtype == torch.bool else torch.zeros_like(covered)
    return torch.where(hidden & own, shown, covered)


def _mask_out(mask: Tensor, hidden: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return mask & ~hidden
    return mask.masked_fill(hidden, torch.finfo(mask.dtype).min)


def _in_form(allowed: Tensor, attention: str, dtype: torch.dtype) -> Tensor:
    """A boolean mask as the attention implementation takes it: additive for eager, boolean otherwise."""
    if attention != "eager":
        return allowed
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
        ~allowed, torch.finfo(dtype).min
    )


def _is_flash(attention: str) -> bool:
    return "flash" in attention
