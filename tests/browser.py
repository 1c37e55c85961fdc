"""A headless browser for pages that open from disk: what they log, what they ask the network for, how they lie."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser; None where none is installed."""

NO_BROWSER = "no Chromium on this machine: apt-get install -y --no-install-recommends chromium"

_MEASURE = """<script>addEventListener("load",()=>{
const seen=(e)=>{const b=e.getBoundingClientRect();return b.width>0.5||b.height>0.5};
document.querySelectorAll("details").forEach(d=>{d.open=true});
const charts=[...document.querySelectorAll("svg[role=img]")].map(s=>({
 id:(s.getAttribute("aria-labelledby")||"").split(" ")[0],width:s.getBoundingClientRect().width,
 marks:[...s.querySelectorAll("path,rect,circle,image,use")].filter(seen).length}));
const wide=[...document.querySelectorAll("body *")].filter(e=>!e.closest(".scroll")&&!e.closest(".skip")
 &&!e.closest(".hidden")&&e.getBoundingClientRect().right>innerWidth+1).map(e=>e.tagName+"."+e.className).slice(0,5);
const pictures=[...document.querySelectorAll("image")].length;
parent.postMessage(JSON.stringify({charts,wide,pictures,inner:innerWidth,page:document.documentElement.scrollWidth,
 colour:getComputedStyle(document.body).backgroundColor,ink:getComputedStyle(document.body).color}),"*")})</script>"""

_FRAME = """<!DOCTYPE html><body style="margin:0"><script>addEventListener("message",e=>{
const p=document.createElement("pre");p.id="found";p.textContent=e.data;document.body.append(p)})</script>
<iframe src="page.html" style="border:0;width:{width}px;height:2000px"></iframe>"""


def browse(folder: Path, page: Path, *arguments: str, dark: bool = False) -> subprocess.CompletedProcess[str]:
    """Open a page headlessly; ``folder`` takes the browser's own files."""
    assert CHROMIUM is not None
    return subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={folder / 'browser'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"),
            *arguments,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def console_lines(folder: Path, page: Path) -> list[str]:
    """What a page writes to the console, refusals by its own policy included."""
    told = browse(folder, page, "--enable-logging=stderr", "--dump-dom").stderr
    return [line for line in told.splitlines() if "CONSOLE" in line]


def requests(folder: Path, page: Path) -> set[str]:
    """Addresses that a page asks for while it is open, but data in it.

    The browser's own errands, which belong to no page, are told apart by their initiator.
    """
    log = folder / "net.json"
    browse(folder, page, f"--log-net-log={log}", "--dump-dom")
    text = log.read_text(encoding="utf-8").rstrip().rstrip(",")
    try:
        events = json.loads(text)["events"]
    except ValueError:  # the browser ended before it closed the list
        events = json.loads(text + "]}")["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    return {
        each["url"]
        for each in asked
        if each["initiator"] != "not an origin" and not each["url"].startswith(("data:", page.as_uri()))
    }


def layout(folder: Path, page: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """Measure a copy of a page in a frame of so many pixels, everything in it unfolded.

    Returns:
        ``charts`` (rows {id, width, marks}: the shapes that take up room), ``wide`` (elements outside of the window,
        first five), ``pictures``, ``inner`` and ``page`` (widths of window and content), ``colour`` and ``ink``.
    """
    room = folder / f"layout-{width}-{dark}"
    room.mkdir()
    text = page.read_text(encoding="utf-8")
    without, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', _MEASURE, text)
    assert count == 1  # the policy, which a measuring script could not run under
    (room / "page.html").write_text(without, encoding="utf-8")
    (room / "frame.html").write_text(_FRAME.replace("{width}", str(width)), encoding="utf-8")
    dom = browse(room, room / "frame.html", "--dump-dom", "--virtual-time-budget=20000", dark=dark).stdout
    match = re.search(r'<pre id="found">(.*?)</pre>', dom, flags=re.DOTALL)
    assert match, dom[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found
