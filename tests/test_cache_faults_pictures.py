"""Pictures that cannot or must not be read: quarantined by name, and the others are cached."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_counts import tell
from test_calib_images import huge_png

from claspkit.cache import FeatureStore
from claspkit.calib.cli import main
from claspkit.calib.folder import RunFolder, read_samples
from claspkit.calib.images import image_digest
from claspkit.mini.samples import CALIBRATION_SEED, draw_picture

Bad = Callable[[Path, bytes], str]
"""Makes a bad picture in a data folder, given a good one's bytes; returns its path in the data."""

PROMPT = "How many stars are there?"


def exit_code(*arguments: str) -> int:
    """Run a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def _cut(data: Path, good: bytes) -> str:
    (data / "cut.png").write_bytes(good[: len(good) // 2])
    return "cut.png"


def _garbled(data: Path, good: bytes) -> str:
    (data / "garbled.png").write_bytes(good[:60] + bytes(30) + good[90:])
    return "garbled.png"


def _empty(data: Path, _: bytes) -> str:
    (data / "empty.png").write_bytes(b"")
    return "empty.png"


def _text(data: Path, _: bytes) -> str:
    (data / "text.png").write_text("no picture")
    return "text.png"


def _pipe(data: Path, _: bytes) -> str:
    os.mkfifo(data / "pipe.png")
    return "pipe.png"


def _bomb(side: int) -> Bad:
    def make(data: Path, _: bytes) -> str:
        (data / f"bomb-{side}.png").write_bytes(huge_png(side))
        return f"bomb-{side}.png"

    return make


def _outside(data: Path, good: bytes) -> str:
    (data.parent / "secret.png").write_bytes(good)
    return "../secret.png"


def _outside_by_link(data: Path, good: bytes) -> str:
    (data.parent / "secret.png").write_bytes(good)
    (data / "link.png").symlink_to("../secret.png")
    return "link.png"


def _outside_by_folder(data: Path, good: bytes) -> str:
    (data.parent / "secret.png").write_bytes(good)
    (data / "door").symlink_to("..")
    return "door/secret.png"


def _absolute(data: Path, good: bytes) -> str:
    (data.parent / "secret.png").write_bytes(good)
    return str(data.parent / "secret.png")


BAD: dict[str, tuple[Bad, str]] = {
    "missing": (lambda *_: "missing.png", "no such file"),
    "cut": (_cut, "damaged or cut short"),
    "garbled": (_garbled, "damaged or cut short"),
    "empty": (_empty, "empty"),
    "text": (_text, "not a picture"),
    "pipe": (_pipe, "not a plain file"),
    "bomb": (_bomb(50_000), "decompression bomb"),
    "small bomb": (_bomb(10_000), "decompression bomb"),
    "outside": (_outside, "outside the image root"),
    "outside by a link": (_outside_by_link, "outside the image root"),
    "outside by a folder": (_outside_by_folder, "outside the image root"),
    "absolute": (_absolute, "outside the image root"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with five good pictures."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(5):
        draw_picture(CALIBRATION_SEED, number).save(folder / f"good-{number}.png")
    return folder


def write_rows(data: Path, pictures: list[str]) -> list[str]:
    """One question per picture; returns the options that read them."""
    rows = [{"image": name, "prompt": PROMPT, "answer": "two"} for name in pictures]
    (data / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = ["--data", str(data / "mine.jsonl"), "--out", str(data.parent / "run")]
    return ["cache", "build", "--model", "mini", "--per-class", "9", *where]


def test_bad_pictures_are_quarantined_by_name_and_the_rest_is_cached(data: Path) -> None:
    """A dozen ways to be bad between good pictures: the cache holds the good ones, whole, and no other."""
    good = sorted(path.name for path in data.glob("good-*"))
    bad = [make(data, (data / good[0]).read_bytes()) for make, _ in BAD.values()]
    assert exit_code(*write_rows(data, [*good[:2], *bad, *good[2:]])) == 0
    folder = RunFolder(data.parent / "run")
    quarantine = read_samples(folder).quarantine
    for row, name, (_, reason), line in zip(quarantine, bad, BAD.values(), range(3, 99), strict=False):
        assert row.where == f"mine.jsonl:{line}"
        assert name[:70] in row.reason  # longer names are shortened
        assert reason in row.reason
    assert len(quarantine) == len(BAD)
    with FeatureStore.open(folder.features) as store:
        assert store.digests == {image_digest(data / name) for name in good}
        assert store.verify().ok
    tell("unreadable pictures, bombs, paths out of the root", len(BAD), f"all quarantined by name, {len(good)} cached")


def test_a_picture_lost_after_the_samples_were_read_is_quarantined(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named with its reason, the rest goes on; back again, it stays out of this run."""
    options = write_rows(data, sorted(path.name for path in data.glob("good-*")))
    assert exit_code("label", *options[2:]) == 0
    lost = image_digest(data / "good-3.png")
    shutil.move(data / "good-3.png", data / "away")
    assert exit_code(*options) == 0
    assert "quarantined picture good-3.png: picture 'good-3.png': no such file" in capsys.readouterr().err
    shutil.move(data / "away", data / "good-3.png")
    assert exit_code(*options) == 0
    with FeatureStore.open(RunFolder(data.parent / "run").features) as store:
        assert len(store.digests) == 4
        assert lost not in store.digests


def test_a_picture_changed_after_the_samples_were_read_is_quarantined(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its features would go under the old one's digest: nothing is cached for it, the rest goes on."""
    options = write_rows(data, sorted(path.name for path in data.glob("good-*")))
    assert exit_code("label", *options[2:]) == 0
    digest = image_digest(data / "good-3.png")
    shutil.copy(data / "good-4.png", data / "good-3.png")
    assert exit_code(*options) == 0
    assert "good-3.png" in capsys.readouterr().err
    with FeatureStore.open(RunFolder(data.parent / "run").features) as store:
        assert len(store.digests) == 4
        assert digest not in store.digests
