"""The demo in a real browser, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM
from demo_server import EXAMPLE, running_demo
from house import ROOT
from live_browser import Browser
from PIL import Image

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

EVIL = "<img src=x onerror=\"document.title='hit'\"> How many crosses are there?"


def answers(browser: Browser) -> int:
    """Answers on the page."""
    return int(browser.run("document.querySelectorAll('article').length"))


def ask(browser: Browser, **fields: str) -> dict[str, Any]:
    """Fill in fields, press the button, wait; returns what the newest answer shows."""
    before = answers(browser)
    for name, value in fields.items():
        browser.run(f"$('{name}').value = {json.dumps(value)}; $('{name}').dispatchEvent(new Event('change'))")
    browser.run("$('ask').click()")
    browser.wait_for("!$('ask').disabled")
    assert answers(browser) == before + 1, browser.run("$('status').textContent")
    shown = browser.run(
        "(() => { const card = document.querySelector('article'); return JSON.stringify({"
        "title: card.querySelector('h2').textContent,"
        "answers: [...card.querySelectorAll('.answers b')].map((node) => node.textContent),"
        "facts: [...card.querySelectorAll('dd')].map((node) => node.textContent),"
        "captions: [...card.querySelectorAll('figcaption')].map((node) => node.textContent),"
        "drawn: [...card.querySelectorAll('figure img')].every((image) => image.alt && image.naturalWidth >= 320)})})()"
    )
    found: dict[str, Any] = json.loads(shown)
    return found


@pytest.mark.long
def test_a_person_can_use_it(tmp_path: Path) -> None:
    """Pick, ask, switch class and budget, upload, in light and dark, from 360 pixels up; no complaint."""
    Image.open(ROOT / "docs" / "images" / "example.png").save(tmp_path / "mine.jpg")
    with running_demo(profiles=(EXAMPLE, EXAMPLE)) as address, Browser(tmp_path / "browser") as browser:
        browser.look(1280, 900, "light")
        browser.open(address)
        pictures = "[...document.querySelectorAll('.examples img')]"
        browser.wait_for(f"{pictures}.length === 6 && {pictures}.every((image) => image.naturalWidth > 0)")

        first = ask(browser)
        assert first["drawn"] is True
        assert len(first["answers"]) == 2
        assert first["facts"][1] == "144 \u2192 75 \u2192 50 \u2192 30"
        assert [caption.split(":")[0] for caption in first["captions"]] == [f"After layer {n}" for n in (1, 2, 4)]

        browser.run("$('compare').click()")
        second = ask(browser, profile="1", intent="scene")
        assert second["facts"][0] == "scene (chosen by you)"
        assert len(second["answers"]) == 1

        browser.choose_file("#file", tmp_path / "mine.jpg")
        browser.wait_for("$('status').textContent === 'Your picture is chosen.' && $('preview').naturalWidth > 0")
        assert browser.run("chosen()") is None
        third = ask(browser, prompt=EVIL, intent="")
        assert third["title"] == EVIL
        assert third["facts"][0].startswith("counting (rule:")

        (tmp_path / "bad.png").write_bytes(b"no picture")
        browser.choose_file("#file", tmp_path / "bad.png")
        browser.wait_for("$('status').className === 'bad'")
        assert "not a picture" in browser.run("$('status').textContent")
        # The browser itself reports the answer 400 to the bad picture, and nothing else.
        assert [note for note in browser.complaints if "status of 400" not in note] == []
        assert browser.run("document.title") == "claspkit demo: mini"

        papers = set()
        for width, scheme in ((1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")):
            browser.look(width, 800, scheme)
            assert browser.run("document.documentElement.scrollWidth") <= width
            papers.add(browser.run("getComputedStyle(document.body).backgroundColor"))
            browser.screenshot(tmp_path / f"{width}-{scheme}.png")
        assert len(papers) == 2
        browser.run("document.querySelectorAll('.examples input')[2].focus()")
        assert browser.run("getComputedStyle(document.querySelectorAll('.examples img')[2]).outlineStyle") == "solid"
