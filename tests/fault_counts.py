"""The rows of the fault table: ``pytest -m long -s tests/test_cache_*.py`` prints them."""

from __future__ import annotations

from collections.abc import Mapping


def tell(fault: str, cases: int, outcomes: Mapping[str, int] | str) -> None:
    """Print one row: what was done, how often, what came of it."""
    if not isinstance(outcomes, str):
        outcomes = ", ".join(f"{count} {what}" for what, count in outcomes.items())
    print(f"\n| {fault} | {cases} | {outcomes} |")
