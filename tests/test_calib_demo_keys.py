"""The demo with the keyboard alone, in a real browser; and what it is like to read it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, NO_BROWSER
from demo_server import EXAMPLE, running_demo
from live_browser import Browser
from page_probe import nameless, number_stops, pale_words, walk
from PIL import Image

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)

QUESTION = "How many crosses are there?"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A demo with two budgets."""
    with running_demo(profiles=(EXAMPLE, EXAMPLE)) as started:
        yield started


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests."""
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def opened(browser: Browser, address: str, width: int = 1280, scheme: str = "light") -> Browser:
    """The page afresh, with its pictures."""
    browser.look(width, 900, scheme)
    browser.open(address)
    browser.wait_for("[...document.querySelectorAll('.examples img')].every((image) => image.naturalWidth > 0)")
    return browser


def tab_to(browser: Browser, name: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(40):
        if browser.run("document.activeElement.id") == name:
            return
        browser.press("Tab")
    raise AssertionError(f"Tab never comes to {name}")


def answered(browser: Browser, count: int) -> None:
    """Wait until there are so many answers."""
    browser.wait_for(f"document.querySelectorAll('article').length === {count} && !$('ask').disabled")


def newest(browser: Browser, selector: str) -> str:
    """A text of the newest answer."""
    return str(browser.run(f"document.querySelector('article').querySelector({selector!r}).textContent"))


def test_everything_can_be_done_with_keys(browser: Browser, address: str) -> None:
    """Choose a picture, type a question, Enter; then another budget and another class, and the button by Space."""
    opened(browser, address)
    browser.press("Tab")
    assert browser.run("document.activeElement.name") == "picture"
    browser.press("ArrowRight", 2)
    assert browser.run("chosen()") == "example:2"
    suggested = browser.run("$('prompt').value")

    tab_to(browser, "prompt")
    browser.press("End")
    browser.press("Enter", shift=True)
    assert browser.run("$('prompt').value") == suggested + "\n"
    assert browser.run("document.querySelectorAll('article').length") == 0
    browser.press("Backspace", len(suggested) + 1)
    browser.write(QUESTION)
    browser.press("Enter")
    answered(browser, 1)
    assert newest(browser, "h2") == QUESTION
    assert browser.run("document.activeElement.id") == "prompt"
    assert browser.run("$('prompt').value") == QUESTION

    tab_to(browser, "profile")
    browser.press("ArrowDown")
    tab_to(browser, "intent")
    browser.write("sc")
    tab_to(browser, "compare")
    browser.press(" ")
    tab_to(browser, "ask")
    browser.press(" ")
    answered(browser, 2)
    assert browser.run("$('profile').value") == "1"
    assert newest(browser, "dd") == "scene (chosen by you)"
    assert browser.run("document.querySelector('article').querySelectorAll('.answers b').length") == 1
    assert browser.run("document.activeElement.id") == "ask"  # and not lost with the button's disabling
    browser.press("Enter")
    answered(browser, 3)


def test_a_question_is_asked_once_however_often_enter_is_pressed(browser: Browser, address: str) -> None:
    opened(browser, address)
    tab_to(browser, "prompt")
    browser.press("Enter", 3)
    answered(browser, 1)
    assert browser.run("$('status').textContent") == "Answered."


@pytest.mark.parametrize("width", [360, 1280])
def test_tab_comes_to_every_control_in_reading_order(width: int, browser: Browser, address: str) -> None:
    """With an outline, in the window; of the pictures the chosen one has the stop."""
    opened(browser, address, width)
    expected = number_stops(browser)
    stops = walk(browser)
    assert [stop.number for stop in stops] == list(range(expected))
    assert expected == 7  # pictures, file, question, budget, class, comparison, button
    assert [stop.name for stop in stops if not stop.outlined or not stop.inside] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_needs_nobody_else(
    scheme: str, browser: Browser, address: str, tmp_path: Path
) -> None:
    """Answers and a refusal too: contrast, names of pictures, no sideways scrolling at 360 pixels, own origin only."""
    before, met = len(browser.asked), len(browser.complaints)
    opened(browser, address, 360, scheme)
    tab_to(browser, "prompt")
    browser.press("Enter")
    answered(browser, 1)
    assert pale_words(browser) == []
    assert nameless(browser) == []
    assert browser.run("document.querySelectorAll('article figure img').length") == 3
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.complaints[met:] == []
    picture = io.BytesIO()
    Image.new("RGB", (40, 30)).save(picture, "GIF")
    (tmp_path / "bad.png").write_bytes(picture.getvalue()[:20])
    browser.choose_file("#file", tmp_path / "bad.png")
    browser.wait_for("$('status').className === 'bad'")
    assert pale_words(browser) == []
    assert all(each.startswith(address) for each in browser.asked[before:])
    assert len(browser.asked) > before + 7
