"""docs/quickstart.md, command by command, as a new user would copy it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house import ROOT

from claspkit.profiles.files import read_profile

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
MADE_BEFORE = "make setup"
ENDS_BY_HAND = "claspkit demo"


def copied(kind: str, text: str, folder: Path) -> str:
    """What a block prints; it has to end well."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euc", text] if kind == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
def test_every_command_of_the_quickstart_works(tmp_path: Path) -> None:
    """In its order, but those that make the environment, and the page that is ended by hand (tests of its own)."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    run = [(kind, text) for kind, text in BLOCKS if MADE_BEFORE not in text and ENDS_BY_HAND not in text]
    assert len(run) == len(BLOCKS) - 2
    printed = "".join(copied(kind, text, tmp_path) for kind, text in run)
    profile = read_profile(tmp_path / "deploy")
    assert profile.profile_id == read_profile(tmp_path / "runs" / "first" / "profile").profile_id
    assert profile.budget.nominal == 16
    changed = [one.intent for one in profile.classes if one.decision == "searched"]
    assert f"of 9 classes changed ({', '.join(changed)})" in " ".join(printed.split())
    assert re.search(r"^How many crosses are there\? \S+$", printed, flags=re.MULTILINE)
    for name in ("kept.png", "mine.png", "runs/first/report.html", "deploy/SHA256SUMS"):
        assert (tmp_path / name).stat().st_size > 0
