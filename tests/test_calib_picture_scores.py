"""The picture of a router's scores: well-formed, whole, readable without colour, and deaf to what a title tries."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from test_calib_report import HOSTILE, Page

from claspkit.calib.picture_scores import draw_scores, write_picture
from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import INTENT_IDS
from claspkit.router.labels import Label
from claspkit.router.scoring import Rejection, Scores, rejection, score

SVG = "{http://www.w3.org/2000/svg}"


def made(pairs: list[tuple[str, str, float]], threshold: float = 0.5) -> tuple[Scores, Rejection]:
    """Scores of (true, given, confidence)."""
    truth = [true for true, _, _ in pairs]
    labels = [Label(given, None, sure, "s", "t") for _, given, sure in pairs]
    return score(truth, labels), rejection(truth, labels, threshold)


MIXED = made(
    [(intent, intent, 0.9) for intent in INTENT_IDS]
    + [("object", "text", 0.6), ("object", "text", 0.4), ("object", "scene", 0.3)]
)
CASES = {
    "mixed": MIXED,
    "one prompt": made([("object", "object", 1.0)]),
    "all wrong": made([("object", "text", 0.2 + number / 5000) for number in range(1200)]),
    "all rejected": made([("object", "object", 0.1)], 1.0),
    "no threshold": made([("object", "text", 0.0), ("scene", "scene", 1.0)], 0.0),
}


def texts(svg: str) -> list[str]:
    """Every text of a picture."""
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", CASES)
def test_every_picture_is_well_formed_and_inside_its_frame(name: str) -> None:
    """Title, description, no address but its own name space, no number that is none, no point outside; small."""
    svg = draw_scores(*CASES[name], HOSTILE.replace("\ud800", ""))
    root = ET.fromstring(svg)
    assert [root.find(f"{SVG}{tag}") is not None for tag in ("title", "desc")] == [True, True]
    assert svg.count("://") == 1
    assert "nan" not in svg
    assert len(svg) < 60_000
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for node in root.iter():
        for key, limit in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(node.attrib.get(key, 0)) <= limit
    for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", svg):
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= height


def test_the_matrix_says_counts_and_shares() -> None:
    """Every class twice, each cell its count and its share of the row, and the confusions in the description."""
    svg = draw_scores(*MIXED, "student on x", "agreement")
    found = texts(svg)
    assert all(found.count(intent) == 2 for intent in INTENT_IDS)
    for count, share in (("1", "25 %"), ("2", "50 %"), ("1", "100 %")):
        assert share in found[found.index(count) :]
    assert found.count("100 %") == 8 + 2  # eight rows without an error, and both axes end there
    assert "2 of 4 object as text; 1 of 4 object as scene" in svg
    assert "agreement 75.0 percent" in svg
    assert any("its own threshold 0.500 accepts 83.3 %, agreement 90.0 % there" in text for text in found)


def test_files_hold_the_picture_and_a_page_its_numbers(tmp_path: Path) -> None:
    """.svg and .html, whatever the title; another ending or folder is refused before anything is there."""
    write_picture(tmp_path / "a.svg", *MIXED, "t")
    assert (tmp_path / "a.svg").read_text() == draw_scores(*MIXED, "t")
    write_picture(tmp_path / "a.html", *MIXED, HOSTILE)
    text = (tmp_path / "a.html").read_text()
    page = Page(text)
    assert page.count("table") == 2
    assert page.count("script") == page.count("img") == 0
    for path, match in ((tmp_path / "a.png", r"\.svg, \.html"), (tmp_path / "no" / "a.svg", "cannot be written")):
        with pytest.raises(UsageError, match=match):
            write_picture(path, *MIXED, "t")
    assert len(list(tmp_path.iterdir())) == 2
