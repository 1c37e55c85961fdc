"""What the three training phases share: the step size over time, the optimiser, and pixels as the tower sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def to_pixels(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return uint8 pictures (batch, height, width, 3) as the processor gives them: float32 (batch, 3, height, width).

    The values run from -1 to 1, as with the processor's mean and deviation of one half.
    """
    pixels = torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1.0


def optimiser(
    groups: list[tuple[nn.Module, float]], steps: int, warmup: int, floor: float = 0.0
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Return AdamW over ``groups`` of modules and peak rates, and a linear warm-up followed by a cosine.

    The cosine ends at ``floor`` times the peak rates.
    """
    adam = torch.optim.AdamW(
        [{"params": list(module.parameters()), "lr": rate} for module, rate in groups],
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )
    return adam, LambdaLR(adam, _warm_cosine(steps, warmup, floor))


def _warm_cosine(steps: int, warmup: int, floor: float) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield sorted index arrays of ``size`` forever, each epoch a new shuffle of ``count``; the remainder is dropped.

    Sorted within a batch, because the pictures are memory-mapped. Raises ``ValueError`` where count < size.
    """
    if count < size:
        raise ValueError(f"{count} pictures do not fill a batch of {size}")
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield np.sort(order[start : start + size])
