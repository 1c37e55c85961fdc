"""Questions to a pruned model, with everything a person may want to see about each."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.profiles.files import check_model
from claspkit.profiles.profile import Profile
from claspkit.router.route import Router, make_router
from claspkit.runtime.inputs import batch_inputs, decode_answers
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.pruner import prune

from .overlay import StageView, draw_overlay
from .seen import see


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
        visual_tokens: visual tokens of the prompt before anything is dropped.
        stages: what every stage kept; empty where nothing was dropped.
        seconds: from the prepared inputs to the last token of the pruned model, wall clock.
        seconds_unpruned: the same of the stock model; None if it was not asked.
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
    seconds: float
    seconds_unpruned: float | None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        plain = asdict(self)
        plain["stages"] = [
            {"after_layer": s.after_layer, "kept": list(s.kept), "pivots": sorted(s.pivots)} for s in self.stages
        ]
        return plain


class Asker:
    """One model under one profile, to be asked question after question; greedy decoding."""

    def __init__(self, loaded: LoadedModel, profile: Profile, folder: Path) -> None:
        """Check that the two fit.

        Args:
            loaded: the model.
            profile: made for it.
            folder: the profile's folder, where its router's file lies.

        Raises:
            MismatchError: the profile was made for another model; the text lists the differing fields.
        """
        check_model(profile, loaded.spec)
        self.loaded, self.profile, self._folder = loaded, profile, folder
        self._router: Router | None = None

    def ask(
        self, picture: Image.Image, prompt: str, intent: str | None, max_new_tokens: int, *, compare: bool
    ) -> Answer:
        """Answer ``prompt`` about ``picture``.

        Args:
            picture: RGB.
            prompt: as a user typed it.
            intent: its class, in the place of the profile's router.
            max_new_tokens: longest answer.
            compare: also ask the stock model.

        Raises:
            BadDataError: the model's processor refuses the picture.
            UsageError: unknown intent.
        """
        intent, source, confidence = self._label(prompt, intent)
        spec = self.profile.for_intent(intent)
        loaded = self.loaded
        try:
            inputs = batch_inputs(loaded, [picture], [prompt])
        except ValueError as error:  # what image processors raise for pictures that they cannot take
            raise BadDataError(f"the model's image processor refuses the picture: {error}") from error
        placeholders = torch.tensor(loaded.family.placeholder_ids(loaded.model), device=inputs["input_ids"].device)
        unpruned, unpruned_seconds = None, None
        with torch.inference_mode():
            if compare:
                unpruned, unpruned_seconds = _generate(loaded, inputs, max_new_tokens)
            with prune(loaded.model, self.profile, intents=[intent]) as pruned:
                text, seconds = _generate(loaded, inputs, max_new_tokens)
                rows = [(stage.after_layer, stage.row(0)) for stage in pruned.last]
        stages = tuple(
            StageView(
                after_layer,
                tuple(token for token, _ in row),
                tuple(token for token, kind in row if kind == "pivot"),
            )
            for after_layer, row in rows
        )
        return Answer(
            text=text,
            unpruned=unpruned,
            intent=intent,
            label_source=source,
            confidence=confidence,
            layers=tuple(spec.layers),
            rho=spec.rho,
            visual_tokens=int(torch.isin(inputs["input_ids"], placeholders).sum()),
            stages=stages,
            seconds=seconds,
            seconds_unpruned=unpruned_seconds,
        )

    def _label(self, prompt: str, intent: str | None) -> tuple[str, str, float]:
        if intent is not None:
            return intent, "given", 1.0
        if self._router is None:
            self._router = make_router(self.profile.router, self._folder, self.profile.read_taxonomy())
        label = self._router([prompt])[0]
        return label.intent, label.source, label.confidence


def _generate(loaded: LoadedModel, inputs: Any, max_new_tokens: int) -> tuple[str, float]:
    """The answer, and the seconds it took."""
    started = time.perf_counter()
    generated = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    answer = decode_answers(loaded, generated[:, inputs["input_ids"].shape[1] :])[0]  # waits for the device
    return answer, time.perf_counter() - started


def draw(loaded: LoadedModel, picture: Image.Image, answer: Answer) -> Image.Image:
    """Draw what every stage kept on the picture; a model that sees one square of it has that one drawn on.

    Raises:
        UsageError: no stage dropped anything.
    """
    if not answer.stages:
        raise UsageError("no stage dropped a token of this picture, so there is nothing to draw")
    return draw_overlay(*see(loaded, picture), answer.stages)
