"""Animated pictures as clips: which frames are taken, and what strangers' files may not do."""

from __future__ import annotations

import io
import os
import warnings
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from claspkit.calib import clips
from claspkit.calib.clips import clip_digest, open_clip
from claspkit.profiles.errors import BadDataError

FORMATS = ("GIF", "WEBP", "PNG")


def animation(kind: str, count: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """A lossless animation whose frame number i is plain grey of 10 i."""
    frames = [Image.new("RGB", size, (10 * shade,) * 3) for shade in range(count)]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=50, **lossless)
    return buffer.getvalue()


def shades(frames: list[Image.Image]) -> list[int]:
    """Which frame each one is."""
    values = [frame.getpixel((0, 0)) for frame in frames]
    return [value[0] // 10 for value in values if isinstance(value, tuple)]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("count", "wanted"), [(16, [0, 4, 8, 12]), (5, [0, 1, 2, 3]), (2, [0, 0, 1, 1])])
def test_frames_lie_at_even_distances(kind: str, count: int, wanted: list[int], tmp_path: Path) -> None:
    """Number i of 4 is frame i n // 4; short files give a frame several times."""
    (tmp_path / "a.dat").write_bytes(animation(kind, count))
    frames = open_clip("a.dat", tmp_path, 4)
    assert shades(frames) == wanted
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (12, 10))}


def test_a_file_is_known_by_its_bytes_and_a_clip_by_its_frames_too(tmp_path: Path) -> None:
    """Another sha256 is refused; other numbers of frames are other records, and none is the picture's."""
    data = animation("GIF", 3)
    (tmp_path / "a.gif").write_bytes(data)
    name = sha256(data).hexdigest()
    assert len(open_clip("a.gif", tmp_path, 2, name)) == 2
    with pytest.raises(BadDataError, match="no longer the file"):
        open_clip("a.gif", tmp_path, 2, "0" * 64)
    digests = {name, clip_digest(name, 2), clip_digest(name, 3), clip_digest("0" * 64, 2)}
    assert len(digests) == 4
    assert {len(each) for each in digests} == {64}


def test_what_is_no_animation_is_refused(tmp_path: Path) -> None:
    """A still picture, a format that has no frames, no picture, nothing, and a path out of the root."""
    still = io.BytesIO()
    Image.new("RGB", (4, 4)).save(still, "PNG")
    photo = io.BytesIO()
    Image.new("RGB", (4, 4)).save(photo, "JPEG")
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "out.gif").write_bytes(animation("GIF", 2))
    for name, data in {"still": still.getvalue(), "photo": photo.getvalue(), "text": b"hello", "empty": b""}.items():
        (root / name).write_bytes(data)
    for name, reason in {
        "still": "it has one frame",
        "photo": r"known format \(gif, png, webp\)",
        "text": "not a picture",
        "empty": "empty",
        "none": "no such file",
        "../out.gif": "outside the image root",
    }.items():
        with pytest.raises(BadDataError, match=reason):
            open_clip(name, root, 2)
    with pytest.raises(ValueError, match="at least 1"):
        open_clip("still", root, 0)


@pytest.mark.parametrize("kind", FORMATS)
def test_bombs_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many frames, too many pixels to decode, too many to keep."""
    (tmp_path / "a").write_bytes(animation(kind, 9))
    with monkeypatch.context() as patched:
        patched.setattr(clips, "MAX_FRAMES", 8)
        with pytest.raises(BadDataError, match="9 frames; at most 8"):
            open_clip("a", tmp_path, 2)
    with monkeypatch.context() as patched:
        patched.setattr(clips, "MAX_DECODED", 5 * 120 - 1)  # the second of 2 is frame 4, the fifth
        with pytest.raises(BadDataError, match="too many; at most 599"):
            open_clip("a", tmp_path, 2)
        patched.setattr(clips, "MAX_DECODED", 5 * 120)
        assert shades(open_clip("a", tmp_path, 2)) == [0, 4]
    with monkeypatch.context() as patched:
        patched.setattr(clips, "MAX_PIXELS", 240)
        assert shades(open_clip("a", tmp_path, 2)) == [0, 4]
        with pytest.raises(BadDataError, match="240 kept"):
            open_clip("a", tmp_path, 3)


def test_a_gif_of_endless_pieces_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames are not counted to the end: so many reads and no more, however many frames are left."""
    two = animation("GIF", 2, (1, 1))
    frame = b"\x2c" + bytes(4) + b"\1\0\1\0\0" + b"\2\2\x44\1\0"
    (tmp_path / "a.gif").write_bytes(two[:-1] + frame * 5_000 + two[-1:])
    with pytest.raises(BadDataError, match="5002 frames"):
        open_clip("a.gif", tmp_path, 2)
    monkeypatch.setattr(clips, "MAX_READS", 1_000)
    with pytest.raises(BadDataError, match="too many pieces; 1000 reads"):
        open_clip("a.gif", tmp_path, 2)
    (tmp_path / "b.gif").write_bytes(two)
    assert shades(open_clip("b.gif", tmp_path, 2)) == [0, 1]


def test_damaged_files_give_one_kind_of_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cut anywhere, or with bytes changed: frames or a BadDataError, never anything else, never a warning."""
    folder = tmp_path_factory.mktemp("clips")
    files = {kind: animation(kind, 4) for kind in FORMATS}

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(FORMATS), st.integers(0, 10_000), st.binary(min_size=1, max_size=4), st.booleans())
    def check(kind: str, place: int, junk: bytes, cut: bool) -> None:
        data = files[kind]
        place %= len(data)
        path = folder / "a"
        path.write_bytes(data[:place] if cut else data[:place] + junk + data[place + len(junk) :])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                frames = open_clip("a", folder, 3)
            except BadDataError:
                return
        assert len(frames) == 3
        assert len({frame.size for frame in frames}) == 1

    check()
    os.remove(folder / "a")
