"""Which visual tokens of a picture every pruning stage kept, drawn on the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from claspkit.profiles.budget import Stage
from claspkit.runtime.token_map import TokenMap, TokenView

MIN_PANEL = 320
"""Width of a panel in pixels, at least."""

_MIN_PATCH = 16  # pixels a patch's shorter side gets at least: outlines of neighbours must stay apart
_MAX_PANEL = 4096  # pixels along a panel's longer side at most
_MARKED = 6  # pixels a patch's sides need for frame and corners; sides of very long pictures are stretched to it
_GAP, _MARGIN, _LINE = 16, 12, 20
_TITLE, _SMALL = 16, 14
_PAPER, _INK, _GREY = (255, 255, 255), (28, 28, 30), (128, 128, 128)
_BLUE, _RED = (0, 90, 220), (214, 40, 30)
_DIMMED = 0.72  # share of grey in a dropped patch
_TINT = {"pivot": 0.22, "completion": 0.12}  # share of the outline's colour inside a kept patch

Pixels = tuple[int, int, int, int]


@dataclass(frozen=True)
class StageView:
    """What one stage kept of one picture.

    Attributes:
        after_layer: the decoder layer after which the rest was dropped.
        kept: numbers of the visual tokens kept, as they stood in the prompt, 0 <= number < tokens.
        pivots: those of ``kept`` chosen by attention; the others complete them by dissimilarity.
    """

    after_layer: int
    kept: tuple[int, ...]
    pivots: tuple[int, ...]


def draw_overlay(picture: Image.Image, tokens: TokenMap, stages: Sequence[StageView]) -> Image.Image:
    """Draw one captioned panel per stage, side by side, over a legend.

    Args:
        picture: the one that the map is of, any mode: as it was given, or, if the map is of a cropped one, as the model
            sees it.
        tokens: where its visual tokens lie.
        stages: what to draw, in order.

    Returns:
        an RGB picture. A panel shows the picture once for every view, one below the other, at least :data:`MIN_PANEL`
        pixels wide and in its proportions, unless it is so long that patches would vanish. Dropped patches are grey and
        faint, pivots tinted with a solid blue frame, completion red with corners only; tokens without a place are told.

    Raises:
        ValueError: no stage, no token or picture, a token that the map does not have, a pivot that was not kept.
    """
    panels = draw_panels(picture, tokens, stages)
    return _compose(panels, [stage_caption(stage, tokens.count) for stage in stages])


def draw_panels(picture: Image.Image, tokens: TokenMap, stages: Sequence[StageView]) -> list[Image.Image]:
    """The panels of :func:`draw_overlay` one by one, without captions and legend; same arguments and errors."""
    _check(picture, tokens, stages)
    size = _panel_size(picture.size, tokens.views)
    large = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    faint = Image.blend(large.convert("L").convert("RGB"), Image.new("RGB", size, _GREY), _DIMMED)
    panels = []
    for stage in stages:
        drawn = [_panel(large, faint, view, stage) for view in tokens.views]
        panels.append(drawn[0] if tokens.plain else _stacked(drawn, view_captions(tokens, stage)))
    return panels


def _check(picture: Image.Image, tokens: TokenMap, stages: Sequence[StageView]) -> None:
    if not stages:
        raise ValueError("draw_overlay needs at least one stage, got none")
    if min(tokens.count, picture.width, picture.height) < 1:
        raise ValueError(f"draw_overlay: {tokens.count} tokens on a picture of {picture.size} have no patch")
    for stage in stages:
        outside = [index for index in stage.kept if not 0 <= index < tokens.count]
        if outside:
            raise ValueError(
                f"draw_overlay: stage after layer {stage.after_layer} keeps patch {outside[0]}; "
                f"the picture has 0..{tokens.count - 1}"
            )
        stray = sorted(set(stage.pivots) - set(stage.kept))
        if stray:
            raise ValueError(
                f"draw_overlay: stage after layer {stage.after_layer} has pivot {stray[0]} among the dropped"
            )


def _panel_size(picture: tuple[int, int], views: Sequence[TokenView]) -> tuple[int, int]:
    """Width and height of the picture on a panel, the same for all views."""
    width, height = picture
    across = max(view.columns / (view.window[2] - view.window[0]) for view in views)  # patches, were it full of them
    down = max(view.rows / (view.window[3] - view.window[1]) for view in views)
    scale = max(1.0, MIN_PANEL / width, _MIN_PATCH * across / width, _MIN_PATCH * down / height)
    scale = min(scale, _MAX_PANEL / max(picture))
    return max(round(width * scale), ceil(_MARKED * across)), max(round(height * scale), ceil(_MARKED * down))


def _panel(large: Image.Image, faint: Image.Image, view: TokenView, stage: StageView) -> Image.Image:
    panel = faint.copy()
    pivots = set(stage.pivots)
    for cell in view.cells(stage.kept):
        left, top, right, bottom = (round(edge) for edge in view.box(cell, *large.size))
        box = (left, top, right, bottom)
        if left == right or top == bottom:  # what padding leaves of it is less than a pixel
            continue
        panel.paste(large.crop(box), box[:2])
        _mark(panel, box, "pivot" if view.tokens[cell] in pivots else "completion")
    return panel


def _mark(image: Image.Image, box: Pixels, kind: str) -> None:
    """Tint a patch and frame it: solid for a pivot, corners alone for completion, so that hue is not needed."""
    left, top, right, bottom = box
    colour = _BLUE if kind == "pivot" else _RED
    inside = image.crop(box)
    image.paste(Image.blend(inside, Image.new("RGB", inside.size, colour), _TINT[kind]), box[:2])
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=_PAPER)  # frames show on any picture
    if min(right - left, bottom - top) < _MARKED:  # the rest of a patch that lies mostly in padding
        return
    outer = (left + 1, top + 1, right - 2, bottom - 2)
    if kind == "pivot":
        draw.rectangle(outer, outline=colour, width=2)
        return
    reach = max(3, (right - left) // 4)
    for x, step in ((outer[0], 1), (outer[2], -1)):
        for y, down in ((outer[1], 1), (outer[3], -1)):
            for shift in (0, 1):  # two pixels thick, growing inwards
                draw.line((x, y + down * shift, x + step * reach, y + down * shift), fill=colour)
                draw.line((x + step * shift, y, x + step * shift, y + down * reach), fill=colour)


def _stacked(panels: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Panels of one size below each other, each under its caption; captions that are left over come in the end."""
    font = ImageFont.load_default(_SMALL)
    width = max(panels[0].width, *(_width(caption, font) for caption in captions))
    height = len(panels) * panels[0].height + len(captions) * (_LINE + 4)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw, top = ImageDraw.Draw(sheet), 0
    for number, caption in enumerate(captions):
        draw.text((0, top + 2), caption, fill=_INK, font=font)
        top += _LINE
        if number < len(panels):
            sheet.paste(panels[number], (0, top))
            top += panels[number].height + 4
    return sheet


def view_captions(tokens: TokenMap, stage: StageView) -> list[str]:
    """A line about each view of a picture, then one about each kind of tokens without a place; none of a plain map."""
    if tokens.plain:
        return []
    kept = set(stage.kept)
    groups = [*((view.name, view.tokens) for view in tokens.views), *tokens.placeless.items()]
    return [f"{name}: {len(kept & set(group))} of {len(group)} kept" for name, group in groups]


def stage_caption(stage: StageView, count: int) -> tuple[str, str]:
    """Two lines about what a stage kept of so many tokens: how many and where, and of which kind."""
    kept, pivots = len(set(stage.kept)), len(set(stage.pivots))
    place = Stage(stage.after_layer, max(kept, 1)).place
    return (
        f"{place[0].upper()}{place[1:]}: {kept} of {count} tokens",
        f"{pivots} attention pivots, {kept - pivots} completion",
    )


def _compose(panels: Sequence[Image.Image], captions: Sequence[tuple[str, str]]) -> Image.Image:
    """Captions over panels over legend."""
    title, small = ImageFont.load_default(_TITLE), ImageFont.load_default(_SMALL)
    column = max(panels[0].width, *(_width(line, title) for caption in captions for line in caption))
    head = _MARGIN + 2 * _LINE + 6
    legend_top = head + panels[0].height + _MARGIN
    width = 2 * _MARGIN + len(panels) * column + (len(panels) - 1) * _GAP
    entries = _flow(small, width - 2 * _MARGIN)
    height = legend_top + (1 + max(line for _, line, _, _ in entries)) * (_LINE + 4) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (panel, (first, second)) in enumerate(zip(panels, captions, strict=True)):
        left = _MARGIN + number * (column + _GAP)
        draw.text((left, _MARGIN), first, fill=_INK, font=title)
        draw.text((left, _MARGIN + _LINE), second, fill=_INK, font=small)
        sheet.paste(panel, (left, head))
    for left, line, kind, words in entries:
        top = legend_top + line * (_LINE + 4)
        _swatch(sheet, (_MARGIN + left, top, _MARGIN + left + _LINE, top + _LINE), kind)
        draw.text((_MARGIN + left + _LINE + 6, top + 2), words, fill=_INK, font=small)
    return sheet


def _flow(font: Any, width: int) -> list[tuple[int, int, str, str]]:
    """Place the legend's entries: (left, line, kind, words), on a new line where the width is used up."""
    placed, left, line = [], 0, 0
    for kind, words in (
        ("pivot", "kept: attention pivot"),
        ("completion", "kept: completion"),
        ("dropped", "dropped"),
    ):
        needed = _LINE + 6 + _width(words, font)
        if left and left + needed > width:
            left, line = 0, line + 1
        placed.append((left, line, kind, words))
        left += needed + 2 * _GAP
    return placed


def _swatch(sheet: Image.Image, box: Pixels, kind: str) -> None:
    ground = (150, 150, 150) if kind == "dropped" else (225, 225, 225)
    sheet.paste(Image.new("RGB", (box[2] - box[0], box[3] - box[1]), ground), box[:2])
    if kind != "dropped":
        _mark(sheet, box, kind)


def _width(text: str, font: Any) -> int:
    return int(font.getlength(text)) + 1
