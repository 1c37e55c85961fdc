"""One question to a pruned model, with everything a person may want to see about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from claspkit.profiles.profile import Profile
from claspkit.router.route import make_router
from claspkit.runtime.inputs import batch_inputs, decode_answers, pixel_values
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.pruner import prune

from .overlay import StageView, draw_overlay


@dataclass(frozen=True)
class Answer:
    """A pruned model's answer and how it came about.

    Attributes:
        text: the answer.
        unpruned: the stock model's answer; None if it was not asked.
        intent: class of the prompt.
        label_source: who decided the class.
        confidence: of that decision, 0..1.
        layers: vision layers fused.
        rho: share of the budget given to pivots.
        visual_tokens: tokens that enter the decoder.
        stages: what every stage kept.
    """

    text: str
    unpruned: str | None
    intent: str
    label_source: str
    confidence: float
    layers: tuple[int, ...]
    rho: float
    visual_tokens: int
    stages: tuple[StageView, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        plain = asdict(self)
        plain["stages"] = [
            {"after_layer": s.after_layer, "kept": list(s.kept), "pivots": sorted(s.pivots)} for s in self.stages
        ]
        return plain


def ask(
    loaded: LoadedModel,
    profile: Profile,
    folder: Path,
    picture: Image.Image,
    prompt: str,
    intent: str | None,
    max_new_tokens: int,
    compare: bool,
) -> Answer:
    """Answer ``prompt`` about ``picture``, pruned by ``profile``; greedy decoding.

    ``intent`` overrides the profile's router, ``compare`` asks the stock model too.
    """
    if intent is None:
        label = make_router(profile.router, folder, profile.read_taxonomy())([prompt])[0]
        intent, source, confidence = label.intent, label.source, label.confidence
    else:
        source, confidence = "given", 1.0
    inputs = batch_inputs(loaded, [picture], [prompt])
    with torch.inference_mode():
        unpruned = _generate(loaded, inputs, max_new_tokens) if compare else None
        with prune(loaded.model, profile, intents=[intent]) as pruned:
            text = _generate(loaded, inputs, max_new_tokens)
            trace = pruned.last
    spec = profile.for_intent(intent)
    stages = []
    for stage in trace:
        kept, pivot = stage.kept[0].tolist(), stage.pivot[0].tolist()
        stages.append(
            StageView(stage.after_layer, tuple(kept), tuple(k for k, p in zip(kept, pivot, strict=True) if p))
        )
    return Answer(
        text=text,
        unpruned=unpruned,
        intent=intent,
        label_source=source,
        confidence=confidence,
        layers=tuple(spec.layers),
        rho=spec.rho,
        visual_tokens=loaded.spec.visual_tokens,
        stages=tuple(stages),
    )


def _generate(loaded: LoadedModel, inputs: Any, max_new_tokens: int) -> str:
    generated = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return decode_answers(loaded, generated[:, inputs["input_ids"].shape[1] :])[0]


def draw(loaded: LoadedModel, picture: Image.Image, answer: Answer) -> Image.Image:
    """Draw what every stage kept on the picture as the model sees it: resized and cropped by its processor."""
    processor = loaded.processor.image_processor
    values = pixel_values(loaded, [picture])[0].float().cpu()
    mean, std = (
        torch.tensor(processor.image_mean)[:, None, None],
        torch.tensor(processor.image_std)[:, None, None],
    )
    seen = ((values * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    side = round(answer.visual_tokens**0.5)
    return draw_overlay(Image.fromarray(seen), (side, side), answer.stages)
