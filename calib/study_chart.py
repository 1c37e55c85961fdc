"""A study of routing errors as a picture: score against the share of prompts that got another class.

One SVG that stands alone, or a page with the same picture and its numbers. Lines differ in dash and marker as well as
in colour, every mark is named in words, and the description holds the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import Any

from .charts import data_table, esc, marker, score_range, spread, ticks
from .output import html_page
from .study_table import HEADER, Study, headline, policy_name, remarks, rows_of
from .table import percent, points

WIDTH, HEIGHT = 800, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 520, 30, 340
_LINES = {"default": ("sent to the default class", "d", "circle"), "wrong": ("sent to a wrong class", "w", "square")}
_SHAPES = ("diamond", "triangle", "down", "cross", "circle", "square")  # of routers, always hollow
_NAMES = _RIGHT + 18
_TITLE = "Score against the share of prompts with another class"


def render(found: Study, suffix: str) -> str:
    """The study as ``.svg``, or as a ``.html`` page that asks for nothing from anywhere."""
    if suffix == ".svg":
        return render_svg(found)
    table = data_table(
        "Score by way of routing, percent",
        [name.replace("\n", " ") for name in HEADER],
        [[cell or None for cell in row] for row in rows_of(found)],
    )
    notes = "".join(f"<p>{esc(line)}</p>" for line in remarks(found))
    title = f"What routing errors cost {found['model']}"
    body = _BODY.substitute(
        title=esc(title), headline=esc(headline(found)), chart=render_svg(found), table=table, notes=notes
    )
    return html_page(esc(title), _PAGE_STYLE, body)


def render_svg(found: Study) -> str:
    """The picture, :data:`WIDTH` x :data:`HEIGHT`, for light and dark pages."""
    lines = {name: _points(found, name) for name in _LINES if _points(found, name)}
    reference, everywhere = found["policies"][0]["score"], _default_for_all(found)
    shown = [
        value
        for row in (*found["policies"], *found["routers"])
        for value in (row["score"] - (row["deviation"] or 0), row["score"] + (row["deviation"] or 0))
    ]
    whiskers = [reference + row[end] for row in found["routers"] for end in ("ci_low", "ci_high")]
    low, high = score_range([*shown, *whiskers])
    changed = [row["changed"] for row in (*found["policies"], *found["routers"]) if row.get("share") != 1]
    frame = _Frame(low, high, 1.06 * max(0.1, *changed))
    ends = {"labels": frame.y(reference), "all": frame.y(everywhere)}
    ends |= {name: frame.y(line[-1]["score"]) for name, line in lines.items()}
    ends |= {f"router {number}": frame.y(row["score"]) for number, row in enumerate(found["routers"])}
    heights = spread(ends, _TOP, _BOTTOM, 16)
    parts = [frame.axes()]
    parts += [frame.level("labels", "the calibration's labels", reference, heights["labels"])]
    parts += [frame.level("all", "default for all prompts", everywhere, heights["all"])]
    parts += [frame.line(name, line, heights[name]) for name, line in lines.items()]
    parts += [frame.router(row, reference, heights[f"router {n}"], n) for n, row in enumerate(found["routers"])]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'aria-labelledby="study-t study-d"><title id="study-t">{esc(_TITLE)}</title>'
        f'<desc id="study-d">{esc(described(found))}</desc><style>{_STYLE}</style>'
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>{"".join(parts)}</svg>'
    )


def described(found: Study) -> str:
    """The picture in words, with its numbers."""
    told = [
        f"{policy_name(row)}: {percent(row['changed'])} percent of the prompts have another class, score "
        f"{percent(row['score'])}, {points(row['difference'])} points"
        for row in (*found["policies"][1:], *found["routers"])
    ]
    start = f"The calibration's labels score {percent(found['policies'][0]['score'])} percent. "
    return start + "; ".join(told) + "."


class _Frame:
    """Where scores and shares lie in the picture, and what is drawn there."""

    def __init__(self, low: float, high: float, widest: float) -> None:
        self._low, self._high, self._widest = low, high, widest

    def x(self, changed: float) -> float:
        return _LEFT + changed / self._widest * (_RIGHT - _LEFT)

    def y(self, score: float) -> float:
        return _BOTTOM - (score - self._low) / (self._high - self._low) * (_BOTTOM - _TOP)

    def axes(self) -> str:
        parts = []
        for tick in ticks(self._low, self._high):
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * tick:.3g}</text>')
        for tick in ticks(0, self._widest):
            x = self.x(tick)
            parts.append(f'<path class="axis" d="M{x:.1f} {_BOTTOM}v5"/>')
            parts.append(f'<text x="{x:.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{100 * tick:.3g}</text>')
        middle = (_LEFT + _RIGHT) / 2
        parts.append(f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>')
        parts.append(
            f'<text x="{middle:g}" y="{_BOTTOM + 42}" text-anchor="middle">'
            "prompts with another class than in the calibration, %</text>"
        )
        parts.append('<text x="8" y="16">score, %</text>')
        return "".join(parts)

    def level(self, name: str, words: str, score: float, height: float) -> str:
        """A score that does not depend on the share."""
        y = self.y(score)
        return (
            f'<g class="{name}"><path class="level" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
            f"{_name(_RIGHT, y, height, f'{words} {percent(score)}')}</g>"
        )

    def line(self, name: str, rows: Sequence[dict[str, Any]], height: float) -> str:
        """A policy over its shares, with a band of one standard deviation over the seeds."""
        words, style, shape = _LINES[name]
        places = [(self.x(row["changed"]), self.y(row["score"])) for row in rows]
        above = [(self.x(row["changed"]), self.y(row["score"] + (row["deviation"] or 0))) for row in rows]
        below = [(self.x(row["changed"]), self.y(row["score"] - (row["deviation"] or 0))) for row in rows]
        return (
            f'<g class="{style}"><path class="band" d="{_path([*above, *reversed(below)])}Z"/>'
            f'<path class="line" d="{_path(places)}"/>'
            + "".join(f'<path class="mark" d="{marker(shape, x, y, 4)}"/>' for x, y in places[1:])
            + _name(*places[-1], height, f"{words} {percent(rows[-1]['score'])}")
            + "</g>"
        )

    def router(self, row: dict[str, Any], reference: float, height: float, number: int) -> str:
        """One router, with the 95 % interval of its difference; its mark stands beside its name as well."""
        x, y = self.x(row["changed"]), self.y(row["score"])
        top, end = self.y(reference + row["ci_high"]), self.y(reference + row["ci_low"])
        shape = _SHAPES[number % len(_SHAPES)]
        return (
            f'<g class="r"><path class="whisker" d="M{x:.1f} {top:.1f}V{end:.1f}m-4 0h8M{x - 4:.1f} {top:.1f}h8"/>'
            f'<path class="mark" d="{marker(shape, x, y, 5)}"/>'
            f'<path class="mark" d="{marker(shape, _NAMES + 6, height, 5)}"/>'
            + _written(_NAMES + 17, height, f"{policy_name(row)} {percent(row['score'])}")
            + "</g>"
        )


def _name(x: float, y: float, height: float, words: str) -> str:
    """A name at the right, and a thin line to what it names."""
    lead = f'<path class="lead" d="M{x + 7:.1f} {y:.1f}L{_NAMES - 4} {height:.1f}"/>'
    return lead + _written(_NAMES, height, words)


def _written(x: float, height: float, words: str) -> str:
    return f'<text class="name" x="{x:g}" y="{height + 4:.1f}">{esc(words)}</text>'


def _points(found: Study, policy: str) -> list[dict[str, Any]]:
    """A policy's rows from no error on; the default for all is drawn as a level."""
    rows = [row for row in found["policies"] if row["policy"] == policy and row["share"] < 1]
    return [{**found["policies"][0], "deviation": 0.0}, *rows] if rows else []


def _default_for_all(found: Study) -> float:
    return float(next(row["score"] for row in found["policies"] if row["policy"] == "default" and row["share"] == 1))


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


_STYLE = """
svg{--page:#fff;--ink:#1b1f24;--soft:#57606a;--edge:#d5dae0;--d:#0072b2;--w:#c24e00;--r:#00795a;
font:13px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
@media (prefers-color-scheme:dark){svg{--page:#14171b;--ink:#e7eaee;--soft:#a7b0ba;--edge:#3a424b;--d:#62b5ef;
--w:#f59a55;--r:#45cfa2}}
.page{fill:var(--page)}text{fill:var(--soft)}.name{fill:var(--ink)}path{fill:none}
.grid{stroke:var(--edge);stroke-width:.7}.axis{stroke:var(--soft)}.lead{stroke:var(--edge)}
.level{stroke:var(--soft);stroke-width:1.3}.labels .level{stroke-dasharray:8 4}.all .level{stroke-dasharray:2 4}
.line{stroke-width:2}.d .line{stroke:var(--d)}.w .line{stroke:var(--w);stroke-dasharray:7 3}
.d .band{fill:var(--d);fill-opacity:.16}.w .band{fill:var(--w);fill-opacity:.16}
.d .mark{fill:var(--d)}.w .mark{fill:var(--w)}.r .mark{fill:var(--page);stroke:var(--r);stroke-width:2}
.r .whisker{stroke:var(--r);stroke-width:1.4}
"""

_PAGE_STYLE = """
body{margin:0 auto;max-width:860px;padding:0 16px 48px;font:16px/1.5 system-ui,Arial,sans-serif;
background:#fff;color:#1b1f24}
figure{margin:16px 0}svg{width:100%;height:auto}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}caption{text-align:left}
th,td{text-align:left;padding:4px 14px 4px 0;border-bottom:1px solid #8885}
@media (prefers-color-scheme:dark){body{background:#14171b;color:#e7eaee}}
"""

_BODY = Template("""<main>
<h1>$title</h1>
<p>$headline</p>
<figure>$chart<figcaption>Bands: one standard deviation over the draws. Whiskers: 95&nbsp;% interval of a router's
difference to the calibration's labels.</figcaption></figure>
$table
$notes
</main>
""")
