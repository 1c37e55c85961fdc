"""What ``claspkit evaluate`` refuses before it asks anything, and what ``--way`` makes of a profile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluations import PROFILE
from house import ROOT

from claspkit.calib.cli import main
from claspkit.calib.evaluate_ways import WAYS, read_ways, varied
from claspkit.calib.space import DEFAULT_RHO
from claspkit.profiles.errors import BadDataError, MismatchError, UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.profile import Profile, seal

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """One row about a picture, beside an empty file."""
    (tmp_path / "empty.jsonl").write_bytes(b"")
    picture = Path(PROFILE).parent / "images" / "example.png"
    (tmp_path / "a.png").write_bytes(picture.read_bytes())
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"image": "a.png", "prompt": "How many crosses are there?", "answer": "2"}) + "\n")
    return path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line; returns exit code and stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "--out", str(tmp_path / "out"), *map(str, arguments)])
        return int(stop.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--data", "nothing-here"], UsageError.exit_code, "neither a file, nor a folder, nor a data set id"),
        (["--data", "mixture"], UsageError.exit_code, "what calibrations draw from"),
        (["--data", "{empty}"], BadDataError.exit_code, "the file is empty"),
        (["--data", "{rows}", "--data", "{rows}"], UsageError.exit_code, "more than once"),
        (["--data", "{rows}", "--way", "magic"], UsageError.exit_code, "--way magic does not exist"),
        (["--data", "{rows}", "--way", "rho=2"], UsageError.exit_code, "from 0 to 1"),
        (["--data", "{rows}", "--way", "rho=0_1"], UsageError.exit_code, "from 0 to 1"),
        (["--data", "lmms-lab/POPE", "--data", "gone.jsonl"], BadDataError.exit_code, "gone.jsonl: there is no"),
        (["--data", "{rows}", "--way", "layers=3,99"], UsageError.exit_code, "numbers from 0"),
        (["--data", "{rows}", "--way", "rho=nobody:0.3"], UsageError.exit_code, "unknown intent 'nobody'"),
        (["--data", "{rows}", "--dtype", "int3"], UsageError.exit_code, "--dtype int3 does not exist"),
        (["--data", "{rows}", "--profile", str(PROFILE)], UsageError.exit_code, "the same profile"),
    ],
)
def test_what_cannot_be_done_is_refused(options: list[str], code: int, reason: str, rows: Path, command: Run) -> None:
    """Before the model is asked anything."""
    empty = rows.with_name("empty.jsonl")
    empty.write_bytes(b"")
    given = [option.format(rows=rows, empty=empty) for option in options]
    got, err = command("--profile", PROFILE, "--model", "mini", *given)
    assert (got, reason in " ".join(err.split())) == (code, True), err


def test_a_profile_of_another_model_is_refused(rows: Path, command: Run, tmp_path: Path) -> None:
    """Exit code 4, naming the fields."""
    fields = read_profile(PROFILE).model_dump()
    other = seal({**fields, "model": {**fields["model"], "fingerprint": "ab" * 32}})
    path = tmp_path / "other.json"
    path.write_text(other.model_dump_json())
    code, err = command("--profile", path, "--model", "mini", "--data", rows)
    assert code == MismatchError.exit_code
    assert "fingerprint" in err


def test_the_variants_change_what_they_name() -> None:
    """And nothing else of the profile."""
    (_, way) = read_ways([PROFILE], [])
    profile = way.profile
    assert profile is not None
    intent = profile.intent_ids[0]
    stock = (profile.model.default_layer,)

    def changed(variant: str) -> Profile:
        made = varied(way, variant)
        assert made.profile is not None
        assert made.profile.budget == profile.budget
        assert made.profile.router == profile.router
        assert (made.name, made.origin) == (f"{way.name} {variant}", profile.profile_id)
        return made.profile

    for spec in changed("default").classes:
        assert (spec.layers, spec.weights, spec.rho, spec.stages) == (stock, (1.0,), DEFAULT_RHO, None)
    for before, spec in zip(profile.classes, changed("fusion").classes, strict=True):
        assert (spec.layers, spec.weights, spec.rho) == (before.layers, before.weights, DEFAULT_RHO)
    for before, spec in zip(profile.classes, changed("ratio").classes, strict=True):
        assert (spec.layers, spec.weights, spec.rho) == (stock, (1.0,), before.rho)
    assert {spec.rho for spec in changed("rho=0.3").classes} == {0.3}
    one = changed(f"rho={intent}:0.3")
    assert [spec.rho for spec in one.classes][1:] == [spec.rho for spec in profile.classes][1:]
    assert one.for_intent(intent).rho == 0.3
    for spec in changed("layers=1,3").classes:
        assert (spec.layers, spec.weights) == ((1, 3), (0.5, 0.5))
    assert changed("iterations=9").selection.kmeans_iterations == 9


def test_every_way_is_documented() -> None:
    """A row of the table without a row in docs/evaluating.md fails."""
    page = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
    assert [way for way in WAYS if f"| `{way}" not in page] == []
