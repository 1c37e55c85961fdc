"""What a page in a browser is like for who reads it: order of keys, contrast of its words, names of its pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from live_browser import Browser

CONTRAST = 4.5
"""Of text against what is behind it, at least (WCAG 2, level AA)."""

_STOPS = """(() => {
const shown = (e) => e.checkVisibility({visibilityProperty: true}) && !e.disabled;
const last = {};
const stops = [...document.querySelectorAll(
  "a[href],summary,button,input,select,textarea,[tabindex='0']")].filter(shown).filter((e) => {
    if (e.type !== "radio") return true;
    const group = [...document.querySelectorAll(`input[name=${e.name}]`)];
    return group.some((one) => one.checked) ? e.checked : e === group[0];
  });
stops.forEach((e, number) => { e.dataset.stop = number; });
return stops.length;
})()"""

_HERE = """(() => {
const e = document.activeElement;
if (e === null || e === document.body) return JSON.stringify(null);
const beside = e.nextElementSibling;
const seen = e.type === "radio" && beside ? beside : e;
const box = seen.getBoundingClientRect(), style = getComputedStyle(seen);
return JSON.stringify({
  stop: e.dataset.stop === undefined ? null : Number(e.dataset.stop),
  name: `${e.tagName}#${e.id} ${e.textContent.trim().slice(0, 40)}`,
  outline: [style.outlineStyle, parseFloat(style.outlineWidth), style.outlineColor],
  page: getComputedStyle(document.body).backgroundColor,
  inside: Math.min(box.width, box.height, box.right, box.bottom, innerWidth - box.left, innerHeight - box.top) > 0,
});
})()"""

_WORDS = """(() => {
const parse = (text) => {
  const found = text.match(/[\\d.]+/g).map(Number);
  return [found[0], found[1], found[2], found.length > 3 ? found[3] : 1];
};
const over = (top, under) => under.map((c, i) => i === 3 ? 1 : top[i] * top[3] + c * (1 - top[3]));
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const behind = (e) => {
  const layers = [];
  for (let one = e; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
  return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255, 1]);
};
const drawn = (e, under) => {  // the shapes of its chart that lie under the middle of a text
  const svg = e.closest("svg"), box = e.getBoundingClientRect();
  const x = box.left + box.width / 2, y = box.top + box.height / 2;
  for (const shape of svg.querySelectorAll("rect,circle")) {
    if (shape.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_PRECEDING) continue;
    const area = shape.getBoundingClientRect(), style = getComputedStyle(shape);
    if (style.fill === "none" || x < area.left || x > area.right || y < area.top || y > area.bottom) continue;
    const fill = parse(style.fill);
    fill[3] *= Number(style.fillOpacity) * Number(style.opacity);
    under = over(fill, under);
  }
  return under;
};
const found = new Map();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const e = node.parentElement;
  if (!node.data.trim() || e.closest("script,style,title,desc,.hidden,option") || !e.checkVisibility()) continue;
  const style = getComputedStyle(e), inChart = e.closest("svg") !== null;
  let under = behind(inChart ? e.closest("svg").parentElement : e);
  if (inChart) under = drawn(e, under);
  const ink = over(parse(inChart ? style.fill : style.color), under);
  const [a, b] = [light(ink), light(under)].sort((p, q) => q - p);
  const ratio = (a + 0.05) / (b + 0.05), key = `${e.tagName}.${e.getAttribute("class") || ""} ${ink} on ${under}`;
  if (!found.has(key)) found.set(key, {ratio, key, text: node.data.trim().slice(0, 40)});
}
return JSON.stringify([...found.values()]);
})()"""

_NAMELESS = """(() => {
const words = (id) => document.getElementById(id)?.textContent.trim();
const bad = [];
for (const svg of document.querySelectorAll("svg")) {
  if (svg.getAttribute("aria-hidden") === "true") continue;
  const ids = (svg.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean);
  const named = ids.length > 0 && ids.every(words) && svg.querySelector("title")?.textContent.trim();
  const marks = [...svg.querySelectorAll("path,rect,circle,line,polyline,image,use")];
  if (svg.getAttribute("role") !== "img" || !named || marks.length === 0) bad.push(svg.outerHTML.slice(0, 120));
}
for (const image of document.querySelectorAll("img")) {
  if (image.checkVisibility() && !(image.alt || "").trim()) bad.push(image.outerHTML.slice(0, 120));
}
return JSON.stringify(bad);
})()"""


@dataclass(frozen=True)
class Stop:
    """Where the focus is after a key.

    Attributes:
        number: of the element among those that the focus should come to; None for another one.
        name: what it is.
        outlined: whether something is drawn around it in another colour than the page's.
        inside: whether it is in the window.
    """

    number: int | None
    name: str
    outlined: bool
    inside: bool


def number_stops(browser: Browser) -> int:
    """Number all links, summaries and controls that are shown, in reading order; returns how many there are."""
    return int(browser.run(_STOPS))


def focused(browser: Browser) -> Stop | None:
    """What has the focus; None for nothing."""
    found: dict[str, Any] | None = json.loads(browser.run(_HERE))
    if found is None:
        return None
    style, width, colour = found["outline"]
    outlined = style not in ("none", "hidden") and width > 0 and colour != found["page"]
    return Stop(found["stop"], found["name"], outlined, found["inside"])


def walk(browser: Browser) -> list[Stop]:
    """Press Tab from the start of the page until the focus has left it."""
    stops: list[Stop] = []
    for _ in range(number_stops(browser) + 1):
        browser.press("Tab")
        here = focused(browser)
        if here is None or (stops and here.number == 0):
            break
        stops.append(here)
    return stops


def pale_words(browser: Browser) -> list[str]:
    """Kinds of text, one of each, whose contrast is too low; what is not shown is left out."""
    rows: list[dict[str, Any]] = json.loads(browser.run(_WORDS))
    assert len(rows) > 5
    return [f"{row['ratio']:.2f} {row['key']}: {row['text']}" for row in rows if row["ratio"] < CONTRAST]


def nameless(browser: Browser) -> list[str]:
    """Charts and pictures without words for who cannot see them, and charts without a mark."""
    found: list[str] = json.loads(browser.run(_NAMELESS))
    return found
