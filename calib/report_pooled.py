"""The part of the report that sets one configuration for all classes beside the profile."""

from __future__ import annotations

from typing import Any

from .charts import data_table, esc
from .table import clean, interval, percent, pooled_words


def pooled_table(summary: dict[str, Any]) -> str:
    """A sentence and three rows as HTML; nothing for a run that did not make the comparison.

    Args:
        summary: what :func:`claspkit.calib.outcome.summarise` made, or the same read back from summary.json.
    """
    found, words = summary.get("pooled"), pooled_words(summary)
    if found is None or words is None:
        return ""
    rows = [
        ("default", percent(found["default"]), None, interval(_turned(found["profile_to_default"]))),
        (
            f"{clean(found['candidate'])} for all classes",
            percent(found["score"]),
            interval(found["pooled_to_default"]),
            interval(_turned(found["profile_to_pooled"])),
        ),
        ("this profile", percent(found["profile"]), interval(found["profile_to_default"]), None),
    ]
    if found["candidate"] == summary["default_candidate"]:
        del rows[1]  # the same as the first
    header = ["configuration", "holdout score", "to the default [95 %]", "to this profile [95 %]"]
    counts = sorted(set(found["search_samples"].values()))
    told = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"<h3>What being class-adaptive bought</h3><p>{esc(words)}.</p>"
        + data_table("Mean over the classes, each weighing the same; percent and points", header, rows)
        + f'<p class="note">The one configuration is the best of {found["compared"]} on the first {told} search '
        "samples of every class, which all of them were scored on. It decides nothing. It was not picked by the "
        "holdout; the profile's changed classes had to pass there, so the profile's lead is a little optimistic.</p>"
    )


def _turned(row: dict[str, float]) -> dict[str, float]:
    """The same difference seen from the other side."""
    return {"difference": -row["difference"], "ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
