"""The summary in words and on a terminal: right, narrow, without colour, and deaf to what strings try to do."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from claspkit.calib.table import (
    CHANGED,
    KEPT,
    TOO_FEW,
    clean,
    headline,
    holdout_means,
    interval,
    outcome,
    percent,
    points,
    print_summary,
    summary_table,
)
from claspkit.profiles.intents import INTENTS

PROTOTYPES = {
    "default": ([8], [1.0]),
    "deep": ([6, 7, 8], [0.016, 0.117, 0.867]),
    "middle": ([2, 4, 6, 8], [0.008, 0.462, 0.068, 0.462]),
    "shallow": ([1, 2, 4, 8], [0.06, 0.44, 0.06, 0.44]),
    "hybrid": ([1, 4, 8], [0.107, 0.107, 0.786]),
}
CHANGED_CLASSES = {"text": 0.112, "counting": 0.062, "action": 0.031}
UNSEARCHED = "intention"
BEST_WAS_DEFAULT = "scene"


def curves(seed: int) -> dict[str, list[list[float]]]:
    """Five smooth curves over rho in tenths, a little different for every class."""
    return {
        name: [
            [step / 10, 0.55 + 0.02 * number + 0.05 * math.sin(0.4 * step + seed + 0.7 * number)] for step in range(11)
        ]
        for number, name in enumerate(PROTOTYPES)
    }


def class_row(number: int) -> dict[str, Any]:
    """One class: changed, kept with a tested candidate, kept because the default was best, or never searched."""
    intent = INTENTS[number]
    gain = CHANGED_CLASSES.get(intent.id)
    searched = intent.id != UNSEARCHED
    tested = intent.id not in (UNSEARCHED, BEST_WAS_DEFAULT)
    name = list(PROTOTYPES)[1 + number % 4] if gain else "default"
    layers, weights = PROTOTYPES[name]
    difference = (gain or 0.004 * (number - 3)) if tested else None
    reason = (
        f"{name}/0.3 beats the default on the holdout (Holm-corrected p = 0.0016)"
        if gain
        else (
            "hybrid/0.5 won the search but not the holdout (Holm-corrected p = 1)"
            if tested
            else "the default was the best on the search split"
        )
    )
    return {
        "intent": intent.id,
        "name": intent.name,
        "n_search": 300 if searched else 4,
        "n_holdout": 298 if searched else 0,
        "unpruned": 0.7 + 0.01 * number if searched else None,
        "default": 0.6 + 0.01 * number if searched else None,
        "tested": (f"{name}/0.3" if gain else "hybrid/0.5" if tested else "default/0.9") if searched else None,
        "chosen": f"{name}/0.3" if gain else "default/0.9",
        "layers": layers,
        "weights": weights,
        "rho": 0.3 if gain else 0.9,
        "decision": "searched" if gain else "kept_default",
        "score": 0.6 + 0.01 * number + difference if difference is not None else None,
        "difference": difference,
        "ci_low": difference - 0.03 if difference is not None else None,
        "ci_high": difference + 0.028 if difference is not None else None,
        "p_value": 0.0002 if gain else 0.4 if tested else None,
        "p_holm": 0.0016 if gain else 1.0 if tested else None,
        "reason": reason if searched else "4 search and 0 holdout samples; a search needs 10 of each",
        "published_rho": intent.published_rho,
        "curves": curves(number) if searched else {},
    }


def make_summary(**changes: Any) -> dict[str, Any]:
    """A finished run of the small model: three classes changed, five kept, one without samples."""
    return {
        "profile_id": "5f" * 32,
        "model": {
            "family": "llava",
            "id": "mini",
            "revision": None,
            "vision_depth": 8,
            "vision_width": 128,
            "decoder_depth": 8,
            "decoder_width": 192,
            "visual_tokens": 144,
            "default_layer": 8,
            "fingerprint": "ab" * 32,
        },
        "config": {"model": "mini", "per_class": 600, "seed": 7, "revision": None, "columns": [], "budget": "1/3"},
        "budget": {
            "nominal": 48,
            "stages": [{"after_layer": 1, "keep": 75}, {"after_layer": 2, "keep": 50}, {"after_layer": 4, "keep": 30}],
            "schedule": "plain",
            "mean_tokens_leaving": 51.0,
            "mean_tokens_entering": 65.25,
            "prefill": {"text_tokens": 60, "flops_unpruned": 800_000_000, "flops_pruned": 500_000_000},
        },
        "default_candidate": "default/0.9",
        "classes": [class_row(number) for number in range(9)],
        "labels": {"rule": 3120, "teacher:Qwen/Qwen3-8B@main": 1684},
        "router": {
            "kind": "student",
            "chosen": "shipped",
            "why": "agrees with most labels",
            "source": "student:0123456789ab",
            "min_confidence": 0.75,
            "agreement": 0.875,
            "coverage": 0.9,
            "prompts": 700,
            "compared": 70,
            "candidates": [
                {
                    "name": name,
                    "min_confidence": 0.75,
                    "agreement": agreement,
                    "coverage": 0.9,
                    "accepted_agreement": None,
                }
                for name, agreement in (("distilled", 0.5), ("shipped", 0.875))
            ],
        },
        "datasets": [{"name": "mini-generated", "revision": None, "split": "train", "samples": 4804}],
        "quarantine": [{"where": "data.jsonl:17", "reason": "the picture is truncated"}],
        "cost": {
            "candidate_evaluations": 71234,
            "exhaustive_evaluations": 132220,
            "vision_passes": 1602,
            "unique_pictures": 1602,
            "seconds": {"model": 1.2, "samples": 14.0, "label": 0.6, "cache": 75.0, "search": 4210.0},
        },
        "environment": {"python": "3.11.9", "torch": "2.8.0", "device": "cpu"},
        "ledger_sha256": "7c" * 32,
    } | changes


def nothing_changed(**row_changes: Any) -> dict[str, Any]:
    """A summary whose classes all kept the default, with the same changes in every row."""
    row = class_row(0) | row_changes
    return make_summary(classes=[row | {"intent": intent.id} for intent in INTENTS])


def printed(summary: dict[str, Any], width: int, **options: Any) -> str:
    """What :func:`print_summary` writes to a file-like console of that width."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, **options)
    print_summary(summary, console, Path("runs/mini/profile/profile.json"))
    return stream.getvalue()


def test_the_headline_says_how_many_changed_what_it_bought_and_at_which_budget() -> None:
    said = headline(make_summary())
    assert said.startswith("3 of 9 classes changed (text, counting, action)")
    # mean of the eight measured defaults: 60 + (0+1+2+3+4+5+6+8)/8; gains 11.2 + 6.2 + 3.1 over eight classes
    assert "from 63.6 % to 66.2 % at 48 of 144 visual tokens (unpruned: 73.6 %)" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "no tested candidate beats the default significantly"),
        ({"tested": None, "difference": None}, "no class had enough samples"),
        ({"tested": "default/0.9", "difference": None}, "the default was the best on the search split"),
    ],
)
def test_the_headline_says_plainly_that_nothing_changed(changes: dict[str, Any], why: str) -> None:
    said = headline(nothing_changed(**changes))
    assert said.startswith("No class changed at 48 of 144 visual tokens: ")
    assert why in said


def test_means_leave_out_classes_without_samples_and_know_when_there_are_none() -> None:
    means = holdout_means(make_summary()["classes"])
    assert means["profile"] == pytest.approx(0.63625 + (0.112 + 0.062 + 0.031) / 8)
    empty = nothing_changed(unpruned=None, default=None, tested=None, difference=None)
    assert holdout_means(empty["classes"]) == {"unpruned": None, "default": None, "profile": None}


def test_outcome_tells_three_cases_apart() -> None:
    words = {row["intent"]: outcome(row) for row in make_summary()["classes"]}
    assert {words[name] for name in CHANGED_CLASSES} == {CHANGED}
    assert words[UNSEARCHED] == TOO_FEW
    assert words[BEST_WAS_DEFAULT] == KEPT


def test_numbers_are_written_in_percent_and_signed_points() -> None:
    assert (percent(0.6254), percent(None), percent(1.0)) == ("62.5", "-", "100.0")
    assert (points(0.112), points(-0.1), points(-0.0001), points(0.0)) == ("+11.2", "-10.0", "+0.0", "+0.0")
    assert interval({"difference": 0.1, "ci_low": -0.0, "ci_high": 0.2}) == "+10.0 [+0.0, +20.0]"
    assert interval({"difference": None}) == "-"


@given(st.text(st.characters(exclude_categories=[])))
def test_cleaned_text_is_one_encodable_line_without_control(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    cleaned.encode()
    assert not any(char in cleaned for char in "\x1b\x07\r\n\u202e\u2066")


def test_the_table_has_a_row_per_class_and_the_columns_asked_for() -> None:
    table = summary_table(make_summary())
    assert table.row_count == 9
    assert len(table.columns) == 7
    text = printed(make_summary(), 100)
    row = next(line for line in text.splitlines() if line.startswith("text"))
    assert row.split() == ["text", "300/298", "72.0", "62.0", "shallow/0.3", "+11.2", "[+8.2,", "+14.0]", "changed"]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_fits_a_plain_console(width: int) -> None:
    text = printed(make_summary(), width)
    assert all(len(line) <= width for line in text.splitlines() if "profile.json" not in line)
    assert "\x1b" not in text
    assert sum(line.split()[:1] == [intent.id] for line in text.splitlines() for intent in INTENTS) == 9
    text.encode("ascii")


@pytest.mark.parametrize("width", [20, 40, 70])
def test_a_narrow_console_gets_blocks_that_hold_the_same(width: int) -> None:
    lines = printed(make_summary(), width).splitlines()
    assert all(len(line) <= width for line in lines if "profile.json" not in line)
    for intent in INTENTS:
        assert any(line.startswith(f"{intent.id}:") for line in lines)
    assert "text: changed" in lines
    assert f"{UNSEARCHED}: too few" in lines


def test_what_to_do_next_can_be_copied_whole_from_a_narrow_console() -> None:
    stream = io.StringIO()
    place = Path("runs/a folder with spaces in its name/profile/profile.json")
    print_summary(make_summary(), Console(file=stream, width=40), place, report="runs/report.html")
    lines = stream.getvalue().splitlines()
    assert f"profile  {place}" in lines
    assert "report   runs/report.html" in lines
    assert any(line.startswith(f"next     claspkit run --profile '{place}' ") for line in lines)


def test_remarks_name_what_limits_the_result() -> None:
    text = printed(make_summary(), 100)
    assert "Too few samples for a search: intention" in text
    assert "1 row of data left out" in text
    assert "narrow" in text
    assert "left out" not in printed(make_summary(quarantine=[]), 100)


@pytest.mark.parametrize(("low", "told"), [(0.01, True), (0.0, False), (-0.01, False)])
def test_a_kept_class_with_its_interval_above_zero_is_explained(low: float, told: bool) -> None:
    row = class_row(1) | {"decision": "kept_default", "difference": 0.1, "ci_low": low, "ci_high": 0.2}
    assert ("corrected for all classes tested (Holm)" in printed(make_summary(classes=[row]), 200)) is told


def test_the_router_is_named_unless_the_run_is_older() -> None:
    """With its agreement, or that there was nothing to compare with."""
    summary = make_summary()
    line = "the shipped student (student:0123456789ab): agrees with 87.5 % of 70 labels, accepting 90.0 % at 0.750"
    assert f"Router: {line}." in printed(summary, 120)
    summary["router"]["agreement"] = None
    assert "Router: the shipped student (student:0123456789ab): no label to compare with" in printed(summary, 120)
    del summary["router"]
    assert "Router: " not in printed(summary, 120)


def test_markup_and_escapes_in_strings_stay_text() -> None:
    row = class_row(2) | {"intent": "[red]x[/red]", "chosen": "[/nonsense]\x1b[2Jy", "tested": "[b]z"}
    for width in (40, 200):
        text = printed(make_summary(classes=[row]), width, force_terminal=True, color_system=None)
        assert "[red]x[/red]" in text
        assert "\x1b[2J" not in text
