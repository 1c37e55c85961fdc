"""Second and third phase: the decoder learns to answer, first before a frozen tower and then together with it.

Finding "the red object" means binding two properties of one thing. That appears only with many questions per
picture, most of them of this sort; hence the mix below.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration

from .align import WordAlignment
from .layout import Layout, plan_layout
from .packing import IGNORED, QuestionPacker, packed_hidden, use_packed_attention
from .questions import Question, ask
from .schedule import batches, optimiser, to_pixels

# Questions per picture and step; the binding ones (object, attribute, default, spatial) are most of them.
MIX: Final[dict[str, int]] = {
    "object": 5,
    "attribute": 5,
    "text": 2,
    "scene": 1,
    "spatial": 4,
    "counting": 2,
    "action": 1,
    "intention": 1,
    "default": 3,
}


# While the decoder has not yet learned to find one thing by another, that alone; what is left out comes back at once.
BINDING_MIX: Final[dict[str, int]] = {
    "object": 9,
    "attribute": 9,
    "text": 2,
    "spatial": 1,
    "counting": 1,
    "default": 2,
}

# What needs two things to be found and compared takes longest.
JOINT_MIX: Final[dict[str, int]] = {
    "object": 4,
    "attribute": 4,
    "text": 2,
    "scene": 1,
    "spatial": 5,
    "counting": 3,
    "action": 1,
    "intention": 1,
    "default": 3,
}

# The last phase spends most on what is learned last.
FINISHING_MIX: Final[dict[str, int]] = {
    "object": 3,
    "attribute": 2,
    "text": 3,
    "scene": 1,
    "spatial": 6,
    "counting": 6,
    "action": 1,
    "intention": 1,
    "default": 4,
}

# Kept on while the answers are learned, so that the tower goes on learning letters and outlines patch by patch.
ALIGNMENT_WEIGHT: Final = 0.1

# No question with its answer is longer, so that all steps have one shape and are compiled once.
BLOCK_LENGTH: Final = 14


def mixed_questions(layout: Layout, mix: dict[str, int], rng: np.random.Generator) -> list[Question]:
    """Return as many questions of each intent as ``mix`` says, about one picture."""
    questions = []
    for intent, number in mix.items():
        for _ in range(number):
            question = ask(layout, intent, rng)
            # A picture with nothing clearly on a side is asked something that can always be asked.
            questions.append(question or ask(layout, "attribute", rng))
    return [question for question in questions if question is not None]


@dataclass(frozen=True)
class AnswerPlan:
    """One phase of learning to answer.

    ``rate`` is the peak step of decoder and projector; a ``tower_rate`` of 0 leaves the tower as it is. The rates go
    down to ``floor`` times their peaks over ``horizon`` steps, of which the first ``steps`` are taken. ``mix`` is the
    number of questions of each intent per picture.
    """

    steps: int
    horizon: int
    rate: float
    tower_rate: float
    floor: float
    mix: dict[str, int]


def train_answers(
    model: LlavaForConditionalGeneration,
    packer: QuestionPacker,
    pictures: np.ndarray,
    labels: np.ndarray,
    *,
    picture_seed: int,
    plan: AnswerPlan,
    batch: int,
    seed: int,
    device: torch.device,
    compiled: bool,
    check: Callable[[], str],
    log: Callable[[str], None],
) -> None:
    """Train ``model`` in place on uint8 pictures (count, 96, 96, 3) and labels (count, 144, 7) of ``picture_seed``.

    ``compiled`` has the layers compiled, which takes a C++ compiler, or Triton on a
    GPU, and on two cores saves a third of the time. ``check``
    is called every hundred steps and its text is logged.
    """
    nn.Module.to(model, device).train()
    use_packed_attention(model)
    parts = model.model
    tower, trained = parts.vision_tower, [(parts.multi_modal_projector, plan.rate), (parts.language_model, plan.rate)]
    trained.append((model.lm_head, plan.rate))
    tower.requires_grad_(plan.tower_rate > 0)
    if plan.tower_rate > 0:
        trained.append((tower, plan.tower_rate))
    if compiled:
        layers = [*parts.language_model.layers, *(tower.encoder.layers if plan.tower_rate > 0 else ())]
        for layer in layers:
            layer.compile(dynamic=False)
    adam, schedule = optimiser(trained, plan.horizon, warmup=min(50, plan.horizon // 10 + 1), floor=plan.floor)
    alignment = WordAlignment(packer.tokenizer, device)
    rng = np.random.default_rng([seed, 2])
    order = batches(len(pictures), batch, rng)
    started = time.monotonic()
    for step in range(plan.steps):
        chosen = next(order)
        layouts = [plan_layout(picture_seed, int(index)) for index in chosen]
        packed = packer.pack([mixed_questions(layout, plan.mix, rng) for layout in layouts], BLOCK_LENGTH)
        pixels = to_pixels(pictures[chosen], device)
        with torch.autocast(device.type, torch.bfloat16):
            features = torch.stack(tuple(model.get_image_features(pixel_values=pixels).pooler_output))
            hidden = packed_hidden(model, packer.prefix, features, packed.ids.to(device))
            targets = packed.targets.to(device)
            told = targets != IGNORED
            loss = cross_entropy(model.lm_head(hidden[told]).float(), targets[told])
        words = torch.from_numpy(labels[chosen].astype(np.int64)).to(device)
        embeddings = parts.language_model.get_input_embeddings().weight
        loss_with_words = loss + ALIGNMENT_WEIGHT * alignment(features, embeddings, words, layouts)
        adam.zero_grad(set_to_none=True)
        loss_with_words.backward()
        nn.utils.clip_grad_norm_([p for group in adam.param_groups for p in group["params"]], 1.0)
        adam.step()
        schedule.step()
        if step % 25 == 24:
            log(f"answers {step + 1}/{plan.steps} {time.monotonic() - started:.0f}s loss {loss.item():.4f}")
        if step % 100 == 99 or step == plan.steps - 1:
            with torch.compiler.set_stance("force_eager"):
                log(check())
            model.train()
    tower.requires_grad_(True)
