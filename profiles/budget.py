"""Token budgets: which decoder layer keeps how many visual tokens, and how such a schedule is counted.

Layers are 0-based. A stage prunes the *output* of its layer: layers > after_layer see ``keep`` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from .errors import UsageError

LIST_TOKENS = 576
LIST_DEPTH = 32
LIST_LAYERS = (2, 6, 15)
_THIRD, _TWO_NINTHS, _NINTH = Fraction(1, 3), Fraction(2, 9), Fraction(1, 9)
LISTS: dict[str, dict[Fraction, tuple[int, int, int]]] = {
    # Kept tokens per stage for N = 576 by nominal share. "recycled" was published by methods that give tokens
    # back; without recycling only "plain" averages to its nominal budget.
    "plain": {_THIRD: (300, 200, 118), _TWO_NINTHS: (238, 108, 60), _NINTH: (66, 34, 20)},
    "recycled": {_THIRD: (300, 200, 110), _TWO_NINTHS: (303, 110, 36), _NINTH: (66, 30, 17)},
}
EXPLICIT = "explicit"
MAX_STAGES = 8
MIN_DEPTH = 5  # the least that has three layers >= 1 with two layers left to run on the pruned sequence

Convention = Literal["leaving", "entering"]


@dataclass(frozen=True)
class Stage:
    """Decoder layers > ``after_layer`` see ``keep`` visual tokens.

    Raises:
        UsageError: ``after_layer`` < 0 or ``keep`` < 1.
    """

    after_layer: int
    keep: int

    def __post_init__(self) -> None:
        if self.after_layer < 0 or self.keep < 1:
            raise UsageError(
                f"stage {self.after_layer}:{self.keep} is impossible: layers count from 0, and at least 1 token is kept"
            )


@dataclass(frozen=True)
class Budget:
    """A checked schedule for one model geometry.

    Attributes:
        nominal: the number people quote, in visual tokens.
        visual_tokens: N, tokens before any pruning.
        decoder_depth: decoder layers.
        schedule: name of the list it came from, or "explicit".
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


def make_budget(nominal: int, visual_tokens: int, decoder_depth: int, schedule: str = "plain") -> Budget:
    """Scale a published list to this model.

    Args:
        nominal: 1/3, 2/9 or 1/9 of ``visual_tokens`` (rounded; off by one is accepted).
        visual_tokens: N, tokens of one picture before pruning.
        decoder_depth: decoder layers.
        schedule: "plain" or "recycled".

    Raises:
        UsageError: another budget or schedule; the text lists what there is.
    """
    if schedule not in LISTS:
        raise UsageError(f"unknown schedule {schedule!r}; there are: {', '.join(LISTS)}")
    allowed = allowed_budgets(visual_tokens) if visual_tokens >= 9 else {}
    layers = stage_layers(decoder_depth)
    near = min(allowed, key=lambda known: abs(known - nominal), default=None)
    if near is None or abs(near - nominal) > 1:
        raise UsageError(_no_such_budget(nominal, visual_tokens, decoder_depth, layers[0], list(allowed)))
    published = LISTS[schedule][allowed[near]]
    keeps = [max(1, round_half_up(Fraction(keep * visual_tokens, LIST_TOKENS))) for keep in published]
    stages = tuple(Stage(layer, keep) for layer, keep in zip(layers, keeps, strict=True))
    check_stages(stages, visual_tokens, decoder_depth)
    return Budget(nominal, visual_tokens, decoder_depth, schedule, stages)


def _no_such_budget(nominal: int, visual_tokens: int, depth: int, first_layer: int, allowed: list[int]) -> str:
    floor = round_half_up(Fraction(visual_tokens * first_layer, depth))
    if 0 < nominal <= floor:
        reason = (
            f"it cannot be reached: with the first prune after layer {first_layer} of {depth}, the layers "
            f"before it alone average to {floor}"
        )
    else:
        reason = "no published list has it"
    choice = f"choose {', '.join(map(str, allowed))}, or give" if allowed else "give"
    return (
        f"a budget of {nominal} of {visual_tokens} visual tokens is refused: {reason}. Instead {choice} your "
        f"own stages as after_layer:keep pairs, for example {first_layer}:{max(1, visual_tokens // 2)}"
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
            there is
            nothing left to save), kept tokens growing or beyond ``visual_tokens``.
    """
    shown = " ".join(f"{stage.after_layer}:{stage.keep}" for stage in stages)
    if not 1 <= len(stages) <= MAX_STAGES:
        raise UsageError(f"{len(stages)} stages given; between 1 and {MAX_STAGES} are possible")
    layer, keep = 0, visual_tokens
    for stage in stages:
        if not layer < stage.after_layer <= decoder_depth - 2:
            raise UsageError(
                f"stages {shown}: layer {stage.after_layer} must be larger than {layer} and at most "
                f"{decoder_depth - 2} (the decoder has {decoder_depth} layers, 0 to {decoder_depth - 1})"
            )
        if stage.keep > keep:
            raise UsageError(f"stages {shown}: {stage.keep} tokens cannot be kept of the {keep} still there")
        layer, keep = stage.after_layer, stage.keep


def tokens_entering(stages: Sequence[Stage], visual_tokens: int, decoder_depth: int) -> list[int]:
    """Visual tokens that every decoder layer computes on, layer 0 first."""
    seen, counts = visual_tokens, []
    keep = {stage.after_layer: stage.keep for stage in stages}
    for layer in range(decoder_depth):
        counts.append(seen)
        seen = keep.get(layer, seen)
    return counts


def mean_tokens(
    stages: Sequence[Stage], visual_tokens: int, decoder_depth: int, convention: Convention = "leaving"
) -> float:
    """Mean visual tokens per decoder layer, counted as they leave or as they enter a layer."""
    return float(_mean(stages, visual_tokens, decoder_depth, convention))


def _mean(stages: Sequence[Stage], visual_tokens: int, decoder_depth: int, convention: Convention) -> Fraction:
    counts = tokens_entering(stages, visual_tokens, decoder_depth + 1)
    counted = counts[:-1] if convention == "entering" else counts[1:]
    return Fraction(sum(counted), decoder_depth)


def prefill_flops(
    stages: Sequence[Stage],
    visual_tokens: int,
    text_tokens: int,
    depth: int,
    width: int,
    ffn: int,
    heads: int,
    kv_heads: int,
    vocab: int = 0,
    *,
    head_width: int | None = None,
) -> int:
    """Floating-point operations of one prefill of the decoder, multiply + add = 2, batch 1.

    Per layer with S tokens: q, k, v, o projections, causal attention (S(S+1)/2 query-key pairs, scores and
    values), all three FFN matrices. ``vocab`` > 0 adds the output head for the last token. Norms, softmax,
    rotary embedding and the selection itself are left out.

    Args:
        stages: empty for the unpruned decoder.
        visual_tokens: N. text_tokens: all other tokens.
        depth: layers. width: hidden size. ffn: FFN inner size. heads, kv_heads: attention heads.
        vocab: rows of the output head, 0 to leave it out.
        head_width: width of one head, ``width // heads`` if not given.
    """
    head = head_width or width // heads
    per_token = 2 * (2 * width * heads * head + 2 * width * kv_heads * head + 3 * width * ffn)
    total = 2 * width * vocab
    for visual in tokens_entering(stages, visual_tokens, depth):
        tokens = visual + text_tokens
        total += per_token * tokens + 2 * tokens * (tokens + 1) * heads * head
    return total
