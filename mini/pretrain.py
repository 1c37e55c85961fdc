"""First phase: the tower learns, for every patch, what covers it.

Training the whole model from nothing stays on a plateau; a tower that already names what each patch shows leaves the
decoder only the question to understand.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import CLIPVisionModel

from .draw import LABEL_CLASSES
from .schedule import batches, optimiser, to_pixels

# "Nothing of this sort here" is the label of most patches; counted fully it would drown the others.
_NOTHING_WEIGHT = 0.2
# The decoder reads the last block but one; the last block is trained along so that it is not left random.
_LAST_BLOCK_WEIGHT = 0.3


class PatchHeads(nn.Module):
    """One linear classifier per dense label, on patch features (batch, 144, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in LABEL_CLASSES.items()})

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits (batch, 144, classes) per label."""
        normed = self.norm(features)
        return {name: head(normed) for name, head in self.heads.items()}


def pretrain_tower(
    tower: CLIPVisionModel,
    pictures: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    device: torch.device,
    log: Callable[[str], None],
) -> dict[str, float]:
    """Train ``tower`` in place on pictures (count, 96, 96, 3) and labels (count, 144, 7), both uint8.

    The last 256 pictures are kept out; returned is the accuracy there per label, over the patches that show
    something of that sort.
    """
    torch.manual_seed(seed)
    heads, last_heads = PatchHeads(tower.config.hidden_size), PatchHeads(tower.config.hidden_size)
    whole = nn.ModuleList([tower, heads, last_heads]).to(device).train()
    adam, schedule = optimiser([(whole, rate)], steps, warmup=min(100, steps // 10 + 1))
    kept_out = min(256, len(pictures) // 10)
    order = batches(len(pictures) - kept_out, batch, np.random.default_rng([seed, 1]))
    started = time.monotonic()
    for step in range(steps):
        chosen = next(order)
        pixels = to_pixels(pictures[chosen], device)
        targets = torch.from_numpy(labels[chosen].astype(np.int64)).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            states = tower(pixels, output_hidden_states=True).hidden_states
            loss = _loss(heads(states[-2][:, 1:]), targets)
            loss = loss + _LAST_BLOCK_WEIGHT * _loss(last_heads(states[-1][:, 1:]), targets)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % 100 == 99 or step == steps - 1:
            scores = _accuracy(tower, heads, pictures[-kept_out:], labels[-kept_out:], device)
            shown = " ".join(f"{name} {score:.3f}" for name, score in scores.items())
            log(f"tower {step + 1}/{steps} {time.monotonic() - started:.0f}s loss {loss.item():.3f} {shown}")
    return scores


def _loss(logits: dict[str, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    losses = []
    for column, (name, scores) in enumerate(logits.items()):
        weight = torch.ones(scores.shape[-1], device=scores.device)
        if name != "scene":
            weight[0] = _NOTHING_WEIGHT
        losses.append(cross_entropy(scores.float().flatten(0, 1), targets[..., column].flatten(), weight))
    return torch.stack(losses).sum()


@torch.no_grad()
def _accuracy(
    tower: CLIPVisionModel, heads: PatchHeads, pictures: np.ndarray, labels: np.ndarray, device: torch.device
) -> dict[str, float]:
    right, total = dict.fromkeys(LABEL_CLASSES, 0), dict.fromkeys(LABEL_CLASSES, 0)
    for start in range(0, len(pictures), 64):
        with torch.autocast(device.type, torch.bfloat16):
            pixels = to_pixels(pictures[start : start + 64], device)
            logits = heads(tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:])
        for column, (name, scores) in enumerate(logits.items()):
            target = labels[start : start + 64, :, column]
            shows = (target > 0) | (name == "scene")
            right[name] += int(((scores.argmax(-1).cpu().numpy() == target) & shows).sum())
            total[name] += int(shows.sum())
    return {name: right[name] / max(1, total[name]) for name in LABEL_CLASSES}
