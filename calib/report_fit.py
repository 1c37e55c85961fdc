"""What the report shows where it has room for it: samples, and the parts of further budgets. The page stays small."""

from __future__ import annotations

import re
from typing import Any

from .charts import esc
from .report_classes import classes_part, curves_part, weights_part
from .report_found import Found
from .report_gallery import gallery_part
from .report_search import race_part
from .summary_budgets import at_budget, has_classes, nominals
from .table import CHANGED, interval, outcome, percent

_SHARE = 0.6  # of the room, that the charts of further budgets may take where the samples want all of it
_FOLDED = re.compile(r"<details><summary>Numbers<span.*?</details>", re.DOTALL)
_NAMED = re.compile(r' (id|aria-labelledby)="([^"]*)"')
_LABEL = re.compile(r' aria-label="([^"]*)"')

Summary = dict[str, Any]


def fit_parts(summary: Summary, found: Found | None, room: int) -> dict[str, str]:
    """The sections "gallery" and "further" (empty without a further budget), in ``room`` bytes together.

    Charts of further budgets come before samples. They lose their tables first, then the searches and races go; all
    further budgets are treated alike, and what is left out is named with the command that tells it.
    """
    names = {row["intent"]: row["name"] for row in summary["classes"]}
    gallery = found.gallery if found else None
    whole = gallery_part(gallery, names)
    further = nominals(summary)[1:]
    if not further:
        return {"gallery": _bounded(whole, room) or gallery_part(gallery, names, room), "further": ""}
    if not has_classes(summary):
        return {"gallery": _bounded(whole, room) or gallery_part(gallery, names, room), "further": _OLD}
    most = max(_SHARE * room, room - _size(whole))
    for level in range(_LEVELS):
        drawn = {nominal: _charts(summary, found, nominal, level) for nominal in further}
        if sum(map(_size, drawn.values())) <= most:
            break
    left = room - sum(map(_size, drawn.values()))
    mine = gallery_part(gallery, names, left // 2 if found and found.further else left)
    left -= _size(mine)
    sections = []
    for number, nominal in enumerate(further):
        its = found.further.get(nominal) if found else None
        samples = gallery_part(its.gallery if its else None, names, left // (len(further) - number), nominal=nominal)
        samples = _renamed(samples, nominal)
        left -= _size(samples)
        sections.append(_budget(summary, nominal, drawn[nominal] + f"<h3>Samples</h3>{samples}"))
    return {"gallery": mine, "further": _NOTE + "".join(sections)}


_NOTE = (
    '<p class="note">What stands above about the first budget, of every other one: its classes, its search, its race, '
    "its weights and samples. Each budget's claim is its own: Holm corrects over the classes of one budget.</p>"
)
_OLD = (
    '<p class="nothing">This run is of a version that wrote the classes of its first budget alone. Run the '
    "calibration again, it is quick now: nothing is computed twice.</p>"
)


def _bounded(text: str, room: int) -> str:
    return text if _size(text) <= room else ""


def _size(text: str) -> int:
    return len(text.encode())


_LEVELS = 3  # everything; without the tables of candidates; without searches and races


def _charts(summary: Summary, found: Found | None, nominal: int, level: int) -> str:
    """The parts of one budget but its samples, with ids and headings that fit below it."""
    own, its = at_budget(summary, nominal), found.further.get(nominal) if found else None
    inspect = f"<code>claspkit inspect RUN --budget {nominal} --section race</code>"
    searches = f"<h3>Search</h3>{_lower(curves_part(own, its))}<h3>Race</h3>{_lower(race_part(own, its))}"
    if level == 1:
        searches = _FOLDED.sub("", searches) + f'<p class="note">The numbers of these charts: {inspect}.</p>'
    elif level > 1:
        searches = f'<p class="note">There is no room for searches and races here: {inspect} tells them.</p>'
    classes, weights = _lower(classes_part(own, its)), weights_part(own, its)
    return _renamed(f"<h3>Classes</h3>{classes}{searches}<h3>Fusion weights</h3>{weights}", nominal)


def _lower(part: str) -> str:
    """The same HTML with its headings one level down."""
    return part.replace("<h3>", "<h4>").replace("</h3>", "</h4>")


def _renamed(part: str, nominal: int) -> str:
    """The same HTML with ids, and names of regions, that no other budget's has.

    Text between tags and inside attributes is escaped (:func:`.charts.esc`), so a quotation mark is always markup.
    """

    def ids(match: re.Match[str]) -> str:
        return f' {match[1]}="{" ".join(f"{name}-at{nominal}" for name in match[2].split())}"'

    part = _NAMED.sub(ids, part)
    part = re.sub(r' href="#([^"]*)"', rf' href="#\1-at{nominal}"', part)
    return _LABEL.sub(rf' aria-label="\1, at {nominal} tokens"', part)


def _budget(summary: Summary, nominal: int, body: str) -> str:
    row = next(each for each in summary["budgets"] if each["nominal"] == nominal)
    changed = sum(outcome(each) == CHANGED for each in row["class_rows"])
    told = f"{nominal} visual tokens: {changed} of {len(row['class_rows'])} classes changed"
    means = f"; default {percent(row['default'])} %, profile {percent(row['profile'])} %, {interval(row)} points"
    if row["default"] is None or row["profile"] is None:
        means = ""
    return f'<details class="budget" id="at{nominal}"><summary>{esc(told + means)}</summary>{body}</details>'
