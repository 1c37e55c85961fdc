"""Token budgets: which decoder layer keeps how many visual tokens, and how such a schedule is counted.

Layers are 0-based. A stage prunes the *output* of its layer: layers > after_layer see ``keep`` tokens. A stage
before the decoder (``after_layer`` -1) prunes its input: all layers do. What a schedule costs: ``cost.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from .errors import UsageError

LIST_TOKENS = 576
LIST_DEPTH = 32
LIST_LAYERS = (2, 6, 15)
LIST_MIN_TOKENS = 9  # of fewer tokens, the smallest list's share is not one
_THIRD, _TWO_NINTHS, _NINTH = Fraction(1, 3), Fraction(2, 9), Fraction(1, 9)
LISTS: dict[str, dict[Fraction, tuple[int, int, int]]] = {
    # Kept tokens per stage for N = 576 by nominal share. "recycled" was published by methods that give tokens
    # back; without recycling only "plain" averages to its nominal budget.
    "plain": {_THIRD: (300, 200, 118), _TWO_NINTHS: (238, 108, 60), _NINTH: (66, 34, 20)},
    "recycled": {_THIRD: (300, 200, 110), _TWO_NINTHS: (303, 110, 36), _NINTH: (66, 30, 17)},
}
PLAIN, INTERPOLATED, EXPLICIT = "plain", "interpolated", "explicit"
SCHEDULES = (*LISTS, INTERPOLATED)
BEFORE_DECODER = -1
"""The ``after_layer`` of a stage that prunes what enters the decoder."""
MAX_STAGES = 8
MIN_DEPTH = 5  # the least that has three layers >= 1 with two layers left to run on the pruned sequence

Convention = Literal["leaving", "entering"]
Scaling = Literal["absolute", "share"]
"""What ``keep`` means for a picture of another size than the reference, see :func:`keep_for`."""


@dataclass(frozen=True)
class Stage:
    """Decoder layers > ``after_layer`` see ``keep`` visual tokens; :data:`BEFORE_DECODER` is before all of them.

    Raises:
        UsageError: ``after_layer`` < -1 or ``keep`` < 1.
    """

    after_layer: int
    keep: int

    def __post_init__(self) -> None:
        if self.after_layer < BEFORE_DECODER or self.keep < 1:
            raise UsageError(
                f"stage {self.after_layer}:{self.keep} is impossible: layers count from 0 ({BEFORE_DECODER} is before "
                "the decoder), and at least 1 token is kept"
            )

    def __str__(self) -> str:
        """As the command line takes it: ``2:300``, ``before:192``."""
        return f"{'before' if self.after_layer == BEFORE_DECODER else self.after_layer}:{self.keep}"

    @property
    def place(self) -> str:
        """Where it prunes, in words."""
        return "before the decoder" if self.after_layer == BEFORE_DECODER else f"after layer {self.after_layer}"


@dataclass(frozen=True)
class Budget:
    """A checked schedule for one model geometry.

    Attributes:
        nominal: the number people quote, in visual tokens.
        visual_tokens: N, tokens before any pruning.
        decoder_depth: decoder layers.
        schedule: "plain" or "recycled" (a published list), "interpolated" or "explicit".
        stages: ascending in layer, non-increasing in kept tokens.
    """

    nominal: int
    visual_tokens: int
    decoder_depth: int
    schedule: str
    stages: tuple[Stage, ...]

    @property
    def mean_leaving(self) -> float:
        """Mean over layers of the tokens leaving a layer: what published budgets quote."""
        return mean_tokens(self.stages, self.visual_tokens, self.decoder_depth, "leaving")

    @property
    def mean_entering(self) -> float:
        """Mean over layers of the tokens entering a layer: what is computed."""
        return mean_tokens(self.stages, self.visual_tokens, self.decoder_depth, "entering")


def round_half_up(value: Fraction | int) -> int:
    """floor(value + 1/2), exact."""
    return int((Fraction(value) + Fraction(1, 2)) // 1)


def stage_layers(decoder_depth: int) -> tuple[int, ...]:
    """The layers {2, 6, 15} of 32 for another depth: rounded half up, each >= 1 and all different.

    Raises:
        UsageError: fewer than MIN_DEPTH layers.
    """
    if decoder_depth < MIN_DEPTH:
        raise UsageError(
            f"a decoder of {decoder_depth} layers is too shallow for three stages; at least {MIN_DEPTH} are "
            "needed. Give your own stages."
        )
    layers: list[int] = []
    for layer in LIST_LAYERS:
        scaled = round_half_up(Fraction(decoder_depth * layer, LIST_DEPTH))
        layers.append(max(scaled, 1, layers[-1] + 1 if layers else 1))
    return tuple(layers)


def allowed_budgets(visual_tokens: int) -> dict[int, Fraction]:
    """Nominal budgets that the lists have for N visual tokens -> their share, largest first."""
    return {round_half_up(visual_tokens * share): share for share in sorted(LISTS["plain"], reverse=True)}


def budget_floor(visual_tokens: int, decoder_depth: int) -> int:
    """Mean of leaving tokens that the layers before the first stage of a list cost alone, rounded half up.

    No nominal at or below it can be reached by the lists' layers, whatever is kept afterwards.

    Raises:
        UsageError: see :func:`stage_layers`.
    """
    return round_half_up(Fraction(visual_tokens * stage_layers(decoder_depth)[0], decoder_depth))


def make_budget(nominal: int, visual_tokens: int, decoder_depth: int, schedule: str = PLAIN) -> Budget:
    """Scale a published list to this model, or make a schedule between two of them.

    Args:
        nominal: visual tokens; with "plain", 1/3, 2/9 and 1/9 of ``visual_tokens`` (rounded; off by one is accepted)
            take the published list, and any other gives an "interpolated" schedule whose mean of leaving tokens is
            ``nominal`` to within 1.
        visual_tokens: N, tokens of one picture before pruning.
        decoder_depth: decoder layers.
        schedule: "plain"; "recycled", which has its lists only; "interpolated", which never takes a list.

    Raises:
        UsageError: a budget that cannot be reached, one that "recycled" does not have, or another schedule; the
            text says what there is.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"unknown schedule {schedule!r}; there are: {', '.join(SCHEDULES)}")
    layers = stage_layers(decoder_depth)
    share = None if schedule == INTERPOLATED else _listed_share(nominal, visual_tokens)
    if share is not None:
        scaled = (Fraction(keep * visual_tokens, LIST_TOKENS) for keep in LISTS[schedule][share])
        keeps = [max(1, round_half_up(keep)) for keep in scaled]
    else:
        floor = budget_floor(visual_tokens, decoder_depth)
        if schedule not in (PLAIN, INTERPOLATED) or not floor < nominal <= visual_tokens:
            raise UsageError(_refusal(nominal, visual_tokens, decoder_depth, schedule))
        schedule, keeps = INTERPOLATED, _interpolate(nominal, visual_tokens, decoder_depth, layers)
    stages = tuple(Stage(layer, keep) for layer, keep in zip(layers, keeps, strict=True))
    check_stages(stages, visual_tokens, decoder_depth)
    return Budget(nominal, visual_tokens, decoder_depth, schedule, stages)


def _listed_share(nominal: int, visual_tokens: int) -> Fraction | None:
    allowed = allowed_budgets(visual_tokens) if visual_tokens >= LIST_MIN_TOKENS else {}
    near = min(allowed, key=lambda known: abs(known - nominal), default=None)
    return None if near is None or abs(near - nominal) > 1 else allowed[near]


def _interpolate(nominal: int, visual_tokens: int, depth: int, layers: tuple[int, ...]) -> list[int]:
    """Kept tokens on the straight line between the two anchors whose means of leaving tokens enclose ``nominal``.

    The anchors are one token per stage, the plain lists, and everything. The mean is linear in the kept tokens, so
    only rounding separates it from ``nominal``.
    """
    spans = [after - layer for layer, after in pairwise((*layers, depth))]
    one, everything = (Fraction(1),) * len(layers), (Fraction(visual_tokens),) * len(layers)
    published = [LISTS[PLAIN][share] for share in sorted(LISTS[PLAIN])]
    scaled = [tuple(max(Fraction(1), Fraction(k * visual_tokens, LIST_TOKENS)) for k in keeps) for keeps in published]

    def mean(keeps: tuple[Fraction, ...]) -> Fraction:
        kept = sum(keep * span for keep, span in zip(keeps, spans, strict=True))
        return Fraction(visual_tokens * layers[0] + kept, depth)

    for less, more in pairwise([one, *scaled, everything]):
        low, high = mean(less), mean(more)
        if low < nominal <= high:
            part = (nominal - low) / (high - low)
            return [round_half_up(a + part * (b - a)) for a, b in zip(less, more, strict=True)]
    return [1] * len(layers)  # above the floor by less than the single token per stage costs


def _refusal(nominal: int, visual_tokens: int, depth: int, schedule: str) -> str:
    first, floor = stage_layers(depth)[0], budget_floor(visual_tokens, depth)
    lists = ", ".join(map(str, allowed_budgets(visual_tokens)))
    if 0 < nominal <= floor:
        reason = (
            f"it cannot be reached: with the first prune after layer {first} of {depth}, the layers before it alone "
            f"average to {floor}"
        )
    elif 0 < nominal <= visual_tokens:
        reason = f"the list {schedule!r} has only {lists}, and schedule {PLAIN!r} any other"
    else:
        reason = "a budget is a number of those tokens"
    return (
        f"a budget of {nominal} of {visual_tokens} visual tokens is refused: {reason}. Instead choose from "
        f"{floor + 1} to {visual_tokens} (published: {lists}), or give your own stages as after_layer:keep pairs, "
        f"for example {Stage(first, max(1, visual_tokens // 2))}, or "
        f"{Stage(BEFORE_DECODER, max(1, min(nominal, visual_tokens)))} for a stage before the decoder"
    )


def explicit_budget(stages: Sequence[Stage], visual_tokens: int, decoder_depth: int) -> Budget:
    """A budget of the user's own stages; its nominal is the mean of leaving tokens, rounded half up.

    Raises:
        UsageError: see :func:`check_stages`.
    """
    check_stages(stages, visual_tokens, decoder_depth)
    mean = _mean(stages, visual_tokens, decoder_depth, "leaving")
    return Budget(max(1, round_half_up(mean)), visual_tokens, decoder_depth, EXPLICIT, tuple(stages))


def check_stages(stages: Sequence[Stage], visual_tokens: int, decoder_depth: int) -> None:
    """Refuse a schedule that the decoder cannot run.

    Raises:
        UsageError: no or too many stages, layers not ascending within [1, depth - 2] (after the last but one
            there is nothing left to save; only the first stage may stand before the decoder), kept tokens growing
            or beyond ``visual_tokens``.
    """
    shown = " ".join(map(str, stages))
    if not 1 <= len(stages) <= MAX_STAGES:
        raise UsageError(f"{len(stages)} stages given; between 1 and {MAX_STAGES} are possible")
    layer, keep = 0, visual_tokens
    for index, stage in enumerate(stages):
        if stage.after_layer == BEFORE_DECODER:
            if index > 0:
                raise UsageError(f"stages {shown}: a stage before the decoder must be the first of all")
        elif not layer < stage.after_layer <= decoder_depth - 2:
            raise UsageError(
                f"stages {shown}: layer {stage.after_layer} must be larger than {layer} and at most "
                f"{decoder_depth - 2} (the decoder has {decoder_depth} layers, 0 to {decoder_depth - 1})"
            )
        if stage.keep > keep:
            raise UsageError(f"stages {shown}: {stage.keep} tokens cannot be kept of the {keep} still there")
        layer, keep = max(layer, stage.after_layer), stage.keep


def prunes_before_decoder(stages: Sequence[Stage]) -> bool:
    """Whether the first stage stands before the decoder, where only saliency "cls" can be had."""
    return any(stage.after_layer == BEFORE_DECODER for stage in stages)


def keep_for(keep: int, tokens: int, pictures: int, visual_tokens: int, scaling: str) -> int:
    """Visual tokens that a stage keeps of one prompt.

    Args:
        keep: the stage's number, for one picture of ``visual_tokens``.
        tokens: visual tokens of the prompt's pictures together.
        pictures: how many pictures those are.
        visual_tokens: tokens of the reference picture, >= 1.
        scaling: "absolute" keeps ``keep`` of every picture whatever its size, and all of smaller ones; "share" keeps
            ``keep / visual_tokens`` of them, rounded half up, and at least one.

    Raises:
        UsageError: another ``scaling``.
    """
    if scaling == "absolute":
        return min(tokens, keep * pictures)
    if scaling != "share":
        raise UsageError(f"unknown scaling {scaling!r} of a budget; there are: absolute, share")
    return min(tokens, max(1, (2 * keep * tokens + visual_tokens) // (2 * visual_tokens)))


def tokens_entering(stages: Sequence[Stage], visual_tokens: int, decoder_depth: int) -> list[int]:
    """Visual tokens that every decoder layer computes on, layer 0 first."""
    keep = {stage.after_layer: stage.keep for stage in stages}
    seen, counts = keep.get(BEFORE_DECODER, visual_tokens), []
    for layer in range(decoder_depth):
        counts.append(seen)
        seen = keep.get(layer, seen)
    return counts


def tokens_leaving(stages: Sequence[Stage], visual_tokens: int, decoder_depth: int) -> list[int]:
    """Visual tokens that every decoder layer hands on, layer 0 first."""
    return tokens_entering(stages, visual_tokens, decoder_depth + 1)[1:]


def mean_tokens(
    stages: Sequence[Stage], visual_tokens: int, decoder_depth: int, convention: Convention = "leaving"
) -> float:
    """Mean visual tokens per decoder layer, counted as they leave or as they enter a layer."""
    return float(_mean(stages, visual_tokens, decoder_depth, convention))


def _mean(stages: Sequence[Stage], visual_tokens: int, decoder_depth: int, convention: Convention) -> Fraction:
    count = tokens_entering if convention == "entering" else tokens_leaving
    return Fraction(sum(count(stages, visual_tokens, decoder_depth)), decoder_depth)
