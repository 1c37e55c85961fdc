"""Where a batch's prompts have their pictures, text and padding: worked out once per prompt, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from claspkit.profiles.errors import UsageError


@dataclass(frozen=True)
class PromptLayout:
    """A batch of left-padded prompts.

    Attributes:
        real: (B, S) bool, False for padding.
        visual: (B, N) int64, places of the visual tokens in reading order; S where a row has fewer than N.
        valid: (B, N) bool, False where ``visual`` is filled up.
        reference: (B, T) bool over the last T places: text after the picture, whose attention is the saliency.
        lengths: real tokens per row.
        visuals: visual tokens per row.
        pictures: pictures per row.
        trailing: places behind the last visual token of every row: a cache may be cut back so far.
    """

    real: Tensor
    visual: Tensor
    valid: Tensor
    reference: Tensor
    lengths: tuple[int, ...]
    visuals: tuple[int, ...]
    pictures: tuple[int, ...]
    trailing: int

    @property
    def ragged(self) -> bool:
        """Whether rows differ in their number of visual tokens."""
        return len(set(self.visuals)) > 1


def lay_out(
    visual: Tensor,
    attention: Tensor | None,
    *,
    pictures: Sequence[int] | None = None,
    drafts: int = 0,
    saliency: str = "text",
) -> PromptLayout:
    """Read a batch's layout off its masks.

    Args:
        visual: (B, S) bool, the visual tokens.
        attention: (B, S), 0 for padding; None for none.
        pictures: pictures per row; runs of visual tokens are counted if not given.
        drafts: tokens at the end that are guesses of an answer and no prompt; they are never reference rows.
        saliency: with "last" only the last prompt token is a reference row; with "cls" none is needed.

    Raises:
        UsageError: right padding, a mask of another shape, or a prompt that ends with its picture.
    """
    device = visual.device
    if attention is not None and attention.shape != visual.shape:
        raise UsageError(
            f"pruning needs a two-dimensional attention mask {tuple(visual.shape)}, got {tuple(attention.shape)}"
        )
    seen = visual.cpu().numpy()
    real = np.ones_like(seen) if attention is None else attention.cpu().numpy() != 0
    if not real[:, -1].all():
        raise UsageError(
            "a pruned batch must be padded on the left, as for generation (tokenizer.padding_side = 'left')"
        )
    rows, size = seen.shape
    counts = seen.sum(axis=1)
    width = int(counts.max())
    places = np.full((rows, width), size)
    for row in range(rows):
        places[row, : counts[row]] = np.flatnonzero(seen[row])
    end = size - drafts
    last = np.where(counts > 0, places.max(axis=1, initial=-1, where=places < size), size)  # no picture: no reference
    index = np.arange(size)[None, :]
    reference = (index > last[:, None]) & real & (index < end)
    if saliency != "cls" and bool((reference.any(axis=1) != (counts > 0)).any()):
        raise UsageError("every prompt needs text after its picture: its attention rows say what matters")
    if saliency == "last":
        reference &= index == end - 1
    first = int(np.where(reference.any(axis=1), reference.argmax(axis=1), size - 1).min())
    if pictures is None:
        starts = seen & ~np.pad(seen, ((0, 0), (1, 0)))[:, :-1]
        pictures = starts.sum(axis=1).tolist()
    return PromptLayout(
        real=torch.from_numpy(real).to(device),
        visual=torch.from_numpy(places).to(device),
        valid=torch.from_numpy(places < size).to(device),
        reference=torch.from_numpy(reference[:, first:]).to(device),
        lengths=tuple(real.sum(axis=1).tolist()),
        visuals=tuple(counts.tolist()),
        pictures=tuple(pictures),
        trailing=int((size - 1 - np.where(counts > 0, last, -1)).min()),
    )
