"""Several budgets on paper: the terminal's table, the report's table and chart, and hostile strings in all of them."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console
from test_calib_report import Page, spoil
from test_calib_table import make_summary, printed

from claspkit.calib.charts_budgets import budgets_chart
from claspkit.calib.report import render_report
from claspkit.calib.table_budgets import adaptive_words, print_budgets


def around(name: str, score: float, half: float) -> dict[str, float]:
    """A mean with an interval around it."""
    return {name: score, f"{name}_ci_low": score - half, f"{name}_ci_high": score + half}


def row(nominal: int, share: float, default: float, profile: float) -> dict[str, Any]:
    """A budget of the summary."""
    return {
        "nominal": nominal,
        "schedule": "plain",
        "stages": [{"after_layer": layer, "keep": nominal} for layer in (2, 6, 15)],
        "mean_tokens_leaving": float(nominal),
        "mean_tokens_entering": nominal * 1.3,
        "flops": int(1e12 * share),
        "flops_share": share,
        "classes": 9,
        **around("unpruned", 0.74, 0.02),
        **around("default", default, 0.02),
        **around("profile", profile, 0.02),
        "difference": profile - default,
        "ci_low": profile - default - 0.01,
        "ci_high": profile - default + 0.01,
        "changed": ["text", "counting"],
        "profile_id": "ab" * 32,
        "path": f"profile-{nominal}/profile.json",
    }


ROWS = [row(192, 0.42, 0.70, 0.72), row(64, 0.25, 0.60, 0.66), row(320, 0.6, 0.73, 0.735)]
ADAPTIVE = {
    "decision": "adaptive",
    "reason": "the classes' own budgets beat one budget for all on the holdout (p = 0.002)",
    "target": 192,
    "nominals": {"text": 320, "scene": 64},
    "search_samples": {"text": 100},
    "search_gain": 0.03,
    "mean_flops": 4.1e11,
    "target_flops": 420000000000,
    "uniform": 0.72,
    "score": 0.74,
    "difference": 0.02,
    "ci_low": 0.01,
    "ci_high": 0.03,
    "p_value": 0.002,
    "profile_id": "cd" * 32,
    "path": "profile-adaptive/profile.json",
}


def summary(**changes: Any) -> dict[str, Any]:
    """A run with three budgets, mixed over the classes."""
    return make_summary(budgets=ROWS, adaptive=ADAPTIVE) | changes


def on_console(facts: dict[str, Any], width: int) -> str:
    """What is printed about budgets."""
    stream = io.StringIO()
    print_budgets(facts, Console(file=stream, width=width))
    return stream.getvalue()


def test_the_table_fits_a_plain_console_and_a_narrow_one_gets_lines() -> None:
    """All numbers at 80 columns; the same at 40."""
    wide = on_console(summary(), 80)
    assert max(map(len, wide.splitlines())) <= 80
    lines = [line.split() for line in wide.splitlines()]
    assert ["64", "25.0", "60.0", "66.0", "+6.0", "[+5.0,", "+7.0]", "2", "profile-64"] in lines
    narrow = " ".join(on_console(summary(), 40).split())
    assert "64 tokens, 25.0 % of the FLOPs: default 60.0, profile 66.0, +6.0 [+5.0, +7.0]; profile-64" in narrow
    assert on_console(make_summary(), 80) == ""


def test_what_came_of_mixing_is_one_sentence() -> None:
    """Taken, refused, and never tested."""
    assert adaptive_words(make_summary()) is None
    assert adaptive_words(summary()) == (
        "Budgets by class at the mean compute of 192 tokens: taken, in profile-adaptive; the classes' own budgets beat "
        "one budget for all on the holdout (p = 0.002); 72.0 % to 74.0 %, +2.0 [+1.0, +3.0]"
    )
    refused = {**ADAPTIVE, "decision": "uniform", "path": None, "reason": "no"}
    assert "tokens: refused; no; 72.0 %" in (adaptive_words(summary(adaptive=refused)) or "")
    untested = {**refused, **dict.fromkeys(("uniform", "score", "difference", "ci_low", "ci_high", "p_value"))}
    assert adaptive_words(summary(adaptive=untested)) == (
        "Budgets by class at the mean compute of 192 tokens: not tested; no"
    )
    assert "taken, in profile-adaptive" in " ".join(printed(summary(), 100).split())


@pytest.mark.parametrize("make", [summary, lambda: json.loads(json.dumps(summary())), lambda: spoil(summary())])
def test_the_page_stays_well_formed_and_safe(make: Any) -> None:
    """Closed tags, unique ids, every pointer with a goal, no script, whatever the strings hold."""
    text = render_report(make())
    page = Page(text)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    found = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(found) == len(set(found))
    pointed = {goal for _, attrs in page.tags for goal in (attrs.get("aria-labelledby") or "").split()}
    assert pointed <= set(found)
    assert "budgets-chart-d" in found


def test_the_chart_has_a_text_alternative_and_its_numbers() -> None:
    """Every point by value in the description and in the table; two series of three points, and the stock model."""
    page = Page(budgets_chart(ROWS))
    described = next(words for tag, words in page.words if tag == "desc")
    assert described.startswith("64 tokens, 25.0 percent of the FLOPs: default 60.0 [58.0, 62.0], profile 66.0 [64.0")
    assert described.endswith("unpruned 74.0 [72.0, 76.0]")
    assert page.count("path", class_="line") == 2
    assert page.count("path", class_="mark") == 2 * 3 + 2  # and the legend
    assert page.count("path", class_="dot") == 2
    assert page.count("path", class_="lead") == 2 * 3
    assert page.count("path", class_="whisker") == 1
    assert "72.0 [70.0, 74.0]" in page.text


def test_everything_is_drawn_inside_the_chart() -> None:
    """Also a budget that hardly prunes, one alone, and scores at both ends."""
    for rows in (ROWS, [row(570, 0.999, 0.0, 1.0)], [row(1, 0.01, 0.5, 0.5), row(2, 0.02, 0.5, 0.5)]):
        svg = budgets_chart(rows).partition("</svg>")[0]
        places = re.findall(r'[Md]="?M?(-?\d+\.?\d*)[ ,](-?\d+\.?\d*)', svg)
        assert places
        assert all(-5 <= float(x) <= 525 and -8 <= float(y) <= 285 for x, y in places)


def test_a_score_that_is_not_known_leaves_the_chart_out() -> None:
    """The table stays, with a dash."""
    unknown = ("profile", "profile_ci_low", "profile_ci_high", "difference", "ci_low", "ci_high")
    rows = [ROWS[0] | dict.fromkeys(unknown)]
    assert budgets_chart(rows) == ""
    assert "All budgets" in render_report(summary(budgets=rows))
    assert " - " in on_console(summary(budgets=rows), 80)
