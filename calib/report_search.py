"""The parts of the report about the search: differences over rho, the race, what it cost, and labels against others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .charts import data_table, esc, folded_table
from .charts_costs import costs_chart
from .charts_points import points_chart
from .charts_race import race_chart
from .picture_scores import confusions, draw_scores
from .report_found import Comparison, Found
from .table import percent

POINTS_NOTE = (
    '<p class="note">Each point: a candidate\'s mean paired difference to the default on the search samples that it '
    "saw; the line at 0 is the default. Vertical lines: 95&nbsp;% intervals of these differences, pictures taken "
    "together, normal approximation. Small marks and faint intervals: candidates that a race dropped early, on few "
    "samples. The highest point of a search is optimistic: it was picked because it is the highest. Only the holdout "
    "difference written beside each chart decided. The vertical axes differ between classes, and intervals are cut off "
    "at their ends.</p>"
)


def points_figure(row: Mapping[str, Any], found: Found, default: str) -> str:
    """The chart of one class's search; empty text where its records are not there."""
    search = found.searches.get(row["intent"])
    if search is None or found.space is None:
        return ""
    styles = {prototype.name: number for number, prototype in enumerate(found.space.prototypes)}
    return points_chart(row["intent"], row["name"], search.points, styles, default, row["tested"])


def race_part(summary: Mapping[str, Any], found: Found | None) -> str:
    """One chart per class that was raced."""
    figures = []
    for row in summary["classes"]:
        search = found.searches.get(row["intent"]) if found else None
        if found is None or found.space is None or search is None or not search.rungs:
            continue
        last = search.rungs[-1]
        rungs = "1 rung" if len(search.rungs) == 1 else f"{len(search.rungs)} rungs"
        told = f"{rungs}, the last on {last.samples} of {row['n_search']} search samples."
        chart = race_chart(row["intent"], row["name"], search.rungs, found.space)
        figures.append(f"<figure><h3>{esc(row['name'])}</h3><figcaption>{esc(told)}</figcaption>{chart}</figure>")
    if not figures:
        return '<p class="nothing">No race to show: the search had another strategy, or its records are not there.</p>'
    return (
        '<p class="note">All candidates start on a few search samples. After each rung those go on that are best, and '
        "whoever clearly trails the leader (2.33 standard errors of the paired difference) goes out at once. The "
        'default is never dropped.</p><div class="grid-of-charts">' + "".join(figures) + "</div>"
    )


def costs_part(found: Found | None) -> str:
    """The waterfall; empty text where the ledger has no costs."""
    chart = costs_chart(found.costs) if found else ""
    if not chart:
        return ""
    return (
        f'<figure class="plain">{chart}</figure><p class="note">FLOPs of the decoder\'s layers, counted while they '
        "ran; the vision encoder is not in them. Nothing shared: one prompt at a time, token by token. Everything "
        "asked: every candidate on every search sample, at the mean cost of each class's own evaluations.</p>"
    )


def comparisons_part(found: Found | None) -> str:
    """Confusion matrix and coverage curve of every comparison."""
    return "".join(map(_comparison, found.comparisons)) if found else ""


def _comparison(each: Comparison) -> str:
    picture = draw_scores(each.scores, each.rejected, each.title, "agreement", f"scores-{each.name}", styled=False)
    worst = confusions(each.scores)
    numbers = folded_table(
        f"{each.title}, by class, percent",
        ["class", "prompts", "precision", "recall", "F1"],
        (
            [row.intent, row.prompts, percent(row.precision), percent(row.recall), percent(row.f1)]
            for row in each.scores.classes
        ),
    )
    told = f"Most frequent: {'; '.join(worst[:3])}." if worst else "They agree on every prompt."
    return (
        f'<h3>{esc(each.title)}</h3><p>{esc(told)}</p><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{esc(each.title)}, chart">{picture}</div>{numbers}'
    )


def overrides_part(found: Found | None) -> str:
    """Where rules overruled the labeller."""
    if found is None or not found.labels["overrides"]:
        return ""
    rows = (
        [row["rule"], row["said"], row["now"], row["samples"], row["prompts"][0]] for row in found.labels["overrides"]
    )
    header = ["rule", "labeller said", "label", "samples", "such as"]
    return data_table(f"Rules that overruled the labeller, on {found.labels['overruled']} samples", header, rows)
