"""Profiles on disk, hostile ones included."""

import json
import os
import time
from pathlib import Path

import pytest
from profile_example import MODEL, edited, example_profile, profile_fields, write_text, written

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import MismatchError, ProfileError, UsageError
from claspkit.profiles.files import check_model, read_profile, read_router_file, write_profile
from claspkit.profiles.profile import MAX_BYTES, RouterSpec, seal

TEXT = json.dumps(written(example_profile()))


def with_rho(token: str) -> str:
    """The profile with a raw token in place of the first class's rho."""
    assert TEXT.count('"rho": 0.8') == 2
    return TEXT.replace('"rho": 0.8', f'"rho": {token}', 1)


def test_written_profiles_are_read_from_file_and_folder(tmp_path: Path) -> None:
    profile = example_profile()
    assert write_profile(profile, tmp_path) == tmp_path / "profile.json"
    assert read_profile(tmp_path) == read_profile(str(tmp_path / "profile.json")) == profile
    other = write_profile(profile, tmp_path / "other.json")
    assert other.read_bytes() == (tmp_path / "profile.json").read_bytes()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (with_rho("NaN"), "NaN"),
        (with_rho("Infinity"), "Infinity"),
        (with_rho("-Infinity"), "Infinity"),
        (with_rho("1e999"), "too large"),
        (with_rho("9" * 400), "beyond 2\\*\\*63"),
        (with_rho("1" * 100_000), "beyond 2\\*\\*63"),
        (with_rho('0.8, "rho": 0.1'), "'rho' appears twice"),
        (TEXT[:-1] + ', "format": "clasp-profile"}', "'format' appears twice"),
        (TEXT.replace('"extensions": {}', '"extensions": {"x": ' + "[" * 40 + "]" * 40 + "}"), "nested deeper"),
        ('{"a":' * 150_000, "nested deeper"),
        ("[" * 900_000, "nested deeper"),
        (TEXT + " " * MAX_BYTES, "larger than"),
        (TEXT.encode("utf-16"), "not UTF-8"),
        (TEXT[: len(TEXT) // 2], "not JSON"),
        ("", "not JSON"),
        ("[]", "is a JSON object"),
        ("null", "is a JSON object"),
        ('"' + "x" * 900_000 + '"', "is a JSON object"),
    ],
    ids=lambda value: str(value)[-20:],
)
def test_a_hostile_file_is_one_quick_profile_error(text: str | bytes, says: str, tmp_path: Path) -> None:
    path = write_text(tmp_path, text)
    began = time.process_time()
    with pytest.raises(ProfileError, match=says) as caught:
        read_profile(path)
    assert time.process_time() - began < 1.0
    assert caught.value.field == "(file)"
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_profile_of_many_strange_keys_is_refused_quickly(tmp_path: Path) -> None:
    began = time.process_time()
    cases = ((60_000, "32768 values allowed"), (257, "257 entries, at most 256"), (256, "more fields are wrong"))
    for count, says in cases:
        path = write_text(tmp_path, json.dumps({f"k{number}": number for number in range(count)}))
        with pytest.raises(ProfileError, match=says):
            read_profile(path)
    assert time.process_time() - began < 2.0


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_profile(tmp_path / "none.json")
    with pytest.raises(UsageError, match="No such file"):
        read_profile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ProfileError, match="no regular file"):
        read_profile(tmp_path / "pipe")
    with pytest.raises(ProfileError, match="no regular file"):
        read_profile("/dev/zero")


def test_a_profile_too_large_to_read_is_not_written(tmp_path: Path) -> None:
    profile = seal(edited(profile_fields(), ("extensions",), {"x": ["y" * 1000] * 1036}))
    with pytest.raises(ProfileError, match="1048576 allowed"):
        write_profile(profile, tmp_path)
    assert list(tmp_path.iterdir()) == []


def student(file: str, data: bytes) -> RouterSpec:
    return RouterSpec(
        kind="student", rules_version=None, file=file, sha256=sha256_hex(data), min_confidence=0.5, fallback="default"
    )


def test_router_weights_are_read_from_the_profile_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    folder.mkdir()
    (folder / "good").write_bytes(b"weights")
    (tmp_path / "outside").write_bytes(b"weights")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "inner").symlink_to(folder / "good")
    assert read_router_file(student("good", b"weights"), folder) == b"weights"
    assert read_router_file(student("inner", b"weights"), folder) == b"weights"
    with pytest.raises(ProfileError, match=r"router\.file: .*leads out"):
        read_router_file(student("link", b"weights"), folder)
    with pytest.raises(ProfileError, match=r"router\.file: .*copy it"):
        read_router_file(student("none", b"weights"), folder)
    with pytest.raises(ProfileError, match=r"router\.sha256: .*changed"):
        read_router_file(student("good", b"other"), folder)
    with pytest.raises(UsageError, match="no file"):
        read_router_file(example_profile().router, folder)


def test_a_model_fits_by_its_facts_not_by_its_name() -> None:
    profile = example_profile()
    check_model(profile, MODEL.model_copy(update={"id": "elsewhere", "revision": "abc"}))
    with pytest.raises(MismatchError) as caught:
        check_model(profile, MODEL.model_copy(update={"vision_depth": 27, "fingerprint": "00" * 32}))
    assert "vision_depth: wanted 24, got 27" in str(caught.value)
    assert "fingerprint: wanted 'abab" in str(caught.value)
    assert "decoder_depth" not in str(caught.value)
