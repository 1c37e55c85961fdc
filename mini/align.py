"""Between the tower and the decoder: each visual token is drawn towards the words for what its patch shows and where.

A decoder that has to find "the red object" must match the word "red" with red patches and say the kind it finds
there. Where the visual token of a red star already lies near the words "red" and "star", that match is one of equal
directions, and it is found within a few hundred steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from .draw import GRID, LABEL_CLASSES
from .layout import Layout, plan_layout
from .schedule import batches, optimiser, to_pixels
from .words import ACTIONS, COLOURS, KINDS, LETTERS, PURPOSES, SCENES

# The words of each dense label's classes, in their order; "centre" has none.
_WORDS = {
    "thing": (*KINDS, "person", "tool", "sign"),
    "colour": tuple(COLOURS),
    "letter": tuple(LETTERS),
    "action": ACTIONS,
    "tool": tuple(PURPOSES.values()),
    "scene": SCENES,
}
_SHARPNESS = 2.0
_NOTHING_WEIGHT = 0.2


class WordAlignment:
    """The loss that draws projected visual tokens towards the decoder's own word embeddings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        self._ids = {
            name: torch.tensor([_single(tokenizer, word) for word in words], device=device)
            for name, words in _WORDS.items()
        }
        # Where a patch is, as the share of "right" against "left" and of "below" against "above": the order of the
        # visual tokens tells a decoder the row at best, and the tower has no other reason to keep the place.
        share = (torch.arange(GRID, device=device) + 0.5) / GRID
        across, down = share.repeat(GRID), share.repeat_interleave(GRID)
        self._places = [
            (
                torch.tensor([_single(tokenizer, word) for word in words], device=device),
                torch.stack([1 - towards, towards], dim=-1),
            )
            for words, towards in ((("left", "right"), across), (("above", "below"), down))
        ]
        self._numbers = torch.tensor([_single(tokenizer, number) for number in "1234"], device=device)
        self._columns = {name: list(LABEL_CLASSES).index(name) for name in _WORDS}

    def __call__(
        self,
        features: torch.Tensor,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        layouts: Sequence[Layout],
    ) -> torch.Tensor:
        """Return the loss, a scalar.

        ``features`` is (batch, 144, width), ``embeddings`` the decoder's (vocabulary, width) and ``labels`` int64
        (batch, 144, 7) in the column order of ``draw.LABEL_CLASSES``; ``layouts`` are the pictures'.
        """
        width = features.shape[-1]
        directions = normalize(features.float(), dim=-1) * width**0.5 * _SHARPNESS
        losses = []
        for name, ids in self._ids.items():
            logits = directions @ normalize(embeddings[ids].float(), dim=-1).T
            target = labels[..., self._columns[name]]
            weight = torch.ones(len(ids), device=features.device)
            if name != "scene":
                # "Nothing of this sort" is the class of no word: similar to none of them.
                logits = torch.cat([torch.zeros_like(logits[..., :1]), logits], dim=-1)
                weight = torch.cat([torch.full_like(weight[:1], _NOTHING_WEIGHT), weight])
            losses.append(cross_entropy(logits.flatten(0, 1), target.flatten(), weight))
        # A patch of a shape also says how many of its kind there are: to count, a decoder then need only look.
        numbers = torch.tensor([[0, *(layout.counts.get(kind, 0) for kind in KINDS)] for layout in layouts])
        things = labels[..., self._columns["thing"]].clamp_max(len(KINDS) + 1)
        table = torch.cat([numbers, torch.zeros(len(layouts), 1, dtype=torch.int64)], dim=1).to(features.device)
        count = table.gather(1, things)
        shown = count > 0
        logits = directions[shown] @ normalize(embeddings[self._numbers].float(), dim=-1).T
        losses.append(cross_entropy(logits, count[shown] - 1))
        for ids, shares in self._places:
            logits = directions @ normalize(embeddings[ids].float(), dim=-1).T
            losses.append(cross_entropy(logits.flatten(0, 1), shares.repeat(len(logits), 1)))
        return torch.stack(losses).sum()


@dataclass(frozen=True)
class AlignmentPlan:
    """One phase of drawing visual tokens towards words.

    With a ``tower_rate`` of 0 the tower stays as it is and the word embeddings move with the projector, at ``rate``.
    Otherwise the words stay, because a decoder knows them by now, and the tower moves at ``tower_rate``.
    """

    steps: int
    rate: float
    tower_rate: float


def align_with_words(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    pictures: np.ndarray,
    labels: np.ndarray,
    *,
    picture_seed: int,
    plan: AlignmentPlan,
    batch: int,
    seed: int,
    device: torch.device,
    log: Callable[[str], None],
) -> None:
    """Train projector and words, or projector and tower, in place on :class:`WordAlignment` alone.

    ``pictures`` is uint8 (count, 96, 96, 3), ``labels`` uint8 (count, 144, 7), both of ``picture_seed``.
    """
    nn.Module.to(model, device).train()
    loss_of = WordAlignment(tokenizer, device)
    embedding = model.model.language_model.get_input_embeddings()
    tower, moving = model.model.vision_tower, plan.tower_rate > 0
    partner: tuple[nn.Module, float] = (tower, plan.tower_rate) if moving else (embedding, plan.rate)
    adam, schedule = optimiser([(model.model.multi_modal_projector, plan.rate), partner], plan.steps, warmup=10)
    order = batches(len(pictures), batch, np.random.default_rng([seed, 3]))
    tower.requires_grad_(moving)
    started = time.monotonic()
    for step in range(plan.steps):
        chosen = next(order)
        pixels = to_pixels(pictures[chosen], device)
        with torch.autocast(device.type, torch.bfloat16):
            features = torch.stack(tuple(model.get_image_features(pixel_values=pixels).pooler_output))
        words = torch.from_numpy(labels[chosen].astype(np.int64)).to(device)
        layouts = [plan_layout(picture_seed, int(index)) for index in chosen]
        loss = loss_of(features, embedding.weight.detach() if moving else embedding.weight, words, layouts)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in adam.param_groups for p in group["params"]], 1.0)
        adam.step()
        schedule.step()
        if step % 50 == 49 or step == plan.steps - 1:
            log(f"alignment {step + 1}/{plan.steps} {time.monotonic() - started:.0f}s loss {loss.item():.3f}")
    tower.requires_grad_(True)


def _single(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """The one token of ``word`` in a sentence."""
    (token,) = tokenizer(f" {word}", add_special_tokens=False).input_ids
    return int(token)
