"""The parts of the report about the classes at one budget: verdicts, searches over rho, fusion weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .charts import curve_chart, difference_chart, esc, heat_map, line_styles
from .report_found import Found
from .report_measures import measures_table
from .report_pooled import pooled_table
from .report_search import POINTS_NOTE, points_figure
from .table import CHANGED, KEPT, interval, not_finite_words, outcome, percent

MISSING = "–"
"""In the place of a number that there is not."""

_SHOWN_CHARACTERS = 400  # of one reason: a file full of long lines must not make a long page
_OUTCOMES = {CHANGED: "changed", KEPT: "default kept"}  # and, without a search:
_UNSEARCHED = "not searched"

Summary = dict[str, Any]


def classes_part(summary: Summary, _: Found | None) -> str:
    """Table and chart of the verdicts, what one configuration for all would do, and yes-or-no measures."""
    chart = difference_chart(summary["classes"])
    figure = f'<figure class="wide"><figcaption>{_DIFFERENCES}</figcaption>{chart}</figure>' if chart else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    body = "".join(_class_row(row) for row in summary["classes"])
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Result per class, table"><table class="classes">'
        "<caption><span>Scores are means on the holdout, in percent; differences in points. A candidate's name is "
        "prototype/rho: which vision layers are fused, and the share of the kept tokens that are attention pivots."
        "</span></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{figure}"
        '<p class="note">The difference is the tested candidate minus the default on the same holdout samples, with a '
        "two-sided 95&nbsp;% interval of its own; Holm p is one-sided and corrected over all classes tested, and it "
        "alone decides, at 0.05.</p>"
        f"{_not_finite(summary)}"
        f"{pooled_table(summary)}{measures_table(summary)}"
    )


def _not_finite(summary: Summary) -> str:
    words = not_finite_words(summary["classes"])
    return f"<p>{esc(words)}.</p>" if words else ""


_COLUMNS = (
    "Class",
    "Samples search / holdout",
    "Unpruned",
    "Default",
    "Tested candidate",
    "Tested score",
    "Difference [95&nbsp;%]",
    "Holm p",
    "Decision",
    "Reason",
)
_DIFFERENCES = (
    "Filled squares: the class changed. Hollow circles: the default was kept. Lines: 95&nbsp;% interval. "
    "Classes whose search ended at the default, or was not run, have no difference."
)


def _class_row(row: dict[str, Any]) -> str:
    word = outcome(row)
    shown = _OUTCOMES.get(word, _UNSEARCHED)
    cells = (
        f"{row['n_search']} / {row['n_holdout']}",
        percent(row["unpruned"], MISSING),
        percent(row["default"], MISSING),
        row["tested"] or MISSING,
        percent(row["score"], MISSING),
        interval(row, MISSING),
        _p_value(row["p_holm"]),
    )
    return (
        f'<tr><th scope="row">{esc(row["name"])} <small>{esc(row["intent"])}</small></th>'
        + "".join(f"<td>{esc(cell)}</td>" for cell in cells)
        + f'<td><span class="badge {"taken" if word == CHANGED else "kept"}">{shown}</span></td>'
        + f'<td class="reason">{esc(short(row["reason"]))}</td></tr>'
    )


def curves_part(summary: Summary, found: Found | None) -> str:
    """One chart per class of its search: differences to the default over rho, or scores without the records."""
    styles, default = line_styles(summary["classes"]), summary["default_candidate"]
    figures = "".join(_curve_figure(row, styles, default, found) for row in summary["classes"])
    if found is not None and found.searches:
        return f'{POINTS_NOTE}<div class="grid-of-charts">{figures}</div>'
    return (
        '<p class="note">Mean score on the <em>search</em> split. The highest point of a search is optimistic: it was '
        "picked because it is the highest. Only the holdout difference written beside each chart decided. The vertical "
        "axes differ between classes.</p>"
        f'<div class="grid-of-charts">{figures}</div>'
    )


def _curve_figure(row: dict[str, Any], styles: Mapping[str, int], default: str, found: Found | None) -> str:
    told = "" if row["tested"] is None else f"Tested: {row['tested']}."
    if row["tested"] == default:
        told = "The default was the best on the search split."
    if row["difference"] is not None:
        told += f" Holdout difference {interval(row)} points, Holm p {_p_value(row['p_holm'])}."
    shown = _OUTCOMES.get(outcome(row), _UNSEARCHED)
    drawn = any(row["curves"].values())
    chart = points_figure(row, found, default) if found else ""
    if not chart:
        chart = curve_chart(row, styles, default) if drawn else f'<p class="nothing">{esc(short(row["reason"]))}</p>'
    return f"<figure><h3>{esc(row['name'])}</h3><figcaption>{esc(told)} <b>{shown}</b></figcaption>{chart}</figure>"


def weights_part(summary: Summary, _: Found | None) -> str:
    """The heat map of the chosen configurations."""
    model = summary["model"]
    chart = heat_map(summary["classes"], model["vision_depth"], model["default_layer"])
    return (
        f'<figure class="plain">{chart}</figure><p class="note">Columns are the vision tower\'s layers, 0 being its '
        f"embeddings; the stock model reads layer {esc(model['default_layer'])} alone.</p>"
    )


def short(text: object) -> str:
    """A reason, cut off where it would make the page long."""
    words = str(text)
    return words if len(words) <= _SHOWN_CHARACTERS else words[: _SHOWN_CHARACTERS - 1] + "…"


def _p_value(value: float | None) -> str:
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
