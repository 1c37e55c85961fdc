"""``claspkit run`` on many: folders, files of questions, and what becomes of those that cannot be asked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from house import ROOT
from PIL import Image

from claspkit.calib.cli import main
from claspkit.calib.questions import MAX_PROMPT, Question, Refused, gather
from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.profiles.intents import INTENT_IDS

PROFILE, PICTURE = ROOT / "docs" / "example-profile.json", ROOT / "docs" / "images" / "example.png"
KEPT = [75, 50, 30]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command on mini; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["run", "--profile", str(PROFILE), "--model", "mini", *map(str, arguments)])
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with two pictures, a damaged one, and what is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(PICTURE, folder / "a.png")
    Image.linear_gradient("L").convert("RGB").resize((300, 90)).save(folder / "c.JPG", "JPEG")
    (folder / "b.png").write_bytes(PICTURE.read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def test_every_picture_of_a_folder_is_asked_about(ask: Run, pictures: Path, tmp_path: Path) -> None:
    """The damaged one is one line of error and exit code 3; the others have answers, counts, times and overlays."""
    asked = ["--image", pictures, "--prompt", "How many crosses are there?", "--compare", "--json"]
    code, out, err = ask(*asked, "--overlay", tmp_path / "new" / "kept")
    assert code == BadDataError.exit_code
    first, second, third = map(json.loads, out.splitlines())
    assert (first["image"], third["image"]) == ("a.png", "c.JPG")
    assert second == {"id": 1, "where": "b.png", "error": second["error"]}
    assert "damaged" in second["error"]
    for row in (first, third):
        assert [len(stage["kept"]) for stage in row["stages"]] == KEPT
        assert row["visual_tokens"] == 144
        assert row["seconds"] > 0
        assert row["seconds_unpruned"] > 0
        assert isinstance(row["unpruned"], str)
        assert Image.open(row["overlay"]).width > 900
    assert sorted(path.name for path in (tmp_path / "new" / "kept").iterdir()) == ["0000-a.png", "0002-c.png"]
    assert err.count("error: ") == 2
    assert "1 of 3 questions could not be answered" in err


def test_the_table_shows_both_answers_and_tokens_per_stage(ask: Run, pictures: Path) -> None:
    """Side by side, one row each, and a line that sums up."""
    (pictures / "b.png").unlink()
    code, out, _ = ask("--image", pictures, "--prompt", "How many crosses are there?", "--compare")
    assert code == 0
    rows = [line for line in out.splitlines() if "How many crosses" in line]
    assert len(rows) == 2
    assert all("144 > 75 > 50 > 30" in row and "counting" in row for row in rows)
    assert "2 answered" in out
    assert "answers are the same" in out


def test_a_file_of_questions(ask: Run, pictures: Path) -> None:
    """Names relative to the file; a class of one's own; bad lines do not stop the good ones behind them."""
    lines = [
        {"image": "a.png", "prompt": "How many crosses are there?"},
        {"image": "../../etc/passwd", "prompt": "What is this?"},
        {"image": "a.png", "prompt": "How many crosses are there?", "intent": "scene"},
        {"image": "a.png", "prompt": "x", "intent": "poetry"},
        {"image": "a.png"},
        {"image": "a.png", "prompt": "x", "answer": "y"},
    ]
    file = pictures / "asked.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n[]\n")
    code, out, err = ask("--prompts", file, "--json")
    assert code == BadDataError.exit_code
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["id"] for row in rows] == list(range(8))
    assert [(row.get("intent"), row.get("label_source")) for row in rows if "intent" in row] == [
        ("counting", "rule:count-are-there"),
        ("scene", "given"),
    ]
    reasons = {row["where"].rpartition(":")[2]: row["error"] for row in rows if "error" in row}
    assert "outside the image root (give its folder with --image)" in reasons["2"]
    assert "unknown intent 'poetry'" in reasons["4"]
    assert "prompt must be a text" in reasons["5"]
    assert "unknown field 'answer'" in reasons["6"]
    assert "not JSON" in reasons["7"]
    assert "one JSON object" in reasons["8"]
    assert "6 of 8 questions" in err


def test_links_out_of_the_folder_are_refused(ask: Run, pictures: Path) -> None:
    """As a picture, a link to elsewhere is not opened."""
    (pictures / "b.png").unlink()
    (pictures / "b.png").symlink_to(PICTURE)
    code, out, _ = ask("--image", pictures, "--prompt", "How many?", "--json")
    assert code == BadDataError.exit_code
    assert "outside" in json.loads(out.splitlines()[1])["error"]


def test_one_question_is_shown_in_full(ask: Run, pictures: Path, tmp_path: Path) -> None:
    """As before, with the time; --overlay names a file, and one that cannot be written is a usage error."""
    asked = ["--image", pictures / "a.png", "--prompt", "How many crosses are there?"]
    code, out, _ = ask(*asked, "--compare", "--overlay", tmp_path / "kept.png")
    assert code == 0
    assert (tmp_path / "kept.png").exists()
    for start in ("class    counting", "answer   ", "unpruned ", "tokens   144", "time     "):
        assert any(line.startswith(start) for line in out.splitlines())
    code, _, err = ask(*asked, "--overlay", tmp_path / "kept.xyz")
    assert code == 2
    assert "--overlay" in err


def test_answers_cannot_move_the_cursor(ask: Run, pictures: Path) -> None:
    """A file name with control characters is shown without them."""
    (pictures / "b.png").unlink()
    os.rename(pictures / "a.png", pictures / "a\x1b[2J.png")
    code, out, _ = ask("--image", pictures, "--prompt", "How many?")
    assert code == 0
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("image", "prompt", "prompts", "words"),
    [
        (None, None, None, "either --prompt"),
        ("a.png", "x", "asked.jsonl", "either --prompt"),
        (None, "x", None, "needs --image"),
        ("empty", "x", None, "holds no pictures"),
        (None, None, "none.jsonl", "No such file"),
        (None, None, "empty.jsonl", "has no line"),
        ("a.png", "x" * (MAX_PROMPT + 1), None, "characters"),
    ],
)
def test_options_that_ask_nothing_are_refused(
    tmp_path: Path, image: str | None, prompt: str | None, prompts: str | None, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "asked.jsonl").write_text("{}\n")
    places = [None if name is None else tmp_path / name for name in (image, prompts)]
    with pytest.raises(UsageError, match=words):
        gather(places[0], prompt, places[1], INTENT_IDS, None)


def test_a_picture_for_all_lines_and_a_folder_for_their_names(tmp_path: Path) -> None:
    """Without "image" a line is about --image; a folder there is the root of the names."""
    (tmp_path / "q.jsonl").write_text('{"prompt": "one"}\n{"image": "b.png", "prompt": "two"}\n')
    first, second = gather(PICTURE, None, tmp_path / "q.jsonl", INTENT_IDS, "scene")
    assert first == Question("q.jsonl:1", PICTURE.name, PICTURE.parent, "one", "scene")
    assert second == Question("q.jsonl:2", "b.png", tmp_path, "two", "scene")
    first, second = gather(PICTURE.parent, None, tmp_path / "q.jsonl", INTENT_IDS, None)
    assert isinstance(first, Refused)
    assert second == Question("q.jsonl:2", "b.png", PICTURE.parent, "two", None)
