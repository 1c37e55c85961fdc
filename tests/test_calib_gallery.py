"""The gallery's file and its drawings: what is written comes back, cells lie on the picture where their tokens do."""

from __future__ import annotations

import base64
import io
import json
import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from claspkit.calib.gallery import Gallery, Shot, read_gallery, write_gallery
from claspkit.calib.gallery_cells import Canvas, cell_paths, svg_number
from claspkit.calib.gallery_draw import MOST_BYTES, weight
from claspkit.calib.overlay import StageView
from claspkit.calib.packed import pack, runs, spread, unpack
from claspkit.calib.report_gallery import figure, gallery_part
from claspkit.profiles.canonical import canonical_json, digest
from claspkit.profiles.errors import CorruptError
from claspkit.runtime.token_map import CLS, NEWLINES, WHOLE, Box, TokenMap, TokenView, grid_view, tiled_view

NEXT = TokenMap(  # LLaVA-NeXT's largest picture: 672 x 672
    (grid_view("whole picture", 24, 24), grid_view("tiles", 48, 48, 576, gap=1)),
    {NEWLINES: tuple(range(576 + 48, 576 + 48 * 49, 49))},
)
MAPS = [
    NEXT,
    TokenMap((grid_view("picture", 4, 4),), cropped=True),
    TokenMap((grid_view("whole picture", 5, 5, 150), tiled_view("tiles", (2, 3), 5))),
    TokenMap((grid_view("picture", 3, 2, 1, window=(0.0, -0.125, 1.0, 1.125)),), {CLS: (0,)}),
]


def jpeg(size: tuple[int, int]) -> str:
    """A picture of (width, height), base64."""
    file = io.BytesIO()
    Image.effect_noise(size, 20).convert("RGB").save(file, "JPEG", quality=78)
    return base64.b64encode(file.getvalue()).decode("ascii")


def shot(tokens: TokenMap, size: tuple[int, int] = (64, 48), keep: int = 2, uid: str = "a") -> Shot:
    """A sample of which a stage keeps every ``keep``-th token and the next one the first."""
    kept = tuple(range(0, tokens.count, keep))
    stages = (StageView(2, kept, kept[::2]), StageView(5, (0,), ()))
    return Shot(
        intent="counting",
        uid=uid,
        image="1.png",
        prompt="How many?",
        answers=("3", "three"),
        candidate="deep/0.3",
        answer="3",
        score=1.0,
        unpruned=None,
        unpruned_score=None,
        tokens=tokens,
        size=size,
        stages=stages,
        jpeg=jpeg(size),
    )


@pytest.mark.parametrize("tokens", MAPS)
def test_a_gallery_comes_back_as_it_was(tokens: TokenMap, tmp_path: Path) -> None:
    written = Gallery("p" * 64, (shot(tokens),), ("why",))
    write_gallery(tmp_path / "gallery.json", written)
    assert read_gallery(tmp_path / "gallery.json", "p" * 64) == written
    assert unpack(json.loads(json.dumps(pack(tokens)))) == tokens


@given(st.lists(st.integers(0, 40), max_size=60))
def test_runs_are_spread_again(numbers: list[int]) -> None:
    assert spread(runs(numbers)) == tuple(numbers)


def test_runs_that_would_fill_the_memory_are_refused() -> None:
    for found in ([[0, 10**12]], [[0, 3], [5, -1]], [[0, 0]]):
        with pytest.raises(ValueError, match="runs"):
            spread(found)


def write_body(path: Path, body: dict[str, object]) -> Path:
    """A gallery's file with any body, its digest right."""
    path.write_bytes(canonical_json({"sha256": digest(body), "body": body}))
    return path


def old_record() -> dict[str, object]:
    """A sample as the first version has it."""
    record = shot(TokenMap((grid_view("picture", 4, 6),), cropped=True)).to_dict()
    del record["tokens"], record["size"]
    return {**record, "grid": [4, 6]}


def test_a_gallery_of_the_first_version_is_read_and_one_of_a_newer_is_told(tmp_path: Path) -> None:
    body: dict[str, object] = {"profile_id": "p", "shots": [old_record()], "missing": []}
    found = read_gallery(write_body(tmp_path / "old.json", body), "p")
    assert found is not None
    (one,) = found.shots
    assert one.tokens == TokenMap((grid_view("picture", 4, 6),), cropped=True)
    text = gallery_part(found, {})
    assert text.count('viewBox="0 0 6 4"') == 1 + len(one.stages)
    with pytest.raises(CorruptError, match=r"version 3, and 1 to 2 can be read.*--gallery"):
        read_gallery(write_body(tmp_path / "new.json", {**body, "version": 3}), "p")


@pytest.mark.parametrize(
    "change",
    [
        {"size": [0, 5]},
        {"stages": [{"after_layer": 2, "kept": [16], "pivots": []}]},
        {"tokens": {"views": [], "placeless": {"x": [[1, 2]]}, "cropped": False}},
        {"jpeg": "no base64!"},
        {"size": [1e300, 1e300]},
        {"score": "0.5"},
        {"unpruned_score": 2},
        {"intent": ["counting"]},
        {"answers": [1]},
        {"unpruned": 1},
        {"stages": [{"after_layer": -5, "kept": [0], "pivots": []}]},
        {"stages": [{"after_layer": 2, "kept": [0.5], "pivots": []}]},
        {"stages": [{"after_layer": 2, "kept": [0, 0], "pivots": []}]},
        {"stages": [{"after_layer": 2, "kept": [0], "pivots": [1]}]},
        {"tokens": {"views": [], "placeless": {"x": [[0, 16]]}, "cropped": False}},
        *(
            {
                "tokens": {
                    "views": [{"name": "a", "rows": 4, "columns": 4, "window": window, "runs": [[0, 16]]}],
                    "placeless": {},
                    "cropped": False,
                }
            }
            for window in ([-1e308, -1e308, 1e308, 1e308], [0, 0, 1e-308, 1e-308])
        ),
    ],
)
def test_a_record_that_cannot_be_drawn_is_damaged(change: dict[str, object], tmp_path: Path) -> None:
    body = {"version": 2, "profile_id": "p", "shots": [shot(MAPS[1]).to_dict() | change], "missing": []}
    with pytest.raises(CorruptError, match="damaged"):
        read_gallery(write_body(tmp_path / "gallery.json", body), "p")


def view_of(tokens: int, first: int = 0) -> dict[str, object]:
    """A view of one column, in few bytes."""
    return {"name": "v", "rows": tokens, "columns": 1, "window": [0, 0, 1, 1], "runs": [[first, tokens]]}


def map_of(*views: dict[str, object]) -> dict[str, object]:
    """A sample's fields with a map of these views, of which nothing is kept."""
    return {"tokens": {"views": list(views), "placeless": {}, "cropped": False}, "stages": []}


EMPTY = {"after_layer": 2, "kept": [], "pivots": []}
BOMBS: dict[str, tuple[int, list[dict[str, object]]]] = {
    "views": (2, [map_of(*(view_of(10**6, number * 10**6) for number in range(3000)))]),
    "small views": (2, [map_of(*(view_of(1, number) for number in range(3000)))]),
    "samples": (2, [map_of(view_of(10**6))] * 500),
    "stages": (2, [map_of(view_of(10**5)) | {"stages": [EMPTY] * 5000}]),
    "an old grid": (1, [{"grid": [10**5, 10**5]}]),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_that_stands_for_gigabytes_is_refused(kind: str, tmp_path: Path) -> None:
    """Before it is spread: the process gets little more than the memory that it has."""
    version, changes = BOMBS[kind]
    base = old_record() if version == 1 else shot(MAPS[1]).to_dict()
    shots = [base | change for change in changes]
    path = write_body(
        tmp_path / "gallery.json", {"version": version, "profile_id": "p", "shots": shots, "missing": []}
    )
    assert path.stat().st_size < 3_000_000
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, hard))
    try:
        with pytest.raises(CorruptError, match="damaged"):
            read_gallery(path, "p")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def rectangles(path: str) -> list[Box]:
    """Left, top, right, bottom of the rectangles of a path."""
    found: list[Box] = []
    for part in path.split("z")[:-1]:
        match = re.fullmatch(r"([Mm])(\S+) (-?[\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+", part)
        assert match is not None, part
        x, y, wide, high = map(float, match.groups()[1:])
        if match[1] == "m":  # from where the one before began
            x, y = found[-1][0] + x, found[-1][1] + y
        found.append((x, y, x + wide, y + high))
    return found


def drawn(text: str) -> dict[str, list[Box]]:
    """Class of a path -> its rectangles in the SVG's own coordinates; the rim is "rim"."""
    inside = re.search(r'<g transform="(.*?)">(.*?)</g>', text)
    found: dict[str, list[Box]] = {}
    x = y = 0.0
    scale = 1.0
    rim, cells = (text[: inside.start()], inside[2]) if inside else ("", text)
    if inside:
        moved, sized = re.search(r"translate\((\S+) (\S+)\)", inside[1]), re.search(r"scale\((\S+)\)", inside[1])
        x, y = (float(moved[1]), float(moved[2])) if moved else (x, y)
        scale = float(sized[1]) if sized else scale
    for kind, path in re.findall(r'<path class="(\w+)" d="(.*?)"', cells):
        found.setdefault(kind, []).extend(
            (x + a * scale, y + b * scale, x + c * scale, y + d * scale) for a, b, c, d in rectangles(path)
        )
    for _, path in re.findall(r'<path class="(\w+)" d="(.*?)"', rim):
        found.setdefault("rim", []).extend(rectangles(path))
    return found


WINDOWS = st.sampled_from([WHOLE, (0.0, -0.125, 1.0, 1.125), (-0.25, 0.0, 1.25, 1.0), (0.0, 0.1, 1.0, 0.9)])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(30, 300), st.integers(30, 300), WINDOWS, st.data())
def test_cells_are_drawn_where_their_tokens_lie(
    rows: int, columns: int, width: int, height: int, window: Box, data: st.DataObject
) -> None:
    """Frames in the middle of their cells, the dropped ones and the rim over the rest, in the picture's proportions."""
    view, other = grid_view("tiles", rows, columns, window=window), TokenView("whole picture", 2, 3, tuple(range(6)))
    canvas = Canvas.of((width, height), data.draw(st.sampled_from([view, other])))
    assert canvas.width / canvas.height == pytest.approx(width / height)
    kept = sorted(data.draw(st.sets(st.integers(0, rows * columns - 1))))
    pivots = kept[::2]
    found = drawn(cell_paths(canvas, (width, height), view, kept, pivots))
    whole = replace(view, window=WHOLE)  # boxes that are not cut at the edges
    left, top, right, bottom = window

    def place(box: Box) -> Box:
        x, y = canvas.width * left, canvas.height * top
        wide, high = canvas.width * (right - left), canvas.height * (bottom - top)
        return x + box[0] * wide, y + box[1] * high, x + box[2] * wide, y + box[3] * high

    for kind, cells in (("pivot", pivots), ("completion", kept[1::2])):
        frames = found.get(kind, [])
        assert len(frames) == len(cells)
        for frame, cell in zip(frames, cells, strict=True):
            box = place(whole.box(cell))
            inset = ((box[2] - box[0]) / 10, (box[3] - box[1]) / 10)
            wanted = (box[0] + inset[0], box[1] + inset[1], box[2] - inset[0], box[3] - inset[1])
            assert frame == pytest.approx(wanted, abs=0.03)  # numbers are written with three digits
    boxes = [place(whole.box(cell)) for cell in set(range(rows * columns)) - set(kept)]
    assert area(found.get("gone", [])) == pytest.approx(area(boxes), rel=0.01, abs=0.03)
    ends = place(WHOLE)
    for box in found.get("gone", []):
        assert ends[0] - 0.03 <= box[0] < box[2] <= ends[2] + 0.03
        assert box[3] - box[1] == pytest.approx((ends[3] - ends[1]) / rows, abs=0.03)
    rim = 1 - (min(right, 1) - max(left, 0)) * (min(bottom, 1) - max(top, 0))
    assert area(found.get("rim", [])) == pytest.approx(rim * canvas.width * canvas.height, rel=0.01, abs=0.03)


def area(boxes: list[Box]) -> float:
    """Of all together."""
    return sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes)


@given(st.floats(-5000, 5000))
def test_numbers_are_short_and_keep_three_digits(value: float) -> None:
    text = svg_number(value)
    assert float(text) == pytest.approx(value, abs=0.00051)
    assert not re.search(r"^-?0\d|^-?0\.|\.0*$|-0$", text)


def test_the_largest_pictures_of_a_gallery_leave_room_in_the_report() -> None:
    """Nine classes with as many samples of 2,928 tokens as their share takes: the drawings are what counts."""
    one = shot(NEXT, (336, 336), keep=3)
    assert weight(one) >= len(figure(one).encode()) > 1000
    assert weight(one) >= len(canonical_json(one.to_dict()))
    fit = MOST_BYTES // 9 // weight(one)
    assert fit >= 1
    shots = [replace(one, intent=f"c{number // fit}", uid=f"{number}") for number in range(9 * fit)]
    assert len(gallery_part(Gallery("p", tuple(shots)), {}).encode()) < 1.01 * MOST_BYTES


def test_what_a_stage_kept_of_every_view_is_told() -> None:
    text = figure(shot(NEXT, (300, 200), keep=4))
    assert "whole picture 24 by 24 tokens, tiles 48 by 48 tokens, 48 newline tokens" in text
    for line in ("all 2928 tokens", "whole picture: 144 of 576 kept", "tiles: 576 of 2304 kept"):
        assert f"<small>{line}</small>" in text
    assert "newline tokens: 12 of 48 kept" in text
    assert text.count("<svg") == 1 + 2 * 2
    assert text.count("<image") == 1
    assert len(set(re.findall(r'viewBox="(.*?)"', text))) == 1
