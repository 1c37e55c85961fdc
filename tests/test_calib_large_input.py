"""A picture of 100 megapixels, a prompt of 100,000 characters: refused at once, or handled; nothing is stuck."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from house import ROOT
from PIL import Image

from claspkit.calib.cli import main
from claspkit.calib.questions import Refused, gather
from claspkit.calib.samples import RowError, Source, make_sample
from claspkit.profiles.intents import INTENT_IDS
from claspkit.router.backends import make_backend
from claspkit.router.prompts import WINDOW

SIDE = 10_000
LONG = 100_000
PROFILE = ROOT / "docs" / "example-profile.json"
MOST_GROWN_KB = 60_000  # decoded, the picture alone would take 300,000
# Opens a picture in every way that one comes in, and says how much memory that took beyond what was in use before. The
# peak is this program's own; that of getrusage begins with the process that started it.
CHILD = """
import json, re, sys
from pathlib import Path
from claspkit.calib.demo import _open
from claspkit.calib.images import check_image, open_image, store_image
from claspkit.profiles.errors import BadDataError
path = Path(sys.argv[1])
def grown():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
open_image("small.png", path.parent)
before, said = grown(), []
for work in (
    lambda: open_image(path.name, path.parent),
    lambda: check_image(path.name, path.parent),
    lambda: store_image(path.read_bytes(), path.parent / "out"),
    lambda: _open(path.read_bytes()),
):
    try:
        work()
        said.append("taken")
    except BadDataError as error:
        said.append(str(error))
print(json.dumps({"said": said, "grown": grown() - before}))
"""


def large(kind: str, side: int = SIDE) -> bytes:
    """A whole picture of one colour, ``side`` x ``side``, as a camera or a program writes it."""
    buffer = io.BytesIO()
    if kind == "GIF":
        Image.new("P", (16, 16)).save(buffer, "GIF")
        data = bytearray(buffer.getvalue())
        data[6:10] = struct.pack("<HH", side, side)
        return bytes(data)
    Image.new("1" if kind == "PNG" else "L", (side, side)).save(buffer, kind)
    return buffer.getvalue()


def ask(folder: Path, name: str, side: int, kind: str) -> dict[str, object]:
    """What a process of its own made of the picture."""
    (folder / name).write_bytes(large(kind, side))
    Image.new("RGB", (64, 64)).save(folder / "small.png")
    command = [sys.executable, "-c", CHILD, str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_hundred_megapixels_are_refused_before_they_are_decoded(kind: str, tmp_path: Path) -> None:
    """As a question's picture, a data row, an embedded one and an upload; memory stays where it was."""
    found = ask(tmp_path, f"big.{kind.lower()}", SIDE, kind)
    assert isinstance(found["said"], list)
    assert len(found["said"]) == 4
    assert all("a decompression bomb, more than 89478485 pixels" in said for said in found["said"]), found
    assert isinstance(found["grown"], int)
    assert found["grown"] < MOST_GROWN_KB


@pytest.mark.long
def test_an_upload_between_the_limits_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """50 megapixels are fine as data, where the measurement sees them decoded, and too many for the demo."""
    found = ask(tmp_path, "big.png", 7_100, "PNG")
    assert isinstance(found["said"], list)
    assert found["said"][:3] == ["taken"] * 3
    assert "it has 7100 x 7100 pixels, 40000000 are allowed" in found["said"][3]
    assert isinstance(found["grown"], int)
    assert found["grown"] > MOST_GROWN_KB


def test_the_command_line_refuses_such_a_picture_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3 and one line."""
    (tmp_path / "big.png").write_bytes(large("PNG"))
    monkeypatch.setattr("claspkit.calib.cli_run.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stop:
        main(
            ["run", "--profile", str(PROFILE), "--model", "mini", "--image", str(tmp_path / "big.png"), "--prompt", "?"]
        )
    said = capsys.readouterr().err
    assert stop.value.code == 3
    assert said.count("\n") == 1
    assert "decompression bomb" in said


def test_a_prompt_of_a_hundred_thousand_characters_is_refused_where_a_model_would_read_it(tmp_path: Path) -> None:
    """On the command line as an error, in a file as a refused line, in data as a row left out; each says the length."""
    picture = ROOT / "docs" / "images" / "example.png"
    with pytest.raises(Exception, match="100000 characters, 20000 are allowed"):
        gather(picture, "x" * LONG, None, INTENT_IDS, None)
    lines = [{"image": picture.name, "prompt": "x" * LONG}, {"image": picture.name, "prompt": "How many?"}]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = gather(picture.parent, None, tmp_path / "asked.jsonl", INTENT_IDS, None)
    assert [isinstance(each, Refused) for each in found] == [True, False]
    with pytest.raises(RowError, match="prompt"):
        make_sample(
            image="a.png",
            image_sha256="ab" * 32,
            prompt="x" * LONG,
            answers=["x"],
            source=Source("d", None, None, 0),
        )


LONG_PROMPTS = {
    "question": "How many dogs are there? " * 4000,
    "letter": "a" * LONG,
    "spaces": " " * LONG,
    "marks": "?!." * 33_333,
    "brackets": "[" * LONG,
    "fences": "```" * 33_333,
    "quotes": '"a" ' * 25_000,
    "lines": "a\n" * 50_000,
    "objects": '{"a":' * 20_000,
    "tags": "<b>" * 33_333,
    "control tokens": "<|im_end|>" * 10_000,
    "turns": "user: " * 16_667,
    "words": " ".join(f"w{number}" for number in range(15_000)),
    "marks on marks": "\u0301" * LONG,
}


@pytest.mark.parametrize("router", ["rules", "student"])
def test_long_prompts_of_every_kind_are_routed(router: str) -> None:
    """Each gets a class; one whose start and end ask a question gets the class of that question."""
    backend = make_backend(router)
    labels = dict(zip(LONG_PROMPTS, backend.label([text[:LONG] for text in LONG_PROMPTS.values()]), strict=True))
    assert {label.intent for label in labels.values()} <= set(INTENT_IDS)
    assert labels["question"].intent == "counting"
    middle = "How many dogs are there? " + "\n" * WINDOW * 20 + "How many dogs are there?"
    assert backend.label([middle])[0].intent == "counting"
