"""The part of the report about several budgets: a table, a chart, and what came of different ones for the classes."""

from __future__ import annotations

from typing import Any

from .charts import data_table, esc
from .charts_budgets import budgets_chart
from .table import clean, interval, percent
from .table_budgets import adaptive_words

_MISSING = "–"


def budgets_part(summary: dict[str, Any]) -> str:
    """HTML; nothing for a run with one budget.

    Args:
        summary: what :func:`claspkit.calib.outcome.finish` wrote, or the same read back from summary.json.
    """
    rows = summary.get("budgets")
    if not rows:
        return ""
    header = ["budget", "kept tokens", "entering a layer", "prefill FLOPs", "default", "profile"]
    table = data_table(
        "Every budget of this run: holdout means over the classes, percent and points",
        [*header, "profile - default [95 %]", "classes changed", "written to"],
        (
            [
                row["nominal"],
                "\u00a0/\u00a0".join(str(stage["keep"]) for stage in row["stages"]),
                f"{row['mean_tokens_entering']:.1f}",
                f"{percent(row['flops_share'])}\u00a0%",
                percent(row["default"], _MISSING),
                percent(row["profile"], _MISSING),
                interval(row, _MISSING),
                ", ".join(map(clean, row["changed"])) or "none",
                clean(row["path"]),
            ]
            for row in rows
        ),
    )
    chart = budgets_chart(rows)
    figure = f'<figure class="wide"><figcaption>{_CAPTION}</figcaption>{chart}</figure>' if chart else ""
    return (
        f"<h3>All budgets</h3>{table}{figure}"
        '<p class="note">Every budget has a search, a test and a profile of its own; Holm corrects over the classes of '
        "one budget, not over the budgets. Everything above is about the first one, "
        'and <a href="#further">further budgets</a> have a part of their own below.</p>'
        f"{_adaptive(summary)}"
    )


_CAPTION = (
    "Numbers above the axis are nominal budgets. Bars: 95&nbsp;% intervals of each mean, pictures resampled. Whether "
    "profile and default differ is said by the interval of their difference in the table, not by these bars."
)


def _adaptive(summary: dict[str, Any]) -> str:
    found, words = summary.get("adaptive"), adaptive_words(summary)
    if found is None or words is None:
        return ""
    table = data_table(
        "Budgets that the search split chose",
        ["class", "budget", "search samples compared"],
        ([intent, nominal, found["search_samples"].get(intent)] for intent, nominal in found["nominals"].items()),
    )
    share = 100 * found["mean_flops"] / found["target_flops"]
    return (
        f"<h3>Budgets by class</h3><p>{esc(words)}.</p>{table}"
        '<p class="note">Mean prefill FLOPs over the classes, every class weighing the same: '
        f"{share:.1f} % of those of the first budget for all. The choice was made on the search split alone; one test "
        "over all classes together on the holdout decides, at 0.05. On traffic that is not even over the classes the "
        "mean is another one.</p>"
    )
