"""``claspkit doctor``: what is there, what will not work and why, and an exit code that says so."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from claspkit.calib import doctor as doctor_module
from claspkit.calib.cli import main
from claspkit.calib.doctor import Check, examine, within
from claspkit.profiles.errors import CorruptError, ResourceError


def found(checks: list[Check]) -> dict[str, Check]:
    """Checks by name; each name once."""
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def test_this_machine_can_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, every check a line, every note with its reason; the JSON says the same."""
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as stop:
            main(["doctor", "--no-probe", "--out", str(tmp_path / "runs"), *options])
        assert not stop.value.code
    text, _, facts = capsys.readouterr().out.rpartition("\n{")
    told: dict[str, Any] = json.loads("{" + facts)
    assert told["ok"] is True
    names = [check["name"] for check in told["checks"]]
    assert {"python", "torch", "transformers", "image backend", "free disk", "lock", "models here"} <= set(names)
    assert not any(name.startswith(("disk speed", "speed of")) for name in names)
    for check in told["checks"]:
        assert check["value"] in text
        assert (check["status"] == "ok") == (check["why"] == "")
    assert list(tmp_path.iterdir()) == []


def test_disk_and_device_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the probes that `plan` uses; nothing is left behind."""
    monkeypatch.setattr(doctor_module, "probe_disk", lambda folder: (1e9, 2e9) if folder == tmp_path else None)
    monkeypatch.setattr(doctor_module, "probe_matmul", lambda device: 3e9)
    checks = found(examine(tmp_path / "runs", "cpu", probe=True))
    assert checks["disk speed"].value == "1000 MB/s written, 2000 MB/s read"
    assert checks["speed of cpu"].value.startswith("3 GFLOP/s")
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_cannot_be_used_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, with torch's reason."""
    monkeypatch.setattr(doctor_module, "probe_disk", lambda folder: (1e9, 1e9))
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    check = found(examine(tmp_path, "cuda", probe=True))["speed of cuda"]
    assert check.status == "fails"
    assert "'cuda' cannot be used" in check.why


@pytest.mark.parametrize(
    ("version", "bound", "inside"),
    [
        ("5.23.0", ">=5.16", True),
        ("5.9.0", ">=5.16", False),
        ("5.16", ">=5.16.0", True),
        ("6.0.0", "<6", False),
        ("5.99", "<6", True),
        ("2.13.0+cpu", ">=2.8", True),
        ("2.7.9rc1", ">=2.8", False),
        ("10", ">=9.3", True),
    ],
)
def test_bounds_are_numbers_and_not_text(version: str, bound: str, inside: bool) -> None:
    assert within(version, bound) is inside


def test_a_missing_or_too_old_package_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it; extras are nobody's need."""
    wanted = ["torch>=2.8", "transformers<6,>=5.16", "absent>=1", 'mypy>=1; extra == "dev"']
    versions = {"torch": "2.13.0+cpu", "transformers": "4.57.1"}

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor_module, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor_module, "version", version)
    checks = found(examine(tmp_path, "cpu", probe=False))
    assert checks["torch"].status == "ok"
    assert checks["transformers"].status == checks["absent"].status == "fails"
    assert checks["transformers"].why.endswith("pip install 'transformers<6,>=5.16'")
    assert "mypy" not in checks


def test_what_a_run_needs_of_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Little space and no locks: the command names both and ends with 5."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--no-probe", "--out", str(tmp_path)])
    assert stop.value.code == ResourceError.exit_code
    told = capsys.readouterr()
    assert "calibrating will not work here: free disk, lock" in told.err
    assert "No locks available" in told.out


def test_a_damaged_installation_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped router and the built-in model's processor are really read."""

    def damaged(path: Path) -> None:
        raise CorruptError(f"{path.name} is damaged")

    def broken(*_: object) -> None:
        raise ImportError("no image processor")

    monkeypatch.setattr(doctor_module, "read_student", damaged)
    monkeypatch.setattr(doctor_module, "load_processor", broken)
    checks = found(examine(tmp_path, "cpu", probe=False))
    assert checks["shipped router"].status == checks["image backend"].status == "fails"
    assert "student.safetensors is damaged" in checks["shipped router"].why
    assert "no image processor" in checks["image backend"].why
