"""From ``--budget`` and ``--stages`` to a checked budget for the model at hand."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from claspkit.profiles.budget import Budget, Stage, explicit_budget, make_budget
from claspkit.profiles.errors import UsageError


def parse_nominal(text: str, visual_tokens: int) -> int:
    """Read a nominal budget: a token count such as "192", or a share of the visual tokens such as "1/3".

    Raises:
        UsageError: neither, or not between 1 and ``visual_tokens``.
    """
    try:
        value = Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--budget takes visual tokens (192) or a share of them (1/3), got {text!r}") from error
    nominal = int(value * visual_tokens + Fraction(1, 2)) if value < 1 else int(value)
    if not 1 <= nominal <= visual_tokens or (value >= 1 and value.denominator != 1):
        raise UsageError(f"--budget {text}: allowed are 1 to {visual_tokens} whole tokens, or a share between 0 and 1")
    return nominal


def parse_stages(texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Read explicit stages, each "AFTER_LAYER:KEEP" such as "2:300".

    Raises:
        UsageError: an item of another form.
    """
    stages = []
    for text in texts:
        layer, colon, keep = text.partition(":")
        if not colon or not layer.strip().isdecimal() or not keep.strip().isdecimal():
            raise UsageError(f"--stage takes AFTER_LAYER:KEEP, for example 2:300, got {text!r}")
        stages.append((int(layer), int(keep)))
    return tuple(stages)


def run_budget(
    budget: str, schedule: str, stages: Sequence[tuple[int, int]], visual_tokens: int, decoder_depth: int
) -> Budget:
    """Return the schedule a run prunes by: the explicit stages if there are any, else the named list."""
    if stages:
        return explicit_budget([Stage(*stage) for stage in stages], visual_tokens, decoder_depth)
    return make_budget(parse_nominal(budget, visual_tokens), visual_tokens, decoder_depth, schedule)
