"""Profiles of every schema version so far: each is read, shipped, checked, embedded and compared as it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from house import ROOT

from claspkit.calib.compare import compare_profiles
from claspkit.calib.export import export_profile
from claspkit.calib.verify import verify_folder
from claspkit.profiles.embedded import embed_profile, embedded_profile
from claspkit.profiles.files import read_profile, write_profile
from claspkit.profiles.profile import SCHEMA_VERSION, parse_profile

GOLDEN = sorted((ROOT / "tests" / "golden").glob("profile-*.json"))


def test_there_is_a_file_of_every_version() -> None:
    """A new minor version brings one, written by it."""
    major, minor = map(int, SCHEMA_VERSION.split("."))
    assert [path.stem for path in GOLDEN] == [f"profile-{major}.{number}" for number in range(minor + 1)]
    for path in GOLDEN:
        assert json.loads(path.read_text())["schema_version"] == path.stem.removeprefix("profile-")


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_a_file_of_any_version_goes_everywhere_unchanged(golden: Path, tmp_path: Path) -> None:
    """Its bytes and its id are those of the version that wrote it; only rules of another major version are refused."""
    profile = read_profile(golden)
    (tmp_path / "source").mkdir()
    written = write_profile(profile, tmp_path / "source")
    assert written.read_bytes() == golden.read_bytes()

    export_profile(golden, tmp_path / "deploy")
    assert (tmp_path / "deploy" / "profile.json").read_bytes() == golden.read_bytes()
    found = verify_folder(tmp_path / "deploy")
    assert found.profile == profile
    old_rules = not str(profile.router.rules_version).startswith("2.")
    assert [problem.file for problem in found.problems] == (["profile.json"] if old_rules else [])
    assert all("rules" in problem.reason for problem in found.problems)

    config = embed_profile(b'{"model_type": "llava"}', profile)
    assert parse_profile(embedded_profile(config)) == profile
    assert compare_profiles(profile, read_profile(tmp_path / "deploy"))["same"] is True
