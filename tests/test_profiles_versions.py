"""What the file of every schema version so far means: as recorded beside it, field by field."""

import json
import re
from typing import Any

import pytest
from house import ROOT
from pydantic import BaseModel

from claspkit.profiles.files import read_profile

GOLDEN = ROOT / "tests" / "golden"
VERSIONS = sorted(
    found[1] for path in GOLDEN.iterdir() if (found := re.fullmatch(r"profile-(\d+\.\d+)\.json", path.name))
)
SINCE = {"budget.scaling": "1.1", "selection.positions": "1.1", "intents": "1.2", "classes[].stages": "1.3"}
"""Field -> the version that brought it."""


def meaning(value: Any) -> Any:
    """What was read, with every field that a file may leave out said aloud."""
    if isinstance(value, BaseModel):
        return {name: meaning(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, tuple | list):
        return [meaning(one) for one in value]
    return value


def silent(file: Any, read: Any, at: str = "") -> dict[str, Any]:
    """Field -> its meaning, of those that the file does not have; anything else that differs fails."""
    if isinstance(file, dict) and isinstance(read, dict):
        assert set(file) <= set(read), at
        found = {f"{at}.{name}".removeprefix("."): read[name] for name in set(read) - set(file)}
        for name, value in file.items():
            found |= silent(value, read[name], f"{at}.{name}".removeprefix("."))
        return found
    if isinstance(file, list) and isinstance(read, list):
        found = {}
        for one, other in zip(file, read, strict=True):
            found |= silent(one, other, f"{at}[]")
        return found
    assert file == read, at
    return {}


def load(name: str) -> Any:
    """A golden file, as JSON."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_file_means_what_it_meant(version: str) -> None:
    """As recorded, field by field: a later field takes its old meaning, and a changed default fails here."""
    profile = read_profile(GOLDEN / f"profile-{version}.json")
    assert profile.schema_version == version
    assert json.loads(json.dumps(meaning(profile))) == load(f"as-read/profile-{version}.json")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recording_is_the_file_and_later_fields_at_rest(version: str) -> None:
    """It changes nothing that the file says, and adds no field that the file's version had to say."""
    added = silent(load(f"profile-{version}.json"), load(f"as-read/profile-{version}.json"))
    assert set(added) <= set(SINCE)
    assert {name for name, since in SINCE.items() if since > version} <= set(added)
    assert all(value in ("absolute", "keep", None) for value in added.values())
