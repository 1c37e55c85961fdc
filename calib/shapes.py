"""The form of a JSON file of ours, written down as a value, and a check that names the first place that differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from claspkit.profiles.errors import shorten

Shape = str | Mapping[str, Any] | list[Any] | tuple[Any, ...]
"""What a value must be.

A word of :data:`KINDS`, with ``?`` behind it where null will do; a list of one shape for a list of such values; a tuple
of shapes for a list of just as many; a dict for an object: every name must be there unless a ``?`` ends it, and after
``??`` it may also be null; the name ``*`` stands for every other, and names that are not told of are let through, as
later versions may have written them.
"""

KINDS: Final[dict[str, tuple[type, ...]]] = {
    "text": (str,),
    "whole": (int,),
    "number": (int, float),
    "flag": (bool,),
    "list": (list,),
    "object": (dict,),
}


def check_shape(value: Any, shape: Shape, where: str) -> None:
    """Compare a JSON value with a shape.

    Args:
        value: the value.
        shape: what it must be.
        where: what to call it in the error.

    Raises:
        ValueError: names the first place that has another form.
    """
    if isinstance(shape, str):
        kind = shape.removesuffix("?")
        if value is None and kind != shape:
            return
        if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "flag"):
            raise ValueError(f"{where} must be a {kind}{' or null' if kind != shape else ''}, not {shorten(value)}")
    elif isinstance(shape, Mapping):
        check_shape(value, "object", where)
        _check_names(value, shape, where)
    else:
        check_shape(value, "list", where)
        if isinstance(shape, tuple) and len(value) != len(shape):
            raise ValueError(f"{where} must have {len(shape)} entries, not {len(value)}")
        for index, item in enumerate(value):
            check_shape(item, shape[index if isinstance(shape, tuple) else 0], f"{where}[{index}]")


def _check_names(value: Mapping[str, Any], shape: Mapping[str, Any], where: str) -> None:
    for name, inner in shape.items():
        plain = name.rstrip("?")
        if plain == "*":
            for other, item in value.items():
                check_shape(item, inner, f"{where}.{shorten(other)[1:-1]}")
        elif plain in value:
            if not (value[plain] is None and name.endswith("??")):
                check_shape(value[plain], inner, f"{where}.{plain}")
        elif plain == name:
            raise ValueError(f"{where}.{plain} is missing")
