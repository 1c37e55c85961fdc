"""Reading a hostile profile opens no file outside its folder, starts nothing and talks to nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from house import ROOT

from claspkit.profiles.errors import ProfileError, UsageError
from claspkit.profiles.files import read_profile


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process saw that read every row of the table and every strange router file."""
    command = [sys.executable, str(ROOT / "tests" / "audit_reader.py"), str(tmp_path_factory.mktemp("audit"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_watch_sees_a_file_outside_a_listing_and_an_import(audit: dict[str, Any]) -> None:
    """What is planted in the same process is noticed."""
    assert len(audit["planted"]) == 2
    assert audit["planted_import"]


def test_no_broken_profile_makes_the_reader_leave_the_folder(audit: dict[str, Any]) -> None:
    """Hundreds of rows, each a typed error; every file that was opened lies in the profile's folder."""
    assert set(audit["ends"]) == {"ProfileError"}
    assert audit["opened"] > audit["ends"]["ProfileError"] > 300
    assert audit["strayed"] == []
    assert audit["beyond"] == []


def test_no_router_file_leads_out_of_the_folder(audit: dict[str, Any]) -> None:
    """Links, a device, a pipe, a folder and nothing at all are refused without being followed."""
    assert len(audit["routers"]) == 9
    assert set(audit["routers"].values()) == {"ProfileError"}, audit["routers"]


@pytest.mark.parametrize("name", ["profile.json\x00.txt", "x" * 5000, "profile.json/profile.json"])
def test_a_path_that_cannot_be_one_is_a_usage_error(name: str, tmp_path: Path) -> None:
    """NUL, a name that is too long, a folder that is a file."""
    (tmp_path / "profile.json").write_text("{}")
    with pytest.raises((UsageError, ProfileError)) as caught:
        read_profile(tmp_path / name)
    assert "\x00" not in str(caught.value)
