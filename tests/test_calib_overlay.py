"""The overlay: sizes, which patches stay, and marks that differ by more than their hue."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from claspkit.calib.overlay import MIN_PANEL, StageView, draw_overlay

GREEN = (40, 160, 60)


def picture(width: int = 96, height: int = 96, mode: str = "RGB") -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (width, height), GREEN).convert(mode)


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
    one, three = (draw_overlay(picture(), (4, 4), [stage] * count) for count in (1, 3))
    assert three.mode == "RGB"
    assert three.width > 3 * MIN_PANEL
    assert MIN_PANEL < one.width < 2 * MIN_PANEL
    assert one.height > MIN_PANEL


def test_dropped_patches_lose_their_colour_and_kept_ones_do_not() -> None:
    image = draw_overlay(picture(), (4, 4), [StageView(2, (0, 1), (0,))])
    middle = (20, 20, 60, 60)
    assert saturation(patch(image, 2, 4)) == 0
    for index in (0, 1):
        assert saturation(patch(image, index, 4).crop(middle)) > 60


def test_a_pivot_is_framed_whole_and_completion_at_its_corners_only() -> None:
    image = draw_overlay(picture(), (4, 4), [StageView(2, (0, 1), (0,))])
    blue, red = patch(image, 0, 4), patch(image, 1, 4)
    assert blue.getpixel((2, 2)) == blue.getpixel((40, 2)) == (0, 90, 220)
    assert red.getpixel((2, 2)) == (214, 40, 30)
    assert red.getpixel((40, 2)) == red.getpixel((40, 40)) != (214, 40, 30)
    luminance = [image.convert("L").getpixel((40, 40)) for image in (blue, red)]
    assert luminance[0] != luminance[1]


def test_captions_tell_layer_and_counts_apart() -> None:
    views = [StageView(2, (0, 1), (0,)), StageView(3, (0, 1), (0,)), StageView(2, (0, 1), ())]
    heads = [draw_overlay(picture(), (4, 4), [view]).crop((0, 0, 344, 56)).tobytes() for view in views]
    assert len(set(heads)) == 3


def test_large_pictures_and_fine_grids_are_not_shrunk() -> None:
    large = draw_overlay(picture(700, 500), (5, 7), [StageView(1, (0,), ())])
    assert large.width >= 700
    fine = draw_overlay(picture(336, 336), (40, 40), [StageView(1, (0,), ())])
    assert fine.width >= 40 * 16


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_mode_is_drawn(mode: str) -> None:
    assert draw_overlay(picture(mode=mode), (4, 4), [StageView(1, (3,), (3,))]).mode == "RGB"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(8, 90), st.integers(8, 90), st.data())
def test_any_grid_on_any_picture(rows: int, columns: int, width: int, height: int, data: st.DataObject) -> None:
    kept = tuple(sorted(data.draw(st.sets(st.integers(0, rows * columns - 1)))))
    pivots = tuple(index for index in kept if index % 2)
    image = draw_overlay(picture(width, height), (rows, columns), [StageView(0, kept, pivots)])
    assert image.width > MIN_PANEL


@pytest.mark.parametrize(
    ("grid", "stages", "said"),
    [
        ((4, 4), [], "at least one stage"),
        ((0, 4), [StageView(1, (), ())], "no patch"),
        ((4, 4), [StageView(1, (16,), ())], "keeps patch 16"),
        ((4, 4), [StageView(1, (-1,), ())], "keeps patch -1"),
        ((4, 4), [StageView(7, (1, 2), (3,))], "layer 7 has pivot 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(grid: tuple[int, int], stages: list[StageView], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        draw_overlay(picture(), grid, stages)
