"""Where visual tokens lie: what is painted on a picture reaches those tokens whose box it meets, and no other.

The oracle needs no trained weights. Every block of the vision encoder hands on what it takes in, so that a token holds
the pixels of its own patches alone, and pictures are scaled by taking the nearest pixel, so that none is mixed with its
neighbours; the rest is the image processor's and the stock model's own code, up to the decoder's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import ceil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_llava_next
import torch
from family_folders import load_tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig, GotOcr2ImageProcessorPil

from claspkit.profiles.errors import MismatchError
from claspkit.runtime.decoder_inputs import read_decoder_inputs
from claspkit.runtime.families import FAMILIES
from claspkit.runtime.families.internvl import InternVLFamily
from claspkit.runtime.families.llava_next import LlavaNextFamily
from claspkit.runtime.inputs import batch_inputs, clip_inputs, picture_grid, picture_pixels
from claspkit.runtime.models import LoadedModel, load_model, resolve_model, shipped_config
from claspkit.runtime.token_map import CLS, NEWLINES, TokenMap, TokenView, grid_view, tiled_view

CELL = {"llava-next": 8, "qwen2.5-vl": 28, "internvl": 8}  # pixels of the scaled picture along a cell's side
SIZES = {  # (width, height): wide, tall, tiny, larger than all tiles, and what no tile divides
    "llava": [(96, 96), (200, 60), (40, 150), (7, 9)],
    "llava-next": [(48, 24), (48, 48), (24, 72), (90, 60), (20, 70), (11, 97), (7, 9), (400, 310), (48, 14)],
    "video-llava": [(16, 16), (90, 30), (20, 64), (5, 7)],
    "qwen2.5-vl": [(84, 56), (56, 112), (100, 71), (30, 200), (9, 12), (500, 320)],
    "internvl": [(80, 40), (40, 120), (80, 80), (90, 60), (20, 170), (9, 7), (600, 500)],
}
UNSCALED = {  # pictures that one of the views sees pixel by pixel
    "llava-next": [(48, 24), (24, 48), (48, 48), (72, 24), (24, 72)],
    "qwen2.5-vl": [(84, 56), (56, 112), (28, 28), (112, 112)],
    "internvl": [(80, 40), (40, 120), (80, 80), (160, 40), (40, 40)],
}
CLIPPED = {"video-llava": 4, "qwen2.5-vl": 5}  # family -> frames; five fill no whole temporal patches


def test_every_family_is_looked_at() -> None:
    assert set(SIZES) == set(FAMILIES)
    assert set(CELL) == set(UNSCALED) == set(FAMILIES) - {"llava", "video-llava"}  # those two see a square out of it


class Eye:
    """A family's model whose encoder blocks do nothing and whose image processor mixes no pixels."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded, self.family = loaded, loaded.family
        loaded.processor.image_processor.resample = Image.Resampling.NEAREST
        for blocks in loaded.family.towers(loaded.model).values():
            for block in blocks:
                block.forward = _handed_on

    def map(self, inputs: Any, size: tuple[int, int], frames: int = 0) -> TokenMap:
        """Where the tokens of a picture, or a clip of so many frames, of this (width, height) lie."""
        if not frames:
            grid = picture_grid(self.loaded, inputs)
        elif "video_grid_thw" in inputs:
            grid = (*inputs["video_grid_thw"][0].tolist(), frames)
        else:
            side = self.loaded.model.config.vision_config.patch_size
            grid = (frames, *(int(pixels) // side for pixels in inputs["pixel_values_videos"].shape[-2:]))
        processor = self.loaded.processor.image_processor
        return self.family.token_map(self.loaded.model, grid, size[::-1], processor)

    def tokens(self, inputs: Any) -> torch.Tensor:
        """Visual tokens at the decoder's input, (N, D)."""
        seen = read_decoder_inputs(self.loaded.model, self.family, inputs)
        return seen.embeds[0][seen.visual[0]]

    def look(self, picture: Image.Image) -> tuple[Any, torch.Tensor]:
        """Inputs and visual tokens of one picture."""
        inputs = batch_inputs(self.loaded, [picture], ["What is it?"])
        return inputs, self.tokens(inputs)


def _handed_on(hidden_states: Any, *_: Any, **__: Any) -> Any:
    return hidden_states


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Eye]:
    """Every family's."""
    return {
        name: Eye(load_model("mini") if name == "llava" else load_tiny(name, tmp_path_factory.mktemp(name)))
        for name in FAMILIES
    }


def plain(size: tuple[int, int]) -> Image.Image:
    """A grey picture of (width, height)."""
    return Image.new("RGB", size, (128, 128, 128))


def painted(size: tuple[int, int], region: tuple[int, int, int, int]) -> Image.Image:
    """The same with noise in ``region``: left, top, right, bottom in pixels."""
    picture = plain(size)
    width, height = region[2] - region[0], region[3] - region[1]
    noise = np.random.default_rng(7).choice([0, 255], (height, width, 3)).astype(np.uint8)
    picture.paste(Image.fromarray(noise), region[:2])
    return picture


def changed(before: torch.Tensor, after: torch.Tensor) -> set[int]:
    """Tokens that are not the same, bit for bit."""
    assert before.shape == after.shape
    return set((before != after).any(dim=1).nonzero()[:, 0].tolist())


def meets(box: Sequence[float], region: Sequence[float], least: Sequence[float] = (0.0, 0.0)) -> bool:
    """Whether two boxes share more than ``least`` (width, height)."""
    tiny = 1e-9  # boxes are quotients of whole numbers
    return all(
        min(box[axis + 2], region[axis + 2]) - max(box[axis], region[axis]) > least[axis] + tiny for axis in (0, 1)
    )


@st.composite
def regions(draw: st.DrawFn, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom inside a picture of ``size``, in pixels."""
    spans = []
    for pixels in size:
        begin = draw(st.integers(0, pixels - 1))
        spans.append((begin, draw(st.integers(begin + 1, min(pixels, begin + max(1, pixels // 3))))))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def check_map(found: TokenMap, count: int) -> None:
    """Every token once; the boxes of a view do not overlap and fill what the view sees of the picture."""
    assert found.count == count
    boxes = [box for view in found.views for box in view.boxes().items()]
    placeless = [token for tokens in found.placeless.values() for token in tokens]
    assert sorted([token for token, _ in boxes] + placeless) == list(range(count))
    for view in found.views:
        left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in view.window)
        cells = list(view.boxes().values())
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in cells]
        assert min(areas) > 0
        assert all(left - 1e-9 <= box[0] and top - 1e-9 <= box[1] for box in cells)
        assert all(box[2] <= right + 1e-9 and box[3] <= bottom + 1e-9 for box in cells)
        assert sum(areas) == pytest.approx((right - left) * (bottom - top))
        if len(cells) <= 100:
            assert not [1 for i, one in enumerate(cells) for other in cells[:i] if meets(one, other)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_has_one_box_or_none_and_a_views_boxes_fill_it(family: str, eyes: dict[str, Eye]) -> None:
    eye = eyes[family]
    for size in SIZES[family]:
        inputs, tokens = eye.look(plain(size))
        (visual,) = eye.family.visual_inputs(eye.loaded.model, inputs)
        found = eye.map(inputs, size)
        assert sum(visual.tokens) == len(tokens)
        check_map(found, len(tokens))
        assert found.cropped == (family in ("llava", "video-llava"))


@pytest.mark.parametrize("family", UNSCALED)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pixels_reach_the_tokens_whose_boxes_they_lie_in(
    family: str, eyes: dict[str, Eye], data: st.DataObject
) -> None:
    """Exactly these, in the view that sees the picture without scaling it."""
    eye = eyes[family]
    size = data.draw(st.sampled_from(UNSCALED[family]))
    region = data.draw(regions(size))
    inputs, before = eye.look(plain(size))
    found = changed(before, eye.look(painted(size, region))[1])
    view = eye.map(inputs, size).views[-1]
    assert (view.columns * CELL[family], view.rows * CELL[family]) == size
    wanted = {token for cell, token in enumerate(view.tokens) if meets(view.box(cell, *size), region)}
    assert wanted
    assert found & set(view.tokens) == wanted


@pytest.mark.parametrize("family", CELL)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_so_it_is_for_pictures_of_any_size(family: str, eyes: dict[str, Eye], data: st.DataObject) -> None:
    """In every view; those of which a box holds less than a scaled pixel may miss it. Newlines never change."""
    eye = eyes[family]
    size = data.draw(st.sampled_from(SIZES[family]) | st.tuples(st.integers(4, 260), st.integers(4, 260)))
    region = data.draw(regions(size))
    inputs, before = eye.look(plain(size))
    found = changed(before, eye.look(painted(size, region))[1])
    tokens = eye.map(inputs, size)
    check_map(tokens, len(before))
    assert not found & {token for group in tokens.placeless.values() for token in group}
    for view in tokens.views:
        left, top, right, bottom = view.window
        pixel = (
            (right - left) * size[0] / view.columns / CELL[family],
            (bottom - top) * size[1] / view.rows / CELL[family],
        )  # of the scaled picture, in pixels of this one
        boxes = {token: view.box(cell, *size) for cell, token in enumerate(view.tokens)}
        assert found & set(boxes) <= {token for token, box in boxes.items() if meets(box, region)}
        assert {token for token, box in boxes.items() if meets(box, region, pixel)} <= found


@pytest.mark.parametrize("family", ["llava", "video-llava"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_of_a_cropped_picture_the_pixels_that_are_left_count(
    family: str, eyes: dict[str, Eye], data: st.DataObject
) -> None:
    """The square that the image processor cuts out is what boxes are of; what it cuts away reaches no token."""
    eye = eyes[family]
    size = data.draw(st.sampled_from(SIZES[family]) | st.tuples(st.integers(4, 200), st.integers(4, 200)))
    inputs, before = eye.look(plain(size))
    others, after = eye.look(painted(size, data.draw(regions(size))))
    pixels = (picture_pixels(inputs) != picture_pixels(others))[0].any(dim=0)
    (view,) = eye.map(inputs, size).views
    side = len(pixels)
    assert pixels.shape == (side, side)
    wanted = set()
    for cell, token in enumerate(view.tokens):
        left, top, right, bottom = (round(edge) for edge in view.box(cell, side, side))
        if pixels[top:bottom, left:right].any():
            wanted.add(token)
    assert changed(before, after) == wanted


@pytest.mark.parametrize(("family", "frames"), CLIPPED.items())
def test_a_clip_has_a_view_for_every_frame(family: str, frames: int, eyes: dict[str, Eye]) -> None:
    """A spot on one frame reaches one token of that frame's view, and no other."""
    eye, size = eyes[family], {"video-llava": (16, 16), "qwen2.5-vl": (84, 56)}[family]
    together = 2 if family == "qwen2.5-vl" else 1
    still = [plain(size)] * frames
    inputs = clip_inputs(eye.loaded, [still], ["What is it?"])
    found, before = eye.map(inputs, size, frames), eye.tokens(inputs)
    check_map(found, len(before))
    assert len(found.views) == ceil(frames / together)
    assert found.views[-1].name == {"video-llava": "frame 4", "qwen2.5-vl": "frame 5"}[family]
    assert set(found.placeless) == ({CLS} if family == "video-llava" else set())
    for frame in range(frames):
        view = found.views[frame // together]
        cell = (5 * frame + 1) % len(view.tokens)
        left, top, right, bottom = (round(edge) for edge in view.box(cell, *size))
        spot = painted(size, (left + 1, top + 1, right - 1, bottom - 1))
        shown = [*still[:frame], spot, *still[frame + 1 :]]
        after = eye.tokens(clip_inputs(eye.loaded, [shown], ["What is it?"]))
        assert changed(before, after) == {view.tokens[cell]}


def test_newlines_are_counted_and_have_no_place(eyes: dict[str, Eye]) -> None:
    """By hand: behind every row of close-up patches one, after the overview's nine tokens."""
    eye = eyes["llava-next"]
    for (height, width), (_, count) in tiny_llava_next.PICTURES.items():
        inputs, _ = eye.look(plain((width, height)))
        found = eye.map(inputs, (width, height))
        tiles = found.views[1]
        assert found.count == count
        assert found.placeless == {NEWLINES: tuple(range(9 + tiles.columns, count, tiles.columns + 1))}
        assert len(found.placeless[NEWLINES]) == tiles.rows


def test_a_picture_whose_every_patch_is_cut_away_has_its_overview() -> None:
    """A hair's breadth in the middle of an even number of patches: of a wide one nothing is left between the cuts, of
    a tall one the newlines."""
    model = tiny_llava_next.build()
    model.config.image_grid_pinpoints = [[48, 48]]
    family = LlavaNextFamily()
    for size, count, placeless in [((2, 300), 9, {}), ((300, 2), 15, {NEWLINES: tuple(range(9, 15))})]:
        found = family.token_map(model, size, size, None)
        assert (found.count, found.placeless) == (family.picture_layout(model, size)[1], placeless)
        assert found.count == count
        assert [view.name for view in found.views] == ["whole picture"]


@pytest.mark.parametrize(("family", "grid"), [("llava-next", (30, 30)), ("internvl", (4,)), ("qwen2.5-vl", (4, 4))])
def test_a_grid_of_another_picture_is_refused(family: str, grid: tuple[int, ...], eyes: dict[str, Eye]) -> None:
    eye = eyes[family]
    with pytest.raises(MismatchError):
        eye.family.token_map(eye.loaded.model, grid, (40, 80), eye.loaded.processor.image_processor)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
def test_tiles_side_by_side_make_one_grid(rows: int, columns: int, side: int, first: int) -> None:
    """Token t lies in tile t / side^2, at the place in it that t's rest says."""
    view = tiled_view("tiles", (rows, columns), side, first)
    for cell, token in enumerate(view.tokens):
        tile, inside = divmod(token - first, side * side)
        row, column = divmod(cell, view.columns)
        assert (row // side, column // side) == divmod(tile, columns)
        assert (row % side, column % side) == divmod(inside, side)
    assert sorted(view.tokens) == list(range(first, first + rows * columns * side**2))


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match="no grid of 2 x 2"):
        TokenView("picture", 2, 2, (0, 1, 2))
    with pytest.raises(ValueError, match="no grid of 0 x 5"):
        TokenView("picture", 0, 5, ())
    with pytest.raises(ValueError, match="empty"):
        grid_view("picture", 1, 1, window=(0.0, 0.5, 1.0, 0.5))
    for views, placeless in [
        ((grid_view("a", 2, 2), grid_view("b", 1, 1, 3)), {}),  # token 3 twice
        ((grid_view("a", 2, 2),), {NEWLINES: (5,)}),  # no token 4
    ]:
        with pytest.raises(ValueError, match="every visual token"):
            TokenMap(views, placeless)


REAL = {
    "llava-next-7b": LlavaNextFamily(),  # 336 pixels and 24 patches a tile, five arrangements of tiles
    "internvl3-8b": InternVLFamily(),  # 448 pixels and 16 merged patches a tile, up to twelve tiles
}


@cache
def config_alone(alias: str) -> Any:
    """A model of which nothing but its config is there."""
    path = shipped_config(resolve_model(alias))
    assert path is not None
    return SimpleNamespace(config=AutoConfig.from_pretrained(str(path)))


@pytest.mark.parametrize("alias", REAL)
@settings(max_examples=40, deadline=None)
@given(size=st.tuples(st.integers(1, 6000), st.integers(1, 6000)))
def test_the_maps_of_real_sizes_are_whole(alias: str, size: tuple[int, int]) -> None:
    """From the configs that ship: as many tokens as the budget counts, and every box has an area."""
    model, family = config_alone(alias), REAL[alias]
    processor = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448})
    if isinstance(family, LlavaNextFamily):
        grid: tuple[int, ...] = size
        count = family.picture_layout(model, size)[1]
    else:
        grid = (processor.get_number_of_image_patches(*size, {"crop_to_patches": True}),)
        count = grid[0] * 256
    found = family.token_map(model, grid, size, processor)
    assert found.count == count
    for view in found.views:
        for box in map(view.box, range(len(view.tokens))):
            assert 0 <= box[0] < box[2] <= 1
            assert 0 <= box[1] < box[3] <= 1
