"""The part of a plan that is about the feature cache, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

LABEL = 29
"""Columns of a label."""

_WIDTH = 100
_SECONDS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

Facts = Mapping[str, Any]


def render_cache(cache: Facts) -> str:
    """Lay the facts of :func:`calib.plan_cache.cache_plan` out, a label and a value a line, advice below."""
    lines = "\n".join(f"{name:<{LABEL}} {value}" for name, value in _lines(cache))
    return "\n\n".join([lines, *_advice(cache)])


def _lines(cache: Facts) -> Iterator[tuple[str, str]]:
    size = "x".join(map(str, reversed(cache["picture"]))) if cache["picture"] else "the model's reference picture"
    yield "cached picture", f"{size}: {cache['patches']} patch tokens a layer"
    yield "cached layers", f"{len(cache['layers'])}, {cache['dtype']} (the search reads {len(cache['layers_read'])})"
    yield "cache, a picture", _unit(cache["bytes_a_picture"], _BYTES)
    yield "cache, a picture a sample", f"{_unit(cache['bytes'], _BYTES)} for {cache['pictures']} pictures"
    yield "vision encoder, a picture", f"{cache['vision_flops'] / 1e12:.4g} TFLOP"
    machine, seconds = cache["machine"], cache["seconds"]
    if machine is not None:
        yield "free disk", f"{_unit(machine['free'], _BYTES)} in {machine['folder']}"
    if seconds is None:
        return
    yield "disk, measured", f"{_unit(machine['write'], _BYTES)}/s written, {_unit(machine['read'], _BYTES)}/s read"
    yield "device, measured", f"{machine['flops'] / 1e12:.4g} TFLOP/s of matrix products on {machine['device']}"
    yield "to read a picture", f"{_unit(seconds['read_a_picture'], _SECONDS)}, the layers that the search reads"
    yield "to recompute it", f"{_unit(seconds['recompute_a_picture'], _SECONDS)} at least"
    yield "to fill the cache", f"{_unit(seconds['fill'], _SECONDS)}: computing and writing one after the other"


def _advice(cache: Facts) -> Iterator[str]:
    """Which way is faster, and what to do if the disk is too small."""
    seconds = cache["seconds"]
    if seconds is not None:
        read, recompute = seconds["read_a_picture"], seconds["recompute_a_picture"]
        times = max(read, recompute) / min(read, recompute)
        told = f"On this machine {seconds['faster']} a picture is {times:.3g} times as fast as the other way."
        if seconds["faster"] == "recomputing":
            told += " The cache still makes a search independent of the encoder, and its results reproducible."
        yield textwrap.fill(told, _WIDTH)
    if cache["fits"] is False:
        yield "\n".join(["The cache does not fit on the disk. What would be smaller:", *map(_option, cache["instead"])])


def _option(option: Facts) -> str:
    verdict = "fits" if option["fits"] else "does not fit either"
    return (
        f"  --cache-layers {option['layers']} --cache-dtype {option['dtype']} --per-class {option['per_class']}: "
        f"{_unit(option['bytes'], _BYTES)}, {verdict}"
    )


def _unit(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """Three digits and the largest unit that leaves at least 1, else the smallest."""
    factor, name = next((unit for unit in units if value >= unit[0]), units[-1])
    return f"{value / factor:.3g} {name}" if value < 1000 * factor else f"{value / factor:.0f} {name}"
