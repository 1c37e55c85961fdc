"""Each field of the profile broken in several ways by hand: the error names it, and nothing else goes wrong."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broken_rows import BUDGET, FILE, MODEL, ROUTER, Row, valid
from broken_rows_more import CALIBRATION, CLASSES, INTENTS
from house import ROOT
from profile_example import write_text

from claspkit.profiles.errors import ProfileError
from claspkit.profiles.files import read_profile

PARTS = {
    "file": FILE,
    "model": MODEL,
    "router": ROUTER,
    "budget": BUDGET,
    "classes": CLASSES,
    "calibration": CALIBRATION,
    "intents": INTENTS,
}
ROWS = [row for rows in PARTS.values() for row in rows]
LEAST = 300
SCHEMA: dict[str, Any] = json.loads((ROOT / "profiles" / "schema.json").read_text(encoding="utf-8"))


def leaves(schema: dict[str, Any], here: str = "") -> Iterator[str]:
    """Every field of the schema that has no field inside, ``classes[].layers[]``."""
    if schema.get("$ref", "").endswith("JsonValue"):
        yield here
        return
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for other in schema.get("anyOf", ()):
        if other.get("type") != "null":
            yield from leaves(other, here)
            return
    if "properties" in schema:
        for name, inner in schema["properties"].items():
            yield from leaves(inner, f"{here}.{name}".removeprefix("."))
    elif "items" in schema:
        yield from leaves(schema["items"], f"{here}[]")
    elif "patternProperties" in schema:
        for inner in schema["patternProperties"].values():
            yield from leaves(inner, f"{here}.*")
    else:
        yield here


def field_of(row: Row) -> str:
    """The field of the schema that a row breaks."""
    place = re.sub(r"\[\d+\]", "[]", row.where)
    return re.sub(r"^(extensions|calibration\.(?:label_sources|environment))\..*$", r"\1.*", place, flags=re.DOTALL)


def test_there_are_hundreds_of_rows_and_every_field_has_several() -> None:
    """At least two ways to be wrong for each of the fields, one of them a wrong type, a bound or an absence."""
    counts = Counter(map(field_of, ROWS))
    fields = set(leaves(SCHEMA))
    assert len(fields) > 60
    assert {name for name in fields if counts[name] < 2} == set()
    assert len({(row.base, row.where, repr(row.value)) for row in ROWS}) == len(ROWS) >= LEAST


@pytest.mark.parametrize("base", ["plain", "student", "own", "stages", "before"])
def test_what_the_rows_are_made_from_is_valid(base: str, tmp_path: Path) -> None:
    """Without the damage, the file is read."""
    untouched = Row(base, "format", "clasp-profile", "")
    assert json.loads(untouched.text()) == valid(base)
    read_profile(write_text(tmp_path, untouched.text()))


def refusal(folder: Path) -> ProfileError | None:
    """What reading a folder ends in; None where the profile is taken."""
    try:
        read_profile(folder)
    except ProfileError as error:
        return error
    return None


@pytest.mark.parametrize("part", PARTS)
def test_the_error_of_every_row_names_its_field(part: str, tmp_path: Path) -> None:
    """One typed error of the profile, short, in one line, for a file whose id fits its content."""
    odd = []
    for row in PARTS[part]:
        write_text(tmp_path, row.text())
        error = refusal(tmp_path)
        said = str(error)
        if error is None or error.field != row.field or not said.startswith(f"{row.field}: "):
            odd.append(f"{row.where} = {row.value!r:.60}: {said[:120]}, not {row.field}")
        assert len(said) < 800
        assert not any(mark in said for mark in "\x1b\x00\x07\n\r\x9b\u202e")
    assert odd == []
