"""The report of a run with two budgets under real keys in a real browser, on a phone, on paper, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, NO_BROWSER
from live_browser import Browser
from page_probe import focused, nameless, number_stops, pale_words, walk
from pipeline_runs import calibrate

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)

OPEN_ALL = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report."""
    folder = tmp_path_factory.mktemp("keys") / "run"
    calibrate(folder, budget="1/9,1/3")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests."""
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def opened(browser: Browser, page: Path, width: int = 1280, scheme: str = "light") -> Browser:
    """The page afresh."""
    browser.look(width, 900, scheme)
    browser.open(page.as_uri())
    return browser


@pytest.mark.parametrize("unfolded", [False, pytest.param(True, marks=pytest.mark.long)])
def test_tab_comes_to_everything_in_reading_order(unfolded: bool, browser: Browser, page: Path) -> None:
    """Each once, in the window, with an outline around it; also with everything unfolded."""
    opened(browser, page)
    if unfolded:
        browser.run(OPEN_ALL)
    expected = number_stops(browser)
    stops = walk(browser)
    assert [stop.number for stop in stops] == list(range(expected))
    assert expected > (60 if unfolded else 40)
    assert [stop.name for stop in stops if not stop.outlined or not stop.inside] == []


@pytest.mark.parametrize("key", ["Enter", " "])
def test_a_key_opens_and_closes_a_budget(key: str, browser: Browser, page: Path) -> None:
    """Its summary by Tab; what is in it can be reached then, and not before."""
    opened(browser, page)
    before = number_stops(browser)
    for _ in range(before):
        browser.press("Tab")
        if browser.run("document.activeElement.parentElement.className") == "budget":
            break
    state = "document.querySelector('details.budget').open"
    assert browser.run(state) is False
    browser.press(key)
    assert browser.run(state) is True
    assert number_stops(browser) > before + 20
    browser.press("Tab")
    assert browser.run("document.querySelector('details.budget').contains(document.activeElement)")
    browser.press("Tab", shift=True)
    browser.press(key)
    assert browser.run(state) is False


def test_the_skip_link_leads_past_the_links(browser: Browser, page: Path) -> None:
    """The first Tab shows it; Enter goes to the verdict, and the next Tab to what follows that."""
    opened(browser, page)
    assert browser.run("document.querySelector('.skip').getBoundingClientRect().right") < 0
    browser.press("Tab")
    here = focused(browser)
    assert here is not None
    assert here.inside
    assert "Skip" in here.name
    browser.press("Enter")
    browser.wait_for("document.activeElement.id === 'main'")
    browser.press("Tab")
    assert browser.run("document.querySelector('main').contains(document.activeElement)")


def test_a_link_leads_to_its_section(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.run("document.querySelector('nav a[href=\"#further\"]').focus()")
    browser.press("Enter")
    browser.wait_for("Math.abs(document.getElementById('further').getBoundingClientRect().top) < innerHeight")
    browser.press("Tab")
    assert browser.run("document.getElementById('further').contains(document.activeElement)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(scheme: str, browser: Browser, page: Path) -> None:
    """Every kind of text, in charts too, everything unfolded."""
    opened(browser, page, scheme=scheme).run(OPEN_ALL)
    assert pale_words(browser) == []


def test_the_measure_of_contrast_finds_pale_words(browser: Browser, tmp_path: Path) -> None:
    """Grey on white, white on a pale shape of a chart, and ink on dark; what is black on white is not told."""
    shapes = '<rect width="90" height="30" fill="rgb(0,0,90)" fill-opacity=".3"/>'
    chart = f'<svg width="90" height="30">{shapes}<text x="9" y="20" fill="#fff">pale</text></svg>'
    dark = '<div style="background:#222"><p style="color:#333">dim</p></div>'
    many = "".join(f'<p style="color:rgb(0,0,{number})">fine</p>' for number in range(6))
    page = tmp_path / "page.html"
    page.write_text(f'<!DOCTYPE html><p style="color:#999">grey</p>{dark}{many}{chart}')
    found = pale_words(opened(browser, page))
    assert [row.rpartition(": ")[2] for row in found] == ["grey", "dim", "pale"]
    assert found[0].startswith("2.85 ")


def test_every_chart_and_picture_has_a_name_and_marks(browser: Browser, page: Path, tmp_path: Path) -> None:
    """And what has none is found."""
    opened(browser, page).run(OPEN_ALL)
    assert nameless(browser) == []
    planted = tmp_path / "page.html"
    chart, picture = '<svg role="img"><title>x</title><path d="M0 0h9"/></svg>', '<img src="data:," width="9">'
    planted.write_text(f"<!DOCTYPE html>{chart}{picture}")
    assert len(nameless(opened(browser, planted))) == 2


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_itself_never_scrolls_sideways(width: int, browser: Browser, page: Path) -> None:
    """Wide tables and charts do, in regions that the keyboard comes to; charts' letters are no smaller than 9 px."""
    opened(browser, page, width).run(OPEN_ALL)
    assert browser.run("document.documentElement.scrollWidth") <= width
    loose = (
        "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1 && e.tabIndex !== 0)"
    )
    assert browser.run(f"{loose}.length") == 0
    small = (
        "Math.min(...[...document.querySelectorAll('svg[role=img] text')].map((e) => parseFloat(getComputedStyle(e)"
        ".fontSize) * e.getScreenCTM().a))"
    )
    assert browser.run(small) >= 9


def test_on_paper_the_further_budgets_are_unfolded(browser: Browser, page: Path) -> None:
    """Their charts take up room there; on the screen they do so when they are opened."""
    opened(browser, page)
    shown = "document.querySelector('.budget .grid-of-charts svg').checkVisibility({contentVisibilityAuto: true})"
    high = "document.querySelector('.budget').getBoundingClientRect().height"
    low = browser.run(high)
    browser.on_paper(True)
    assert browser.run(high) > low + 2000
    assert browser.run(shown) is True
    browser.on_paper(False)
    assert browser.run(high) == low


def test_nothing_is_asked_for_and_nothing_goes_wrong(browser: Browser, page: Path) -> None:
    """The page alone, once; no complaint, whatever is unfolded."""
    before, met = len(browser.asked), len(browser.complaints)
    opened(browser, page).run(OPEN_ALL)
    walk(browser)
    assert set(browser.asked[before:]) == {page.as_uri()}
    assert browser.complaints[met:] == []
