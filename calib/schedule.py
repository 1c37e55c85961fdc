"""From ``--budget`` and ``--stage`` to a checked budget for the model at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from claspkit.profiles.budget import BEFORE_DECODER, Budget, Stage, explicit_budget, make_budget, round_half_up
from claspkit.profiles.errors import UsageError

# Digits are bounded: Fraction takes "1e999999999" too, and works it out.
_NOMINAL = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9}|/[0-9]{1,9})?)\s*(?P<percent>%?)")
_BEFORE = "before"
MAX_BUDGETS = 8
"""Budgets of one run, at most."""


def parse_nominal(text: str, visual_tokens: int) -> int:
    """Read a nominal budget: visual tokens such as "192", or a share of them such as "1/3", "0.35" or "35%".

    Raises:
        UsageError: none of these, or not between 1 and ``visual_tokens``.
    """
    found = _NOMINAL.fullmatch(text.strip())
    try:
        value = Fraction(found["number"]) if found else None
    except ZeroDivisionError:
        value = None
    if found is None or value is None:
        raise UsageError(f"--budget takes visual tokens (192) or a share of them (1/3, 0.35, 35%), got {text!r}")
    if found["percent"]:
        nominal, whole = round_half_up(value / 100 * visual_tokens), True
    elif value < 1:
        nominal, whole = round_half_up(value * visual_tokens), True
    else:
        nominal, whole = int(value), value.denominator == 1
    if not 1 <= nominal <= visual_tokens or not whole:
        raise UsageError(f"--budget {text}: allowed are 1 to {visual_tokens} whole tokens, or a share between 0 and 1")
    return nominal


def parse_stages(texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Read explicit stages, each "AFTER_LAYER:KEEP" such as "2:300", or "before:192" for one before the decoder.

    Raises:
        UsageError: an item of another form.
    """
    stages = []
    for text in texts:
        layer, colon, keep = (part.strip() for part in text.partition(":"))
        if not colon or not (layer == _BEFORE or _is_count(layer)) or not _is_count(keep):
            raise UsageError(
                f"--stage takes AFTER_LAYER:KEEP, for example 2:300, or {_BEFORE}:192 for a stage before the decoder, "
                f"got {text!r}"
            )
        stages.append((BEFORE_DECODER if layer == _BEFORE else int(layer), int(keep)))
    return tuple(stages)


def run_budget(
    budget: str, schedule: str, stages: Sequence[tuple[int, int]], visual_tokens: int, decoder_depth: int
) -> Budget:
    """Return the schedule a run prunes by: the explicit stages if there are any, else one for the nominal budget.

    Raises:
        UsageError: it cannot be run by a decoder of this depth; the text says what can.
    """
    if stages:
        return explicit_budget([Stage(*stage) for stage in stages], visual_tokens, decoder_depth)
    return make_budget(parse_nominal(budget, visual_tokens), visual_tokens, decoder_depth, schedule)


def join_budgets(texts: Sequence[str]) -> str:
    """Budgets as they were typed, each maybe several with commas between, as the one text that a run is locked with.

    Raises:
        UsageError: an empty one.
    """
    parts = [part.strip() for text in texts for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"--budget takes visual tokens or shares with commas between, got {','.join(texts)!r}")
    return ",".join(parts)


def run_budgets(
    budget: str, schedule: str, stages: Sequence[tuple[int, int]], visual_tokens: int, decoder_depth: int
) -> tuple[Budget, ...]:
    """Return the schedules of a run's budgets, in the order given; all of them prune after the same layers.

    Args:
        budget: one, or several with commas between.
        schedule: named list they are taken from.
        stages: explicit stages instead, for a single budget.
        visual_tokens: N.
        decoder_depth: decoder layers.

    Raises:
        UsageError: one that cannot be run, two that are the same, or several together with explicit stages.
    """
    texts = budget.split(",")
    if len(texts) > MAX_BUDGETS:
        raise UsageError(f"--budget {budget}: {len(texts)} budgets in one run, at most {MAX_BUDGETS} are possible")
    if stages and len(texts) > 1:
        raise UsageError(
            f"--stage gives one schedule of its own and goes with no list of budgets, got --budget {budget} too"
        )
    found = [run_budget(text, schedule, stages, visual_tokens, decoder_depth) for text in texts]
    for number, (text, one) in enumerate(zip(texts, found, strict=True)):
        for earlier, other in zip(texts[:number], found, strict=False):
            if one.nominal == other.nominal or one.stages == other.stages:
                raise UsageError(
                    f"--budget {earlier.strip()} and {text.strip()} are the same for this model, {one.nominal} of "
                    f"{visual_tokens} visual tokens; give each budget once"
                )
    return tuple(found)


def describe_budget(budget: Budget) -> str:
    """One line for people: ``192 of 576 visual tokens, schedule plain: after layer 2: 300, ...``."""
    stages = ", ".join(f"{stage.place}: {stage.keep}" for stage in budget.stages)
    return f"{budget.nominal} of {budget.visual_tokens} visual tokens, schedule {budget.schedule}: {stages}"


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9
