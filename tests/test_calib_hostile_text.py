"""HTML, Markdown and terminal codes in names: what leaves a run has the same form as with harmless ones."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from huggingface_hub import ModelCard
from profile_example import edited, profile_fields
from test_calib_report import HOSTILE, Page, spoil
from test_calib_table import make_summary

from claspkit.calib.card import profile_card
from claspkit.calib.compare import compare_profiles, render_comparison
from claspkit.calib.report import render_report
from claspkit.profiles.profile import Profile, seal

NAME = "<img src=x onerror=\"window.__pwned=1\">'--- a: b # |x| [l](javascript:1) ![i](x) ` ``` {{ x }} \u202e"
PLACES: tuple[tuple[str | int, ...], ...] = (
    ("model", "id"),
    ("model", "family"),
    ("model", "revision"),
    ("router", "rules_version"),
    ("budget", "schedule"),
    ("classes", 1, "prototype"),
    ("classes", 1, "reason"),
    ("calibration", "datasets", 0, "name"),
    ("calibration", "datasets", 0, "revision"),
    ("calibration", "datasets", 0, "split"),
)
"""Every free text of a profile that is a value."""


def named(text: str) -> Profile:
    """A profile with ``text`` in every such place, and as a name in its objects."""
    fields: dict[str, Any] = profile_fields()
    for place in PLACES:
        fields = edited(fields, place, text)
    fields["calibration"] |= {"label_sources": {text: 1}, "environment": {text: text}}
    return seal(fields | {"extensions": {text: text}})


def form(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Elements of a page in their order, each with the names of its attributes."""
    return [(tag, tuple(attributes)) for tag, attributes in Page(text).tags]


def elements(markdown: str) -> list[str]:
    """HTML that is left in Markdown once what is escaped or inside code is taken out."""
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)

    plain = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    Tags().feed(re.sub(r"\\.", "", plain))
    return found


def test_the_report_of_hostile_names_has_the_elements_of_a_harmless_one() -> None:
    """The same tags and attributes in the same order: every string is text, and nothing else moves."""
    summary = make_summary()
    assert form(render_report(spoil(summary))) == form(render_report(harmless(summary)))


def harmless(value: Any) -> Any:
    """What :func:`spoil` changes, with a plain word in the place of the hostile one."""
    spoilt = spoil(value)

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [plain(inner) for inner in item]
        return "plain" if item == HOSTILE else item

    return plain(spoilt)


def test_the_card_of_hostile_names_keeps_its_front_matter_and_holds_no_element() -> None:
    """YAML with the same keys, the names as values in it; below it, everything from a profile is text."""
    fronts = []
    for text in ("plain", NAME):
        card = profile_card(named(text))
        read: Any = ModelCard(card)
        body = read.text
        fronts.append(read.data.to_dict())
        assert body.lstrip().startswith("# Visual-token pruning profile for ")
        assert elements(body) == []
        assert "](javascript" not in re.sub(r"\\.", "", body)
        assert "\x1b" not in card
    assert fronts[0].keys() == fronts[1].keys()
    assert len(fronts[1]["model-index"]) == len(fronts[0]["model-index"]) == 1
    assert " ".join(NAME.split()) in " ".join(fronts[1]["model-index"][0]["name"].split())


def test_the_difference_of_hostile_profiles_is_the_same_markdown() -> None:
    """As many lines and columns as for plain names, and no element."""
    plain, evil = (render_comparison(named("plain"), named(text)) for text in ("other", NAME))
    assert elements(evil) == elements(plain) == []
    assert evil.count("\n") == plain.count("\n")
    columns = [[line.replace("\\|", "").count("|") for line in text.splitlines()] for text in (plain, evil)]
    assert columns[0] == columns[1]
    assert compare_profiles(named(NAME), named(NAME))["same"] is True


def test_what_is_planted_is_found() -> None:
    """An element in Markdown and in a page, and not one that is escaped or code."""
    assert elements("a <b>x</b>\n") == ["b"]
    assert elements("a \\<b\\> ```\n<i>\n```\n") == []
    page = render_report(make_summary())
    assert form(page.replace("</body>", "<img src=x></body>")) != form(page)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_control_characters_never_get_into_a_profile(place: tuple[str | int, ...]) -> None:
    """So that a terminal that shows one is not moved by it."""
    with pytest.raises(Exception, match="String should match pattern"):
        seal(edited(profile_fields(), place, "a\x1b[2J"))
