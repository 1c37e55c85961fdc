"""What a feature cache would take and bring: bytes, seconds, and whether reading or recomputing is the faster way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families import FamilyFacts

from .probe import Machine
from .space import Space, make_space

_VALUE_BYTES: Final = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES: Final = {"int8": 4}  # a channel, a layer and a picture

ALL, PROTOTYPES = "all", "prototypes"
"""Named layer sets: every vision layer, and the union of those that a prototype of the search reads."""

SPARE_PERCENT: Final = 5
"""What must be free beyond the bytes of the cache itself."""


@dataclass(frozen=True)
class CacheChoice:
    """What would be cached.

    Attributes:
        dtype: one of float16, bfloat16, float32 and int8.
        layers: "all", "prototypes", or layer numbers such as "3,12,23".
        picture: height and width in pixels; None for the picture that the model's budgets refer to.
    """

    dtype: str = "float16"
    layers: str = ALL
    picture: tuple[int, int] | None = None


def parse_picture(text: str) -> tuple[int, int]:
    """Read "WIDTHxHEIGHT" in pixels; -> (height, width).

    Raises:
        UsageError: another form, or a side that is not 1 to 99999.
    """
    width, cross, height = text.strip().lower().partition("x")
    sides = (width, height)
    if not cross or not all(_is_count(side) and int(side) > 0 for side in sides):
        raise UsageError(f"--picture takes WIDTHxHEIGHT in pixels, for example 1024x768, got {text!r}")
    return int(height), int(width)


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that no cache has.

    Raises:
        UsageError: names those there are.
    """
    if dtype not in _VALUE_BYTES:
        raise UsageError(f"--cache-dtype {dtype!r} does not exist; there are: {', '.join(_VALUE_BYTES)}")


def choose_layers(text: str, facts: FamilyFacts, space: Space | None = None) -> tuple[int, ...]:
    """Turn a layer set into layer numbers, ascending, ``hidden_states`` indexing (0 = embeddings).

    Args:
        text: the set.
        facts: sizes of the model.
        space: what is searched; None for the built-in prototypes.

    Raises:
        UsageError: neither a named set nor layer numbers of this model, or layers that the search reads are missing.
    """
    needed = (space or make_space(facts.default_layer)).layers
    if text in (ALL, PROTOTYPES):
        return needed if text == PROTOTYPES else tuple(range(facts.vision_depth + 1))
    layers = _numbers(text)
    if not layers:
        raise UsageError(f"--cache-layers takes {ALL}, {PROTOTYPES} or layer numbers such as 3,12,23, got {text!r}")
    if layers[-1] > facts.vision_depth:
        raise UsageError(f"--cache-layers {text}: this model has vision layers 0 to {facts.vision_depth}")
    absent = sorted(set(needed) - set(layers))
    if absent:
        raise UsageError(
            f"--cache-layers {text}: the search reads layers {', '.join(map(str, needed))}; "
            f"{', '.join(map(str, absent))} must be among them. `--cache-layers {PROTOTYPES}` means just these"
        )
    return layers


def tidy_layers(text: str) -> str:
    """One spelling of a layer set: numbers ascending, each once, without spaces; other text without spaces around.

    Whether there is such a set, or such layers, is for :func:`choose_layers` to say.
    """
    return ",".join(map(str, _numbers(text))) or text.strip()


def cache_plan(
    facts: FamilyFacts, per_class: int, choice: CacheChoice, machine: Machine | None, classes: int, space: Space
) -> dict[str, Any]:
    """Return named facts about the feature cache of a run that has not started.

    Args:
        facts: sizes of the model, ``patches`` being those of the picture that is cached.
        per_class: samples per class; each may have a picture of its own.
        choice: layers, dtype, picture.
        machine: where it would run; None leaves out everything that depends on it.
        classes: how many there are.
        space: what is searched.

    Returns:
        ``picture``, ``patches``, ``layers`` and ``layers_read``, ``dtype``; ``vision_flops``, ``bytes_a_picture``,
        ``pictures``, ``bytes``; with a machine ``machine`` and ``fits`` (in what is free); with its speeds
        ``seconds``, see :func:`_seconds`; ``instead``: smaller choices with their bytes.

    Raises:
        UsageError: an unknown dtype, or layers as in :func:`choose_layers`.
    """
    check_dtype(choice.dtype)
    layers, needed = choose_layers(choice.layers, facts, space), space.layers
    pictures = per_class * classes
    record = record_bytes(facts, len(layers), choice.dtype)
    plan: dict[str, Any] = {
        "picture": list(choice.picture) if choice.picture else None,
        "patches": facts.patches,
        "layers": list(layers),
        "layers_read": list(needed),
        "dtype": choice.dtype,
        "vision_flops": vision_flops(facts),
        "bytes_a_picture": record,
        "pictures": pictures,
        "bytes": record * pictures,
        "machine": None,
        "fits": None,
        "seconds": None,
        "instead": [],
    }
    if machine is not None:
        room = machine.free * 100 // (100 + SPARE_PERCENT)
        plan["machine"] = vars(machine).copy()
        plan["fits"] = record * pictures <= room
        plan["seconds"] = _seconds(plan, record_bytes(facts, len(needed), choice.dtype), machine)
        plan["instead"] = list(_instead(facts, per_class, choice, record * pictures, room, classes, space))
    return plan


def record_bytes(facts: FamilyFacts, layers: int, dtype: str) -> int:
    """Bytes of one picture's features, checksums (4 bytes a layer) left out."""
    values = facts.patches * facts.vision_width * _VALUE_BYTES[dtype]
    return layers * (values + facts.vision_width * _SCALE_BYTES.get(dtype, 0))


def vision_flops(facts: FamilyFacts) -> int:
    """Floating-point operations of the vision encoder on one picture of ``facts.patches`` patches, multiply + add = 2.

    Per block and patch: query, key, value and output projection, the MLP's matrices, and scores and values over the
    patches it attends to. Special tokens, norms, softmax and the embedding of patches are left out.
    """
    width, patches = facts.vision_width, facts.patches
    matrices = 2 * (4 * width * width + facts.vision_mlp * width * facts.vision_ffn)
    local = facts.vision_depth - facts.vision_global
    attended = local * min(facts.vision_span, patches) + facts.vision_global * patches
    return patches * (facts.vision_depth * matrices + 4 * width * attended)


def _seconds(plan: dict[str, Any], read_bytes: int, machine: Machine) -> dict[str, Any] | None:
    """Seconds to compute, write and read a picture; what the search reads decides which way wins.

    Computing is taken at the speed of plain matrix products, which no encoder quite reaches. Filling is the sum of
    computing and writing; the two overlap in part.
    """
    if machine.write is None or machine.read is None or machine.flops is None:
        return None
    recompute, write = plan["vision_flops"] / machine.flops, plan["bytes_a_picture"] / machine.write
    read = read_bytes / machine.read
    return {
        "recompute_a_picture": recompute,
        "write_a_picture": write,
        "read_a_picture": read,
        "fill": plan["pictures"] * (recompute + write),
        "faster": "reading" if read < recompute else "recomputing",
    }


def _instead(
    facts: FamilyFacts, per_class: int, choice: CacheChoice, size: int, room: int, classes: int, space: Space
) -> Iterator[dict[str, Any]]:
    """Ways to a smaller cache: fewer layers, int8, both; and with fewer layers, as many samples as fit."""
    for layers, dtype in ((PROTOTYPES, choice.dtype), (choice.layers, "int8"), (PROTOTYPES, "int8")):
        sample = record_bytes(facts, len(choose_layers(layers, facts, space)), dtype) * classes
        counts = [per_class] if sample * per_class < size else []
        if layers == PROTOTYPES and 0 < room // sample < per_class:
            counts.append(room // sample)
        for count in counts:
            fits = sample * count <= room
            yield {"layers": layers, "dtype": dtype, "per_class": count, "bytes": sample * count, "fits": fits}


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers of a list such as "3,12,23", ascending, each once; none where the text is no such list."""
    parts = [part.strip() for part in text.split(",")]
    return tuple(sorted({int(part) for part in parts})) if all(map(_is_count, parts)) else ()


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5
