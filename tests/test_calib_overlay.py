"""The overlay: sizes, which patches stay, and marks that differ by more than their hue."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from claspkit.calib.overlay import MIN_PANEL, StageView, draw_overlay, draw_panels, view_captions
from claspkit.runtime.token_map import NEWLINES, TokenMap, grid_view

GREEN = (40, 160, 60)


def picture(width: int = 96, height: int = 96, mode: str = "RGB") -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (width, height), GREEN).convert(mode)


def cut(rows: int, columns: int) -> TokenMap:
    """One grid over the picture."""
    return TokenMap((grid_view("picture", rows, columns),))


def patch(image: Image.Image, index: int, columns: int, cell: int = 80) -> Image.Image:
    """A patch of the only panel, found below the two lines of caption; the panel has square patches of ``cell``."""
    row, column = divmod(index, columns)
    left, top = 12 + column * cell, 58 + row * cell
    return image.crop((left, top, left + cell, top + cell))


def saturation(image: Image.Image) -> float:
    """Mean saturation, 0..255."""
    histogram = image.convert("HSV").getchannel("S").histogram()
    return sum(value * count for value, count in enumerate(histogram)) / sum(histogram)


def test_there_is_a_panel_for_each_stage_side_by_side() -> None:
    stage = StageView(1, (0, 5), (0,))
    one, three = (draw_overlay(picture(), cut(4, 4), [stage] * count) for count in (1, 3))
    assert three.mode == "RGB"
    assert three.width > 3 * MIN_PANEL
    assert MIN_PANEL < one.width < 2 * MIN_PANEL
    assert one.height > MIN_PANEL


def test_dropped_patches_lose_their_colour_and_kept_ones_do_not() -> None:
    image = draw_overlay(picture(), cut(4, 4), [StageView(2, (0, 1), (0,))])
    middle = (20, 20, 60, 60)
    assert saturation(patch(image, 2, 4)) == 0
    for index in (0, 1):
        assert saturation(patch(image, index, 4).crop(middle)) > 60


def test_a_pivot_is_framed_whole_and_completion_at_its_corners_only() -> None:
    image = draw_overlay(picture(), cut(4, 4), [StageView(2, (0, 1), (0,))])
    blue, red = patch(image, 0, 4), patch(image, 1, 4)
    assert blue.getpixel((2, 2)) == blue.getpixel((40, 2)) == (0, 90, 220)
    assert red.getpixel((2, 2)) == (214, 40, 30)
    assert red.getpixel((40, 2)) == red.getpixel((40, 40)) != (214, 40, 30)
    luminance = [image.convert("L").getpixel((40, 40)) for image in (blue, red)]
    assert luminance[0] != luminance[1]


def test_captions_tell_layer_and_counts_apart() -> None:
    views = [StageView(2, (0, 1), (0,)), StageView(3, (0, 1), (0,)), StageView(2, (0, 1), ())]
    heads = [draw_overlay(picture(), cut(4, 4), [view]).crop((0, 0, 344, 56)).tobytes() for view in views]
    assert len(set(heads)) == 3


def test_large_pictures_and_fine_grids_are_not_shrunk() -> None:
    large = draw_overlay(picture(700, 500), cut(5, 7), [StageView(1, (0,), ())])
    assert large.width >= 700
    fine = draw_overlay(picture(336, 336), cut(40, 40), [StageView(1, (0,), ())])
    assert fine.width >= 40 * 16


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_mode_is_drawn(mode: str) -> None:
    assert draw_overlay(picture(mode=mode), cut(4, 4), [StageView(1, (3,), (3,))]).mode == "RGB"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(8, 90), st.integers(8, 90), st.data())
def test_any_grid_on_any_picture(rows: int, columns: int, width: int, height: int, data: st.DataObject) -> None:
    kept = tuple(sorted(data.draw(st.sets(st.integers(0, rows * columns - 1)))))
    pivots = tuple(index for index in kept if index % 2)
    image = draw_overlay(picture(width, height), cut(rows, columns), [StageView(0, kept, pivots)])
    assert image.width > MIN_PANEL


@pytest.mark.parametrize(
    ("grid", "stages", "said"),
    [
        ((4, 4), [], "at least one stage"),
        ((0, 4), [StageView(1, (), ())], "no grid of 0 x 4"),
        ((4, 4), [StageView(1, (16,), ())], "keeps patch 16"),
        ((4, 4), [StageView(1, (-1,), ())], "keeps patch -1"),
        ((4, 4), [StageView(7, (1, 2), (3,))], "layer 7 has pivot 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(grid: tuple[int, int], stages: list[StageView], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        draw_overlay(picture(), cut(*grid), stages)


def test_a_map_of_nothing_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="no patch"):
        draw_overlay(picture(), TokenMap(()), [StageView(1, (), ())])


TILED = TokenMap(
    (grid_view("whole picture", 2, 2), grid_view("tiles", 3, 4, 4, gap=1, window=(0.0, -0.1, 1.0, 1.1))),
    {NEWLINES: (8, 13, 18)},
)


def test_every_view_is_drawn_on_a_picture_of_its_own() -> None:
    """The overview's token 1 is its top right quarter, token 17 the last of the tiles; a newline has no place."""
    stage = StageView(2, (1, 13, 17), (17,))
    (one,) = draw_panels(picture(96, 96), TILED, [stage])
    assert one.width == MIN_PANEL
    assert one.height == 2 * MIN_PANEL + 3 * 24
    overview, tiles = (one.crop((0, top, 320, top + 320)) for top in (20, 364))
    coloured = [
        [saturation(view.crop((x, y, x + 20, y + 20))) > 60 for y in (30, 290) for x in (30, 290)]
        for view in (overview, tiles)
    ]
    assert coloured == [[False, True, False, False], [False, False, False, True]]
    assert tiles.getpixel((242, 226)) == (0, 90, 220)  # its frame: 4 columns of 80 pixels, 3 rows of 128 from -32 on
    assert view_captions(TILED, stage) == [
        "whole picture: 1 of 4 kept",
        "tiles: 1 of 12 kept",
        "newline tokens: 1 of 3 kept",
    ]
    assert view_captions(cut(4, 4), stage) == []


@pytest.mark.parametrize("size", [(3, 600), (600, 3), (5000, 4000)])
def test_very_long_and_very_large_pictures_give_panels_that_fit_memory(size: tuple[int, int]) -> None:
    """Patches of a long picture are stretched until their frames can be drawn."""
    (panel,) = draw_panels(picture(*size), cut(24, 24), [StageView(1, (0, 575), (0,))])
    assert 144 <= min(panel.size) <= max(panel.size) <= 4096
    assert panel.getpixel((2, 2)) == (0, 90, 220)


def test_what_padding_leaves_of_a_patch_is_drawn_or_left_out() -> None:
    """The first column is less than a pixel wide, the last one two."""
    edge = TokenMap((grid_view("picture", 1, 4, window=(-0.3329, 0.0, 1.005, 1.0)),))
    (panel,) = draw_panels(picture(320, 320), edge, [StageView(1, (0, 1, 2, 3), (0, 1))])
    assert panel.size == (320, 320)
    assert panel.getpixel((2, 2)) == (0, 90, 220)
