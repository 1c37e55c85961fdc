"""Thousands of damaged profiles: each is refused with the field that is wrong, or valid by the format's rules."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import profile_oracle
import pytest
from house import ROOT

from claspkit.profiles.errors import ProfileError
from claspkit.profiles.files import read_profile
from claspkit.profiles.profile import Profile

EVERYDAY, WHOLE = 600, 20_000
SHOWN = 80


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generator that the benchmark times, found as when that is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("_broken_profiles")


def shown(place: tuple[str | int, ...]) -> str:
    """A place as an error names it."""
    field = ""
    for part in place:
        if isinstance(part, int):
            field += f"[{part}]"
        else:
            field += "." + repr(part[:SHOWN])[1:-1] + ("..." if len(part) > SHOWN else "")
    return field.removeprefix(".")


def judge(case: Any, folder: Path, places: Any) -> str:
    """Read one case; AssertionError for a wrong answer, else what the answer was."""
    (folder / "profile.json").write_bytes(case.data)
    try:
        found: Profile | ProfileError = read_profile(folder)
    except ProfileError as error:
        found = error
    fields = profile_oracle.load(case.data)
    if isinstance(fields, str):
        assert isinstance(found, ProfileError), f"taken, though {fields}"
        assert found.field == "(file)", f"{found} where no JSON can be read: {fields}"
        return "file"
    wrong = profile_oracle.problem(fields)
    if isinstance(found, ProfileError):
        assert wrong is not None, f"refused, though it is valid: {found}"
        known = {"(file)", *map(shown, places(case.fields)), *map(shown, places(fields))}
        assert found.field in known, f"{found.field!r} is no field of the file: {found}"
        assert len(str(found)) < 1000
        assert not any(mark in str(found) for mark in "\x1b\x00\x07\n")
        return "field"
    assert wrong is None, f"taken, though {wrong}"
    assert json.loads(found.model_dump_json()) == profile_oracle.meaning(fields)
    if not case.sealed:
        assert found.profile_id == case.fields["profile_id"], "another content with the id of the first"
    return "taken"


def judge_all(cases: Any, numbers: range, folder: Path) -> dict[str, int]:
    """Outcome -> how many; the first wrong answer fails, with the case's number."""
    counts = {"file": 0, "field": 0, "taken": 0}
    for number in numbers:
        case = cases.broken_profile(number)
        try:
            counts[judge(case, folder, cases.places)] += 1
        except AssertionError as error:
            raise AssertionError(f"case {number} ({case.base}, {case.steps}): {error}") from error
    return counts


def test_what_the_cases_start_from_is_valid(cases: Any, tmp_path: Path) -> None:
    """Reader and oracle agree on every base, and that each of them uses what it was chosen for."""
    for name, fields in cases.bases().items():
        (tmp_path / "profile.json").write_bytes(json.dumps(fields).encode())
        assert json.loads(read_profile(tmp_path).model_dump_json()) == fields
        assert profile_oracle.problem(fields) is None, name
    versions = {fields["schema_version"] for fields in cases.bases().values()}
    assert versions == {"1.0", "1.1", "1.2", "1.3"}


def test_the_cases_are_the_same_everywhere(cases: Any) -> None:
    """One seed is one sequence, another one is another, and few cases are no damage at all."""
    first = [cases.broken_profile(number).data for number in range(40)]
    assert first == [cases.broken_profile(number).data for number in range(40)]
    assert len({*first, *(cases.broken_profile(number, 1).data for number in range(40))}) > 75


def test_the_judge_finds_a_wrong_answer(cases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes everything, one that refuses everything, and one that names what is not there."""
    case = cases.broken_profile(1)
    valid = next(iter(cases.bases().values()))
    good = cases.Broken("", valid, (), json.dumps(valid).encode(), False)
    torn = cases.Broken("", valid, (), json.dumps(valid).encode()[:-9], False)
    assert judge(good, tmp_path, cases.places) == "taken"
    assert judge(torn, tmp_path, cases.places) == "file"
    profile = read_profile(ROOT / "docs" / "example-profile.json")
    with monkeypatch.context() as patched:
        patched.setattr(f"{__name__}.read_profile", lambda _: profile)
        for wrong in (case, torn, good):
            with pytest.raises(AssertionError):
                judge(wrong, tmp_path, cases.places)
    for field in ("model.nothing", "(file)"):

        def refuse(_: Path, field: str = field) -> Profile:
            raise ProfileError(field, "no")

        with monkeypatch.context() as patched:
            patched.setattr(f"{__name__}.read_profile", refuse)
            with pytest.raises(AssertionError):
                judge(good, tmp_path, cases.places)


def test_the_benchmark_counts_what_it_reads(cases: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One row per answer, together as many as there are cases, none of them another exception."""
    import_module("profile_fuzz").main(["--cases", "60", "--json"])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    answers = ("refused, naming a field", "refused as a file", "taken", "another exception")
    assert sum(rows[name]["value"] for name in answers) == rows["cases"]["value"] == 60
    assert rows["another exception"]["holds"] is True
    assert sum(name.startswith("slowest, case ") for name in rows) == 1


def test_hundreds_of_broken_profiles_are_refused_by_field_or_valid(cases: Any, tmp_path: Path) -> None:
    """The first of the cases."""
    counts = judge_all(cases, range(EVERYDAY), tmp_path)
    assert min(counts.values()) > 10


@pytest.mark.long
def test_twenty_thousand_broken_profiles_are_refused_by_field_or_valid(cases: Any, tmp_path: Path) -> None:
    """All of them, none with another exception."""
    counts = judge_all(cases, range(WHOLE), tmp_path)
    assert sum(counts.values()) == WHOLE
    assert counts["taken"] < WHOLE / 10
