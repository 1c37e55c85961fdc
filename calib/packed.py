"""Token maps as JSON: token numbers as runs, since most of them come one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from claspkit.runtime.token_map import TokenMap, TokenView

_MOST = 1_000_000  # tokens of a map: a short run may stand for many
_MOST_VIEWS = 1_000
_FARTHEST, _SMALLEST = 1e6, 1e-6  # of a window, in pictures: numbers beyond overflow where they are multiplied


def pack(tokens: TokenMap) -> dict[str, Any]:
    """A token map as a JSON object."""
    views = [
        {
            "name": view.name,
            "rows": view.rows,
            "columns": view.columns,
            "window": list(view.window),
            "runs": runs(view.tokens),
        }
        for view in tokens.views
    ]
    placeless = {name: runs(group) for name, group in tokens.placeless.items()}
    return {"views": views, "placeless": placeless, "cropped": tokens.cropped}


def unpack(record: Mapping[str, Any]) -> TokenMap:
    """Inverse of :func:`pack`; KeyError, TypeError or ValueError for a record of another shape, or one too large."""
    groups = [view["runs"] for view in record["views"]] + list(record["placeless"].values())
    if not 1 <= len(record["views"]) <= len(groups) <= _MOST_VIEWS or sum(map(_count, groups)) > _MOST:
        raise ValueError(f"a map has 1 to {_MOST_VIEWS} views, and {_MOST} tokens at most")
    views = []
    for view in record["views"]:
        left, top, right, bottom = map(float, view["window"])
        if max(map(abs, (left, top, right, bottom))) > _FARTHEST or min(right - left, bottom - top) < _SMALLEST:
            raise ValueError(f"the window {view['window']} is no place on a picture")
        numbers = spread(view["runs"])
        views.append(
            TokenView(str(view["name"]), int(view["rows"]), int(view["columns"]), numbers, (left, top, right, bottom))
        )
    placeless = {str(name): spread(group) for name, group in record["placeless"].items()}
    return TokenMap(tuple(views), placeless, bool(record["cropped"]))


def runs(numbers: Iterable[int]) -> list[list[int]]:
    """[first, count] of every run of numbers that follow one another: (3, 4, 5, 9) -> [[3, 3], [9, 1]]."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([number, 1])
    return found


def spread(found: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Inverse of :func:`runs`; ValueError for more than a million numbers."""
    _count(found)
    return tuple(number for first, count in found for number in range(first, first + count))


def _count(found: Sequence[Sequence[int]]) -> int:
    """How many numbers runs stand for; ValueError as of :func:`spread`."""
    count = sum(many for _, many in found)
    if count > _MOST or any(many < 1 for _, many in found):
        raise ValueError(f"runs must have one number or more, and {_MOST} together at most")
    return count
