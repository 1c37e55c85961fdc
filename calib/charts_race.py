"""The chart of a class's race: how many were in it on every rung, and where each candidate of the grid went out."""

from __future__ import annotations

from collections.abc import Sequence

from .charts import esc, folded_table, open_svg, short_name
from .race_log import CUT, DROPPED, FAILED, TRAILED, WON, Rung
from .space import Space
from .table import percent, points

_WIDTH, _LEFT, _RIGHT = 360, 78, 348
_BAR, _TOP, _ROW = 20, 24, 22
_WHY = {TRAILED: "clearly behind", CUT: "too many as good or better, or not the winner", FAILED: "no finite score"}


def race_chart(intent: str, name: str, rungs: Sequence[Rung], space: Space) -> str:
    """Bars of the candidates in the race, rung by rung, over a map of the grid.

    A cell is a candidate; the number in it counts the rungs that it was in, and its shade says the same. The winner
    has a solid frame, the default a broken one.

    Args:
        intent: class id.
        name: its name for people.
        rungs: of :func:`.race_log.race_log`, at least one.
        space: the candidates.
    """
    bars = _bars(rungs)
    top = _TOP + _BAR * len(rungs) + 34
    cells, bottom = _map(rungs, space, top)
    winner = _winner(rungs)
    counts = ", ".join(f"{len(rung.standings)} on {rung.samples} samples" for rung in rungs)
    ended = f"{winner} won" if winner else "it has not ended"
    described = f"{counts}; {ended}. Who went out where, and by what margin, is in the table."
    svg = open_svg(f"race-{intent}", f"{name}: candidates left in the race", described, _WIDTH, bottom + 30)
    return f"{svg}{bars}{cells}</svg>{_numbers(name, rungs)}"


def _winner(rungs: Sequence[Rung]) -> str | None:
    return next((each.candidate for each in rungs[-1].standings if each.fate == WON), None)


def _bars(rungs: Sequence[Rung]) -> str:
    """One bar per rung, as long as its share of the first rung's candidates."""
    first = max(len(rungs[0].standings), 1)
    parts = [f'<text class="tick" x="{_LEFT}" y="14">candidates in the race</text>']
    for number, rung in enumerate(rungs):
        y, count = _TOP + _BAR * number, len(rung.standings)
        width = max(2.0, (_RIGHT - _LEFT - 30) * count / first)
        kind = "bar" if rung.complete else "bar open"
        parts.append(
            f'<text class="name" x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">n = {rung.samples}</text>'
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 5}" rx="2"/>'
            f'<text class="name" x="{_LEFT + width + 6:.1f}" y="{y + 12}">{count}</text>'
        )
    return "".join(parts)


def _map(rungs: Sequence[Rung], space: Space, top: int) -> tuple[str, int]:
    """Prototypes by rho; returns the cells and where they end."""
    seen = {each.candidate: number + 1 for number, rung in enumerate(rungs) for each in rung.standings}
    winner, default = _winner(rungs), space.default
    rhos = sorted({*space.rhos, default.rho})  # the default may stand beside the grid
    wide = (_RIGHT - _LEFT) / len(rhos)
    parts = [f'<text class="tick" x="{_LEFT}" y="{top - 22}">rungs each was in, by rho</text>']
    parts += [
        f'<text class="tick" x="{_LEFT + wide * (column + 0.5):.1f}" y="{top - 6}" text-anchor="middle">{rho:g}</text>'
        for column, rho in enumerate(rhos)
        if len(rhos) <= 12
    ]
    for number, prototype in enumerate(space.prototypes):
        y, named = top + _ROW * number, esc(short_name(prototype.name))
        parts.append(f'<text class="name" x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{named}</text>')
        for column, rho in enumerate(rhos):
            candidate = space.candidate(prototype, rho).id
            x = _LEFT + wide * column
            parts.append(_cell(x, y, wide, seen.get(candidate, 0), len(rungs)))
            if candidate in (winner, default.id):
                parts.append(_frame(x, y, wide, "won" if candidate == winner else "kept"))
    bottom = top + _ROW * len(space.prototypes)
    parts.append(
        _frame(_LEFT, bottom + 6, 24, "won") + f'<text class="tick" x="{_LEFT + 30}" y="{bottom + 21}">winner</text>'
        f'{_frame(_LEFT + 84, bottom + 6, 24, "kept")}'
        f'<text class="tick" x="{_LEFT + 114}" y="{bottom + 21}">default, never dropped</text>'
    )
    return "".join(parts), bottom


def _frame(x: float, y: float, wide: float, kind: str) -> str:
    """A frame around a cell: solid for the winner, broken for the default."""
    return f'<rect class="frame {kind}" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{_ROW}" rx="3"/>'


def _cell(x: float, y: float, wide: float, count: int, rungs: int) -> str:
    box = f'x="{x + 1:.1f}" y="{y + 1}" width="{wide - 2:.1f}" height="{_ROW - 2}" rx="2"'
    if not count:
        return f'<rect class="empty" {box}/>'
    share = count / rungs
    ink = "strong" if share >= 0.66 else "weak"
    return (
        f'<rect class="heat" {box} fill-opacity="{0.1 + 0.9 * share**2:.2f}"/>'
        f'<text class="{ink}" x="{x + wide / 2:.1f}" y="{y + 15}" text-anchor="middle">{count}</text>'
    )


def _numbers(name: str, rungs: Sequence[Rung]) -> str:
    rows = (
        [
            *(each.candidate, rung.samples, percent(each.mean), points(each.behind)),
            "–" if each.error is None else f"{100 * each.error:.1f}",
            _WHY[each.fate],
        ]
        for rung in reversed(rungs)
        for each in rung.standings
        if each.fate in DROPPED
    )
    header = ["dropped", "on samples", "score, percent", "behind the leader, points", "standard error", "because"]
    return folded_table(f"{name}: who was dropped when, the last first", header, rows)
