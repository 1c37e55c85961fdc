"""Other ways of choosing tokens at the same FLOPs, and how much of what a question is about they keep."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from _mini_answers import RANDOM, Outside, Stages, Way, random_scores
from torch import Tensor

from claspkit.calib.finished import FinishedRun
from claspkit.calib.plan import decoder_flops
from claspkit.calib.samples import Sample
from claspkit.mini.layout import PICTURE_SIZE, Item, Layout, plan_layout
from claspkit.mini.samples import CALIBRATION_SEED
from claspkit.mini.words import PLURALS
from claspkit.profiles.budget import BEFORE_DECODER, Stage
from claspkit.runtime.families import FamilyFacts
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.prefill import StageTrace

RHOS = (0.0, 0.3, 0.6, 0.9, 1.0)
DEFAULT = "default"
ASKED, OTHERS = "asked", "others"  # saliency that knows what a question is about: first that, or first all else


def alternatives(run: FinishedRun, loaded: LoadedModel) -> dict[str, Way]:
    """Name -> a way on the stock layer: the default first, then saliency x features x split, then stages, then chance.

    A split of 0 asks for no saliency and one of 1 for no features, so these are not crossed with them.
    """
    default, stages = run.space.default, tuple((s.after_layer, s.keep) for s in run.profile.budget.stages)
    own = default.prototype

    def way(stages: Stages, rho: float, saliency: str = "text", features: str = "aligned") -> Way:
        return Way(stages, own.layers, own.weights, rho, saliency, features)

    found = {DEFAULT: Way.of(default, stages)}
    for features in ("aligned", "hidden"):
        for saliency in ("text", "last"):
            for rho in RHOS:
                if (rho == 0 and saliency != "text") or (rho == 1 and features != "aligned"):
                    continue
                found[f"saliency {saliency}, features {features}, rho {rho:g}"] = way(stages, rho, saliency, features)
    facts = loaded.family.facts(loaded.model)
    flops = decoder_flops(run.profile.budget.stages, facts)
    first, depth = stages[0][0], facts.decoder_depth
    for layers, shares in (((first,), (1.0,)), ((first, first + 1), (1.0, 0.25)), ((first, depth // 2), (1.0, 0.5))):
        equal = same_flops(layers, shares, flops, facts)
        for rho in (0.0, default.rho):
            found[f"stages {' '.join(f'{layer}:{keep}' for layer, keep in equal)}, rho {rho:g}"] = way(equal, rho)
    entrance = same_flops((BEFORE_DECODER,), (1.0,), flops, facts)
    found["tokens on what is asked about"] = way(stages, 1.0, ASKED)
    found["tokens on anything else"] = way(stages, 1.0, OTHERS)
    found["random tokens"] = way(stages, 1.0, RANDOM)
    found[f"random tokens, {entrance[0][1]} {Stage(*entrance[0]).place}"] = way(entrance, 1.0, RANDOM)
    return {name: one for name, one in found.items() if name == DEFAULT or one != found[DEFAULT]}


def same_flops(layers: Sequence[int], shares: Sequence[float], flops: int, facts: FamilyFacts) -> Stages:
    """Stages after ``layers`` that keep tokens in proportion to ``shares``, as many as ``flops`` allow.

    Raises:
        ValueError: one token after every stage is more than that already.
    """

    def stages(most: int) -> tuple[Stage, ...]:
        return tuple(Stage(layer, max(1, round(most * share))) for layer, share in zip(layers, shares, strict=True))

    fitting = [most for most in range(1, facts.visual_tokens + 1) if decoder_flops(stages(most), facts) <= flops]
    if not fitting:
        raise ValueError(f"no stages after layers {list(layers)} cost at most {flops} FLOPs")
    return tuple((stage.after_layer, stage.keep) for stage in stages(max(fitting)))


@dataclass(frozen=True)
class Kept:
    """What the last stage kept, and what numbers were answered, over the questions about things in the picture.

    Attributes:
        covered: share of the things asked about on which at least one kept token lies.
        share: share of the kept tokens that lie on a thing asked about.
        above: share of the questions with a number as answer that were answered with a larger one; None without any.
        below: the same for a smaller one.
    """

    covered: float
    share: float
    above: float | None
    below: float | None


@dataclass
class _Counts:
    things: int = 0
    met: int = 0
    tokens: int = 0
    on: int = 0
    numbers: int = 0
    above: int = 0
    below: int = 0


@dataclass
class Watcher:
    """Compares what the stages keep with where the things stand that a question is about.

    Attributes:
        pictures: SHA-256 hex -> number of a picture.
        seed: of the pictures.
    """

    pictures: dict[str, int]
    seed: int
    _counts: dict[tuple[Way, str], _Counts] = field(default_factory=dict)

    def watch(self, way: Way, block: Sequence[Sample], stages: Sequence[StageTrace], answers: Sequence[str]) -> None:
        """Take a block; see :attr:`Asker.watch`."""
        if not stages:
            return
        for row, sample in enumerate(block):
            things = self.things(sample)
            if not things:
                continue
            kept = {token for token, _ in stages[-1].row(row)}
            counts = self._counts.setdefault((way, sample.intent_hint or ""), _Counts())
            counts.things += len(things)
            counts.met += sum(bool(kept & thing) for thing in things)
            counts.tokens += len(kept)
            counts.on += len(kept & set().union(*things))
            said, right = answers[row].strip(), sample.answers[0]
            if right.isdecimal():
                counts.numbers += 1
                counts.above += said.isdecimal() and int(said) > int(right)
                counts.below += said.isdecimal() and int(said) < int(right)

    def things(self, sample: Sample) -> list[set[int]]:
        """The patches of each thing that a question is about."""
        layout = plan_layout(CALIBRATION_SEED + self.seed, self.pictures[sample.image_sha256])
        return [patches_of(item) for item in asked_about(layout, sample.intent_hint or "", sample.prompt)]

    def outside(self) -> dict[str, Outside]:
        """Saliency by name: chance alone, and chance below or above what is asked about."""

        def raised(by: float) -> Outside:
            def scores(samples: Sequence[Sample], tokens: int) -> Tensor:
                found = random_scores(samples, tokens)
                for row, sample in enumerate(samples):
                    for thing in self.things(sample):
                        found[row, sorted(thing)] += by
                return found

            return scores

        return {RANDOM: random_scores, ASKED: raised(2.0), OTHERS: raised(-2.0)}

    def kept(self, way: Way, intent: str) -> Kept | None:
        """What was seen of a way and a class; None where no question was about a thing."""
        if (way, intent) not in self._counts:
            return None
        counts = self._counts[way, intent]
        numbers = counts.numbers
        return Kept(
            covered=counts.met / counts.things,
            share=counts.on / counts.tokens,
            above=counts.above / numbers if numbers else None,
            below=counts.below / numbers if numbers else None,
        )


def asked_about(layout: Layout, intent: str, prompt: str) -> list[Item]:
    """The things in a picture that a question is about; none for one about the scene or an absent thing."""
    words = set(re.findall("[a-z]+", prompt.lower()))
    roles = {"text": "sign", "action": "person", "intention": "tool"}
    if intent in roles:
        return [item for item in layout.items if item.role == roles[intent]]
    if intent == "object":
        return [shape for shape in layout.shapes if shape.detail in words]
    return [
        item
        for item in layout.items
        if item.role in ("shape", "tool") and (item.kind in words or PLURALS.get(item.kind) in words)
    ]


def patches_of(item: Item, patch: int = 8) -> set[int]:
    """The picture's patches, numbered row by row, that an item's box touches."""
    left, top, right, bottom = item.box
    across = PICTURE_SIZE // patch

    def touched(low: int, high: int) -> Iterator[int]:
        return iter(range(max(0, low) // patch, min(PICTURE_SIZE - 1, high - 1) // patch + 1))

    return {row * across + column for row in touched(top, bottom) for column in touched(left, right)}
