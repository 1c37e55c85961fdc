"""How often the answers are right, per intent, on pictures no training has seen.

    python -m claspkit.mini.evaluate --pictures 2000 [--random-keep 16] [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration

from .corpus import draw_pictures
from .finetune import mixed_questions
from .layout import plan_layout
from .packing import IGNORED, QuestionPacker, packed_hidden, use_packed_attention
from .samples import HELD_OUT_SEED
from .schedule import to_pixels
from .store import MODEL_DIR, load_model
from .words import INTENTS


@torch.no_grad()
def packed_accuracy(
    model: LlavaForConditionalGeneration,
    packer: QuestionPacker,
    pictures: np.ndarray,
    *,
    picture_seed: int,
    device: torch.device,
    random_keep: int | None = None,
    batch: int = 50,
) -> dict[str, float]:
    """Return the share of exactly right answers per intent, one question of each intent per picture.

    ``pictures`` is uint8 (count, 96, 96, 3), those of ``picture_seed`` from index 0. An answer is right where the
    greedy choice is right at each of its tokens and at the end of text. ``random_keep`` keeps that many of the 144
    visual tokens, drawn per picture, before the decoder.
    """
    torch.nn.Module.to(model, device).eval()
    use_packed_attention(model)
    right, total = dict.fromkeys(INTENTS, 0), dict.fromkeys(INTENTS, 0)
    mix = dict.fromkeys(INTENTS, 1)
    for start in range(0, len(pictures), batch):
        part = pictures[start : start + batch]
        indices = range(start, start + len(part))
        rngs = [np.random.default_rng([picture_seed, index, 2]) for index in indices]
        asked = [mixed_questions(plan_layout(picture_seed, i), mix, r) for i, r in zip(indices, rngs, strict=True)]
        packed = packer.pack(asked)
        features = torch.stack(tuple(model.get_image_features(pixel_values=to_pixels(part, device)).pooler_output))
        kept = None
        if random_keep is not None:
            chosen = [np.sort(r.permutation(features.shape[1])[:random_keep]) for r in rngs]
            kept = torch.from_numpy(np.stack(chosen)).to(device)
        hidden = packed_hidden(model, packer.prefix, features, packed.ids.to(device), kept)
        best = model.lm_head(hidden).argmax(-1).cpu()
        good = ((best == packed.targets) | (packed.targets == IGNORED)).all(-1)
        for row, answers in zip(asked, good.tolist(), strict=True):
            for question, is_right in zip(row, answers, strict=True):
                right[question.intent] += is_right
                total[question.intent] += 1
    return {intent: right[intent] / total[intent] for intent in INTENTS}


def mean_accuracy(scores: dict[str, float]) -> float:
    """The mean over intents, each counted once."""
    return sum(scores.values()) / len(scores)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the accuracy per intent, as a table or as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m claspkit.mini.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="a folder written by the recipe")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="the pictures' seed; 0 to 999 is training")
    parser.add_argument("--random-keep", type=int, help="keep only that many random visual tokens")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    model, processor = load_model(chosen.model)
    scores = packed_accuracy(
        model,
        QuestionPacker(processor.tokenizer),
        draw_pictures(chosen.seed, chosen.pictures),
        picture_seed=chosen.seed,
        device=torch.device(chosen.device),
        random_keep=chosen.random_keep,
    )
    scores["mean"] = mean_accuracy(scores)
    if chosen.json:
        print(json.dumps({name: round(score, 4) for name, score in scores.items()}))
    else:
        print("\n".join(f"{name:10s} {score:.3f}" for name, score in scores.items()))


if __name__ == "__main__":
    main()
