"""A router's scores as a picture: its confusion as a matrix, and its accuracy over the share of prompts it accepts.

One self-contained SVG, or the same in an HTML page with the numbers as tables. It follows the reader's light or dark
scheme; every cell of the matrix has its count and share written in it, so nothing hangs on colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from claspkit.profiles.errors import UsageError
from claspkit.router.scoring import Rejection, Scores

from .charts import data_table, esc
from .output import html_page, write_named
from .table import percent

_LEFT, _TOP, _WIDE, _HIGH = 112, 92, 70, 40  # of the matrix: its corner, and a cell
_NARROWEST = 500  # of the curve and of the words above it, where a matrix is small
_LONGEST = 10  # letters of a class that fit a column
_STRONG = 0.5  # from this share on a cell is filled so far that its letters take the page's colour
_POINTS = 400  # drawn of a curve, at most


@dataclass(frozen=True)
class _Frame:
    """Where the parts of a picture of so many classes stand."""

    classes: int

    @property
    def right(self) -> int:
        return _LEFT + max(self.classes * _WIDE, _NARROWEST)

    @property
    def curve_top(self) -> int:
        return _TOP + self.classes * _HIGH + 92

    @property
    def curve_bottom(self) -> int:
        return self.curve_top + 220

    @property
    def size(self) -> tuple[int, int]:
        return self.right + 24, self.curve_bottom + 60


def write_picture(path: Path, scores: Scores, rejected: Rejection, title: str, word: str = "accuracy") -> None:
    """Write the picture to a .svg or an .html file.

    Raises:
        UsageError: another ending, or the file cannot be written.
    """
    if path.suffix not in {".svg", ".html"}:
        raise UsageError(f"--picture {path} has the ending {path.suffix!r}; there are: .svg, .html")
    svg = draw_scores(scores, rejected, title, word)
    text = svg if path.suffix == ".svg" else _page(svg, scores, title, word)
    write_named(path, text.encode(), "--picture")


def draw_scores(
    scores: Scores, rejected: Rejection, title: str, word: str = "accuracy", name: str = "scores", styled: bool = True
) -> str:
    """The picture as SVG text.

    Args:
        scores: what to draw.
        rejected: what comes of rejecting at the router's own threshold; marked on the curve.
        title: who was scored on what.
        word: what a right label shows, "accuracy" or "agreement".
        name: beginning of its ids, for a page with several.
        styled: bring the style sheet along; a page that has :data:`SCORES_STYLE` already needs none.
    """
    worst, frame = confusions(scores), _Frame(len(scores.classes))
    width, height = frame.size
    described = (
        f"{scores.prompts} prompts, {word} {percent(scores.accuracy)} percent. Rows are true classes, columns labels. "
        + (f"Most frequent confusions: {'; '.join(worst[:3])}. " if worst else "No confusion. ")
        + f"{_own(rejected, word)}."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="scores" role="img" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" aria-labelledby="{esc(name)}-t {esc(name)}-d">'
        f'<title id="{esc(name)}-t">{esc(title)}</title><desc id="{esc(name)}-d">{esc(described)}</desc>'
        f"{f'<style>{SCORES_STYLE}</style>' if styled else ''}"
        f'<rect class="page" width="{width}" height="{height}"/>'
        f'<text class="title" x="16" y="28">{esc(_cut(title, 66))}</text>'
        f'<text class="soft" x="16" y="50">{scores.prompts} prompts, {word} {percent(scores.accuracy)} %, macro F1 '
        f"{percent(scores.macro_f1)} %. Cells: prompts, and their share of the row.</text>"
        + "".join(_matrix(scores))
        + "".join(_curve(frame, scores, rejected, word))
        + "</svg>\n"
    )


def _matrix(scores: Scores) -> Iterator[str]:
    yield f'<text class="soft" x="{_LEFT - 10}" y="{_TOP - 10}" text-anchor="end">true ↓ label →</text>'
    for number, intent in enumerate(_names(scores)):
        name, place = esc(_cut(intent, _LONGEST)), _TOP + _HIGH * (number + 0.5)
        yield f'<text x="{_LEFT + _WIDE * (number + 0.5):g}" y="{_TOP - 10}" text-anchor="middle">{name}</text>'
        yield f'<text x="{_LEFT - 10}" y="{place + 4:g}" text-anchor="end">{name}</text>'
    for number, row in enumerate(scores.confusion):
        total = sum(row)
        for column, count in enumerate(row):
            yield _cell(number, column, count, count / total if total else 0.0)


def _cell(row: int, column: int, count: int, share: float) -> str:
    x, y = _LEFT + _WIDE * column, _TOP + _HIGH * row
    kind = "right" if row == column else "wrong"
    box = f'x="{x + 1.5}" y="{y + 1.5}" width="{_WIDE - 3}" height="{_HIGH - 3}" rx="3"'
    if not count:
        return f'<rect class="empty" {box}/>'
    strong = share >= _STRONG
    ink = "strong" if strong else "weak"
    filled = 0.72 + 0.28 * share if strong else 0.1 + 0.5 * share  # letters are hard to read on what lies between
    middle = x + _WIDE / 2
    return (
        f'<rect class="{kind}" {box} fill-opacity="{filled:.2f}"/>'
        f'<text class="{ink} count" x="{middle:g}" y="{y + 18}" text-anchor="middle">{count}</text>'
        f'<text class="{ink}" x="{middle:g}" y="{y + 32}" text-anchor="middle">{100 * share:.0f} %</text>'
    )


def _curve(frame: _Frame, scores: Scores, rejected: Rejection, word: str) -> Iterator[str]:
    right, top, bottom = frame.right, frame.curve_top, frame.curve_bottom
    points = _thinned([(coverage, accuracy) for _, coverage, accuracy in scores.curve])
    seen = [accuracy for _, accuracy in points]
    if rejected.accepted_accuracy is not None:
        seen.append(rejected.accepted_accuracy)
    low = int(10 * min(*seen, 0.9)) / 10
    step = 0.02 if low == 0.9 else 0.1
    ticks = [1 - step * number for number in range(round((1 - low) / step) + 1)]

    def across(coverage: float) -> float:
        return _LEFT + coverage * (right - _LEFT)

    def up(accuracy: float) -> float:
        return bottom - (accuracy - low) / (1 - low) * (bottom - top)

    yield f'<text class="head" x="16" y="{top - 38}">{word.capitalize()} of the surest prompts</text>'
    yield f'<text class="soft" x="16" y="{top - 18}">{esc(_own(rejected, word))}</text>'
    for tick in ticks:
        yield f'<path class="grid" d="M{_LEFT} {up(tick):.1f}H{right}"/>'
        yield f'<text x="{_LEFT - 10}" y="{up(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f} %</text>'
    for fifth in range(6):
        place = f"{across(fifth / 5):.1f}"
        yield f'<path class="axis" d="M{place} {bottom}v5"/>'
        yield f'<text x="{place}" y="{bottom + 20}" text-anchor="middle">{20 * fifth} %</text>'
    yield f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>'
    yield (
        f'<text class="soft" x="{(_LEFT + right) / 2:g}" y="{bottom + 42}" text-anchor="middle">'
        "share of the prompts accepted, the surest first</text>"
    )
    path = "L".join(f"{across(coverage):.1f} {up(accuracy):.1f}" for coverage, accuracy in points)
    yield f'<path class="line" d="M{path}"/>'
    if len(points) == 1:  # all prompts equally sure: a line has no length
        yield f'<circle class="dot" cx="{across(points[0][0]):.1f}" cy="{up(points[0][1]):.1f}" r="4"/>'
    if rejected.accepted_accuracy is not None:
        x, y = across(rejected.coverage), up(rejected.accepted_accuracy)
        yield f'<path class="mark" d="M{x:.1f} {bottom}V{y:.1f}"/>'
        yield f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'


def _own(rejected: Rejection, word: str) -> str:
    """What the router's own threshold does, in words."""
    if rejected.threshold == 0:
        return "Ring: it has no threshold of its own, so every prompt is accepted"
    if rejected.accepted_accuracy is None:
        return f"Its own threshold {rejected.threshold:.3f} rejects every prompt"
    return (
        f"Ring: its own threshold {rejected.threshold:.3f} accepts {percent(rejected.coverage)} %, {word} "
        f"{percent(rejected.accepted_accuracy)} % there, {percent(rejected.accuracy)} % with the rest as default"
    )


def confusions(scores: Scores) -> list[str]:
    """``3 of 40 object as text`` and so on, the most frequent first."""
    names = _names(scores)
    found = [
        (count, sum(row), names[true], names[given])
        for true, row in enumerate(scores.confusion)
        for given, count in enumerate(row)
        if count and true != given
    ]
    return [f"{count} of {total} {true} as {given}" for count, total, true, given in sorted(found, key=lambda x: -x[0])]


def _names(scores: Scores) -> list[str]:
    return [row.intent for row in scores.classes]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about _POINTS of the points, the last among them."""
    step = max(1, len(points) // _POINTS)
    return [*points[:-1:step], points[-1]]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _page(svg: str, scores: Scores, title: str, word: str) -> str:
    """The picture in a page, with its numbers as tables."""
    confusion = data_table(
        "Prompts by true class (rows) and label (columns)",
        ["true class", *_names(scores)],
        ([name, *row] for name, row in zip(_names(scores), scores.confusion, strict=True)),
    )
    curve = data_table(
        f"{word.capitalize()} by share accepted, percent",
        ["threshold", "accepted", word],
        ([f"{at:.3f}", percent(covered), percent(right)] for at, covered, right in _tenths(scores)),
    )
    picture = f'<div class="scroll" role="region" tabindex="0" aria-label="Picture">{svg}</div>'
    body = f"<main><h1>{esc(title)}</h1>{picture}{confusion}{curve}</main>\n"
    return html_page(esc(title), _PAGE_STYLE, body)


def _tenths(scores: Scores) -> Iterator[tuple[float, float, float]]:
    """The curve where it first reaches each tenth."""
    for tenth in range(1, 11):
        yield next(row for row in scores.curve if row[1] >= tenth / 10 - 1e-9)


SCORES_STYLE = """
svg.scores{--page:#fff;--ink:#1b1f24;--soft:#57606a;--edge:#d0d7de;--good:#0b5a8f;--bad:#a63d00;--on:#fff;
font:13px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
@media (prefers-color-scheme:dark){svg.scores{--page:#14181d;--ink:#e6e9ec;--soft:#a3adb8;--edge:#3a424b;--good:#7cc3f2;
--bad:#ffa466;--on:#10141a}}
svg.scores .page{fill:var(--page)}svg.scores text{font:inherit;fill:var(--ink)}svg.scores .soft{fill:var(--soft)}
svg.scores .title{font-size:17px;font-weight:600}svg.scores .head{font-size:15px;font-weight:600}
svg.scores .count{font-weight:600}svg.scores .right{fill:var(--good)}svg.scores .wrong{fill:var(--bad)}
svg.scores .empty{fill:none;stroke:var(--edge)}svg.scores .strong{fill:var(--on)}
svg.scores .grid{stroke:var(--edge);fill:none}svg.scores .axis{stroke:var(--soft);fill:none}
svg.scores .line{stroke:var(--good);stroke-width:2;fill:none}svg.scores .dot{fill:var(--good);stroke:none}
svg.scores .mark{stroke:var(--soft);stroke-dasharray:4 3;fill:none}
svg.scores .ring{stroke:var(--bad);stroke-width:2.5;fill:none}
"""
"""Style sheet of the picture; it touches nothing else on a page."""

_PAGE_STYLE = """
:root{--page:#fff;--ink:#1b1f24;--soft:#57606a;--edge:#d0d7de;--good:#0b5a8f}
@media (prefers-color-scheme:dark){:root{--page:#14181d;--ink:#e6e9ec;--soft:#a3adb8;--edge:#3a424b;--good:#7cc3f2}}
body{margin:0 auto;max-width:800px;padding:0 16px 48px;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.3rem}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;margin:16px 0}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--edge);overflow-wrap:normal}
caption{text-align:left;color:var(--soft)}:focus-visible{outline:3px solid var(--good)}
"""
