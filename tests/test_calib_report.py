"""The report: well-formed, self-contained, complete, and deaf to what strings try to do."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from test_calib_table import CHANGED_CLASSES, UNSEARCHED, class_row, make_summary, nothing_changed

from claspkit.calib.charts import curve_chart, difference_chart, heat_map, line_styles
from claspkit.calib.charts_compute import PAPER, compute_chart, compute_points
from claspkit.calib.report import QUARANTINE_SHOWN, render_report
from claspkit.calib.table import headline, holdout_means
from claspkit.profiles.intents import INTENTS

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[2J\u202e\ud800 $title &amp; {0}"


class Page(HTMLParser):
    """Reads a page and complains about whatever is not closed in order; keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag; only void ones may stay open."""
        assert len(dict(attrs)) == len(attrs), f"attribute given twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag that closes itself: right in SVG only."""
        assert "svg" in self.open, tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """A closing tag closes the last one opened."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text, with the tag that holds it."""
        if self.open:
            self.words.append((self.open[-1], data))

    def count(self, tag: str, **wanted: str) -> int:
        """How many tags of that name carry these attributes (``class_`` for class)."""
        pairs = {name.rstrip("_"): value for name, value in wanted.items()}
        return sum(name == tag and pairs.items() <= attrs.items() for name, attrs in self.tags)

    @property
    def text(self) -> str:
        """Everything a person may read."""
        return " ".join(words for tag, words in self.words if tag != "style")


def spoil(value: Any) -> Any:
    """The same structure with every string in it made hostile, but for the words the program itself compares."""
    if isinstance(value, dict):
        kept = {"decision", "intent", "chosen", "tested"}
        return {key: item if key in kept else spoil(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spoil(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def no_samples() -> dict[str, Any]:
    """Every class without a single sample."""
    row = class_row(next(intent.index for intent in INTENTS if intent.id == UNSEARCHED))
    return make_summary(
        classes=[row | {"intent": intent.id, "name": intent.name, "n_search": 0} for intent in INTENTS],
        labels={},
        quarantine=[],
        datasets=[],
    )


SUMMARIES: dict[str, Callable[[], dict[str, Any]]] = {
    "changed": make_summary,
    "none changed": nothing_changed,
    "no samples": no_samples,
    "read back": lambda: json.loads(json.dumps(make_summary())),
    "hostile": lambda: spoil(make_summary()),
}


@pytest.mark.parametrize("make", SUMMARIES.values(), ids=SUMMARIES)
def test_every_page_is_well_formed_self_contained_and_small(make: Callable[[], dict[str, Any]]) -> None:
    text = render_report(make())
    page = Page(text)
    assert len(text.encode()) < 2_000_000
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "img", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        assert "src" not in attrs
        assert not [name for name in attrs if name.startswith("on")]
        assert attrs.get("href", "#").startswith("#")  # type: ignore[union-attr]


@pytest.mark.parametrize("make", SUMMARIES.values(), ids=SUMMARIES)
def test_ids_are_unique_and_everything_that_points_finds_its_goal(make: Callable[[], dict[str, Any]]) -> None:
    page = Page(render_report(make()))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    pointed = [goal for _, attrs in page.tags for goal in (attrs.get("aria-labelledby") or "").split()]
    pointed += [(attrs["href"] or "")[1:] for tag, attrs in page.tags if tag == "a"]
    assert set(pointed) <= set(ids)


def test_the_router_section_lists_what_was_compared() -> None:
    """Every candidate with its agreement; a run that has no such facts says so."""
    summary = make_summary()
    text = Page(render_report(summary)).text
    told = "the shipped student (student:0123456789ab): agrees with 87.5 %"
    for part in (told, "the labels of 70 prompts", "distilled", "50.0"):
        assert part in text
    del summary["router"]
    assert "did not say how it chose the router" in Page(render_report(summary)).text


def test_the_verdict_and_all_nine_classes_are_there() -> None:
    summary = make_summary()
    page = Page(render_report(summary))
    assert headline(summary) in page.text
    headers = [words.strip() for tag, words in page.words if tag == "th"]
    for intent in INTENTS:
        assert intent.name in headers
        assert ("h3", intent.name) in page.words
    badges = [words for tag, words in page.words if tag == "span"]
    assert badges.count("changed") == len(CHANGED_CLASSES)
    assert badges.count("default kept") == 5
    assert badges.count("not searched") == 1


def test_nothing_changed_is_said_plainly() -> None:
    assert "No class changed at 48 of 144 visual tokens" in Page(render_report(nothing_changed())).text


def test_every_chart_has_text_alternatives_and_its_numbers() -> None:
    page = Page(render_report(make_summary()))
    charts = 8 + 1 + 1 + 1  # the searched classes' curves, differences, weights, budget
    assert page.count("svg", role="img") == page.count("title") - 1 == page.count("desc") == charts
    assert page.count("details") >= charts
    assert all(words.strip() for tag, words in page.words if tag in ("desc", "title"))


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name() -> None:
    page = Page(render_report(make_summary()))
    regions = [attrs for _, attrs in page.tags if attrs.get("class") == "scroll"]
    assert len(regions) > 10
    for attrs in regions:
        assert attrs["tabindex"] == "0"
        assert attrs["role"] == "region"
        assert attrs["aria-label"]
    assert page.tags[[tag for tag, _ in page.tags].index("body") + 1] == ("a", {"class": "skip", "href": "#main"})


def test_dark_light_and_narrow_are_provided_for() -> None:
    text = render_report(make_summary())
    assert "prefers-color-scheme:dark" in text
    assert 'name="viewport" content="width=device-width' in text
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", text)) - {"--c"}
    blocks = re.findall(r"prefers-color-scheme:dark\)\{(.*?)\}\}", text, flags=re.DOTALL)
    rest = re.sub(r"prefers-color-scheme:dark\)\{.*?\}\}", "", text, flags=re.DOTALL)
    light = set(re.findall(r"(--[a-z0-9]+):", rest))
    dark = set(re.findall(r"(--[a-z0-9]+):", "".join(blocks)))
    assert len(blocks) == 2  # the page's, and that of the router's picture
    assert used <= light
    assert light <= dark | {"--c"}


def test_hostile_strings_come_out_as_text() -> None:
    text = render_report(spoil(make_summary()))
    assert "<script" not in text
    assert "<img" not in text
    assert not {"\x1b", "\u202e", "\ud800"} & set(text)
    assert "alert(1)</script>" in Page(text).text


def test_quarantined_rows_are_capped_and_counted_and_long_reasons_cut() -> None:
    rows = [{"where": f"data.jsonl:{number}", "reason": "x" * 5000} for number in range(100_000)]
    text = render_report(make_summary(quarantine=rows))
    assert text.count("data.jsonl:") == QUARANTINE_SHOWN
    assert "100,000 rows of the data left out" in text
    assert f"{100_000 - QUARANTINE_SHOWN} more are in summary.json" in text
    assert len(text) < 500_000
    assert "No row of the data was left out" in render_report(make_summary(quarantine=[]))


def test_budget_cost_and_provenance_are_told() -> None:
    text = Page(render_report(make_summary())).text
    assert re.search(r"0 to 1 144 100.0 % 2 75 .* 3 to 4 50 .* 5 to 7 30 20.8 %", re.sub(r"\s+", " ", text))
    for expected in (
        "51.0 tokens",
        "65.2 tokens",
        "71,234",
        "132,220",
        "1 h 10 min",
        "1 h 11 min",
        "5f" * 32,
        "ab" * 32,
    ):
        assert expected in text
    assert "None" not in text
    for expected in ("mini-generated", "teacher:Qwen/Qwen3-8B@main", "2.8.0", "per_class"):
        assert expected in text


def test_a_curve_chart_has_a_line_per_prototype_and_marks_default_and_tested() -> None:
    row = class_row(2)
    page = Page(curve_chart(row, line_styles([row]), "default/0.9"))
    assert page.count("path", class_="line") == 5
    assert page.count("path", class_="mark") == 5 * 11 + 5  # every point, and one beside every name
    assert page.count("path", class_="ring") == 2
    assert {words for tag, words in page.words if tag == "text"} >= {"default", "tested", "shallow", "0.2", "%"}
    dashes = {attrs["stroke-dasharray"] for _, attrs in page.tags if attrs.get("class") == "line"}
    assert len(dashes) == 5


def test_the_default_is_marked_once_when_it_is_what_was_tested() -> None:
    row = class_row(3)
    page = Page(curve_chart(row, line_styles([row]), "default/0.9"))
    assert page.count("path", class_="ring") == 1


@pytest.mark.parametrize(
    "curves",
    [
        {"default": [[0.9, 0.0]]},
        {"default": [[0.9, 1.0]], "deep": [[0.0, 1.0], [1.0, 1.0]]},
        {"default": [[0.9, 0.5]], "deep": []},
        {f"a long prototype name {number}": [[0.5, number / 40]] for number in range(40)},
    ],
)
def test_odd_curves_are_drawn_inside_the_chart(curves: dict[str, list[list[float]]]) -> None:
    row = class_row(0) | {"curves": curves}
    page = Page(curve_chart(row, line_styles([row]), "default/0.9"))
    lines = [attrs["d"] or "" for _, attrs in page.tags if attrs.get("class") == "line"]
    places = [tuple(map(float, pair.split())) for d in lines for pair in d[1:].split("L")]
    assert len(lines) == sum(bool(line) for line in curves.values())
    assert all(40 <= x <= 276 and 16 <= y <= 194 for x, y in places)
    names = [float(attrs["y"] or "nan") for _, attrs in page.tags if attrs.get("class") == "name"]
    assert all(16 <= y <= 200 for y in names)


def test_the_difference_chart_shows_tested_classes_only() -> None:
    page = Page(difference_chart(make_summary()["classes"]))
    assert page.count("path", class_="dot taken") == 3
    assert page.count("path", class_="dot kept") == 4
    assert difference_chart(no_samples()["classes"]) == ""


def test_the_heat_map_has_a_cell_per_class_and_layer() -> None:
    summary = make_summary()
    page = Page(heat_map(summary["classes"], 24, 23))
    weights = sum(len(row["layers"]) for row in summary["classes"])
    assert page.count("rect", class_="heat") == weights
    assert page.count("rect", class_="empty") == 9 * 25 - weights
    assert ("text", ".44") in page.words


def test_the_budget_chart_has_the_papers_points_where_the_model_is_the_papers() -> None:
    """Shares of the unpruned mean; LLaVA-1.5-7B alone has the published averages beside it."""
    summary = make_summary()
    means = holdout_means(summary["classes"])
    default, profile, unpruned = (means[name] or 0.0 for name in ("default", "profile", "unpruned"))
    assert compute_points(summary) == [("default", 48, default / unpruned), ("profile", 48, profile / unpruned)]
    assert "the paper" not in Page(compute_chart(summary)).text
    large = summary["model"] | {"visual_tokens": 576, "decoder_depth": 32}
    published = [point for point in compute_points(summary | {"model": large}) if point[0] == "paper"]
    assert [(nominal, share) for _, nominal, share in published] == list(PAPER.items())
    page = Page(compute_chart(summary | {"model": large}))
    assert page.count("path", class_="mark") == 2 + 3 + 3  # every point, and one beside every name
    assert "98.4" in page.text
    assert compute_chart(no_samples()) == ""
