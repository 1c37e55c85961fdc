"""A profile folder from elsewhere: whatever is wrong with a file is said of that file, and nothing else is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from profile_example import edited, example_profile, profile_fields

from claspkit.calib.cli import main
from claspkit.calib.export import export_profile
from claspkit.calib.verify import FolderError, verify_folder
from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import CorruptError, UsageError
from claspkit.profiles.files import write_profile
from claspkit.profiles.profile import Profile, seal
from claspkit.router.student import SHIPPED


def student_profile() -> Profile:
    """A profile that routes by the student that ships."""
    router = {
        "kind": "student",
        "rules_version": None,
        "file": "router.safetensors",
        "sha256": sha256_hex(SHIPPED.read_bytes()),
        "min_confidence": 0.5,
        "fallback": "default",
    }
    return seal(edited(profile_fields(), ("router",), router))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole folder whose profile routes by a student."""
    source = tmp_path / "source"
    source.mkdir()
    write_profile(student_profile(), source)
    (source / "router.safetensors").write_bytes(SHIPPED.read_bytes())
    export_profile(source, tmp_path / "deploy")
    return tmp_path / "deploy"


def problems(folder: Path) -> list[tuple[str, str]]:
    """(file, reason) of everything that is wrong."""
    found = verify_folder(folder).problems
    assert all(isinstance(problem, FolderError) and problem.exit_code == 7 for problem in found)
    return [(problem.file, problem.reason) for problem in found]


def list_again(folder: Path) -> None:
    """Write digests that fit the files as they are."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in {"SHA256SUMS", ".gitattributes"})
    lines = [f"{sha256_hex((folder / name).read_bytes())}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_an_exported_folder_is_whole(folder: Path, tmp_path: Path) -> None:
    """With a student and with rules, whole; the files and the profile are told."""
    found = verify_folder(folder)
    assert found.problems == []
    assert found.profile == student_profile()
    assert set(found.files) == {path.name for path in folder.iterdir()}
    export_profile(write_profile(example_profile(), tmp_path), tmp_path / "rules")
    assert problems(tmp_path / "rules") == []


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["profile.json", "schema.json", "README.md", "router.safetensors"])
def test_one_flipped_bit_is_found_in_its_file(folder: Path, name: str) -> None:
    """Whichever file it is in."""
    flip(folder / name)
    found = problems(folder)
    assert {file for file, _ in found} == {name}
    assert "digest" in found[0][1]


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("profile.json", lambda path: path.unlink(), "missing"),
        ("schema.json", lambda path: path.unlink(), "missing"),
        ("README.md", lambda path: path.unlink(), "missing"),
        ("router.safetensors", lambda path: path.unlink(), "missing"),
        ("SHA256SUMS", lambda path: path.unlink(), "missing"),
        ("more.txt", lambda path: path.write_text("x"), "does not list it"),
        ("sub", lambda path: path.mkdir(), "is a folder"),
        ("pipe", os.mkfifo, "no plain file"),
        ("odd\nname", lambda path: path.write_text("x"), "does not list it"),
    ],
)
def test_what_is_missing_or_too_much_is_named_once(
    folder: Path, name: str, damage: Callable[[Path], object], words: str
) -> None:
    """One problem, of that file."""
    damage(folder / name)
    ((file, reason),) = problems(folder)
    assert file == (name if "\n" not in name else repr(name))
    assert words in reason


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    """Not even to the same bytes; of what they point to nothing is told."""
    secret = tmp_path / "secret.json"
    secret.write_bytes((folder / "profile.json").read_bytes())
    (folder / "profile.json").unlink()
    (folder / "profile.json").symlink_to(secret)
    found = verify_folder(folder)
    assert "profile.json" not in found.files
    assert found.profile is None
    assert [(item.file, "link" in item.reason) for item in found.problems] == [("profile.json", True)]


def test_what_download_tools_leave_is_left_alone(folder: Path) -> None:
    """Their own folders, and attributes that a hub wrote."""
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n")
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("00  profile.json", "no digest and file name"),
        (f"{'0' * 64}  ../profile.json", "no digest and file name"),
        (f"{'0' * 64}  sub/profile.json", "no digest and file name"),
        (f"{'0' * 64}  profile.json", "again"),
        (f"{'0' * 64}  absent.bin", "missing"),
    ],
)
def test_a_list_of_digests_is_read_strictly(folder: Path, line: str, words: str) -> None:
    """Names only, each once, each there."""
    sums = folder / "SHA256SUMS"
    sums.write_text(sums.read_text() + line + "\n")
    ((_, reason),) = problems(folder)
    assert words in reason


def test_digests_that_fit_do_not_make_a_folder_good(folder: Path) -> None:
    """Another schema under our version, a changed profile, another profile's card, another router: each is found."""
    schema = json.loads((folder / "schema.json").read_text())
    del schema["required"]
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "README.md").write_text("# A card\n")
    (folder / "router.safetensors").write_bytes(b"\0" * 100)
    list_again(folder)
    assert [(file, reason.split(":")[0].split(",")[0]) for file, reason in problems(folder)] == [
        ("schema.json", "it calls itself version 1.3 and is another schema than that version's"),
        ("router.safetensors", "it is not the router that the profile names in router.sha256"),
        ("README.md", "it does not name this profile's id"),
    ]
    text = (folder / "profile.json").read_text()
    (folder / "profile.json").write_text(text.replace('"nominal": 192', '"nominal": 191'))
    list_again(folder)
    assert ("profile.json", "profile_id") in [(file, reason.split(":")[0]) for file, reason in problems(folder)]


def test_a_schema_of_another_minor_version_is_taken(folder: Path) -> None:
    """A folder of an older or newer release brings its own; what is no version of ours is refused."""
    schema = json.loads((folder / "schema.json").read_text())
    for identity, good in (("urn:claspkit:schema:clasp-profile:1.0", True), ("urn:other:1.0", False), (None, False)):
        (folder / "schema.json").write_text(json.dumps({**schema, "$id": identity}))
        list_again(folder)
        assert (problems(folder) == []) is good


def test_a_file_that_is_too_large_is_not_read_whole(folder: Path) -> None:
    """The limit is the profile's."""
    with (folder / "profile.json").open("r+b") as file:
        file.truncate(2**20 + 1)
    assert ("profile.json", "it is larger than the 1048576 bytes allowed") in problems(folder)


def test_the_command_names_every_file_and_ends_with_7(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each on stderr, the files on stdout, and the same as JSON."""

    def code(*arguments: str) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["verify", *arguments])
        return int(stop.value.code or 0)

    assert code(str(folder)) == 0
    assert "profile " in capsys.readouterr().out
    flip(folder / "schema.json")
    (folder / "README.md").unlink()
    assert code(str(folder)) == CorruptError.exit_code
    told = capsys.readouterr()
    assert "BAD" in told.out
    assert {line.split(": ")[1] for line in told.err.splitlines()[:2]} == {"schema.json", "README.md"}
    assert code(str(folder), "--json") == CorruptError.exit_code
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"] is False
    assert "README.md" in {problem["file"] for problem in facts["problems"]}
    assert code(str(folder / "nowhere")) == UsageError.exit_code
