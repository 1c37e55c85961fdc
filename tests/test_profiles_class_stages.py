"""Classes with kept tokens of their own: profile schema 1.3, and what older files go on meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from profile_example import edited, example_profile, profile_fields, written

from claspkit.profiles.errors import ProfileError
from claspkit.profiles.files import profile_schema, read_profile, write_profile
from claspkit.profiles.intents import INTENT_IDS
from claspkit.profiles.profile import parse_profile, seal
from claspkit.runtime.plan import PrunePlan

GOLDEN = Path(__file__).parent / "golden" / "profile-1.2.json"
FIELDS = profile_fields()
OWN = [{"after_layer": 2, "keep": 238}, {"after_layer": 6, "keep": 108}, {"after_layer": 15, "keep": 60}]


def with_stages(stages: Any, number: int = 3) -> dict[str, Any]:
    """Fields of a profile whose class ``number`` has stages of its own."""
    return edited(FIELDS, ("classes", number, "stages"), stages)


def test_a_file_of_version_1_2_is_read_and_written_unchanged(tmp_path: Path) -> None:
    """One made by a calibration of mini before schema 1.3: the same id, the same bytes, no stages of any class."""
    old = read_profile(GOLDEN)
    assert (old.schema_version, len(old.classes)) == ("1.2", 9)
    assert all(spec.stages is None for spec in old.classes)
    assert old.profile_id == json.loads(GOLDEN.read_text(encoding="utf-8"))["profile_id"]
    assert write_profile(old, tmp_path).read_bytes() == GOLDEN.read_bytes()


def test_a_profile_without_them_is_one_of_1_2() -> None:
    """What uses nothing new keeps version, content and id; a class that spells "none" out is the same profile."""
    assert example_profile().schema_version == "1.2"
    assert "stages" not in written(example_profile())["classes"][3]
    assert seal(with_stages(None)) == example_profile()


def test_own_stages_are_kept_and_sealed() -> None:
    """Version 1.3, written and read back, part of the id, valid by the schema."""
    profile = seal(with_stages(OWN))
    assert profile.schema_version == "1.3"
    fields = written(profile)
    assert fields["classes"][3]["stages"] == OWN
    assert [number for number, row in enumerate(fields["classes"]) if "stages" in row] == [3]
    assert parse_profile(json.dumps(fields).encode()) == profile
    assert profile.profile_id != example_profile().profile_id
    validator = jsonschema.Draft202012Validator(json.loads(profile_schema()))
    assert validator.is_valid(fields)
    assert not validator.is_valid(edited(fields, ("classes", 3, "stages"), []))


@pytest.mark.parametrize(
    ("stages", "field", "says"),
    [
        (OWN[:2], "classes[3].stages", r"after layers \[2, 6\], those of the budget after \[2, 6, 15\]"),
        ([{**OWN[0], "after_layer": 1}, *OWN[1:]], "classes[3].stages", "they stand after layers"),
        ([*OWN[:2], {"after_layer": 15, "keep": 109}], "classes[3].stages", "109 tokens cannot be kept of the 108"),
        ([{**OWN[0], "keep": 577}, *OWN[1:]], "classes[3].stages", "577 tokens cannot be kept of the 576"),
        ([{**OWN[0], "keep": 0}, *OWN[1:]], "classes[3].stages[0].keep", "greater than or equal to 1"),
        ([{**OWN[0], "share": 0.5}, *OWN[1:]], "classes[3].stages[0].share", "Extra inputs"),
        ([], "classes[3].stages", "at least 1 item"),
        ("2:238", "classes[3].stages", "valid tuple|valid array"),
    ],
)
def test_what_the_model_cannot_run_is_refused(stages: Any, field: str, says: str) -> None:
    """The field is named; mean compute is nobody's to check but the calibration's."""
    with pytest.raises(ProfileError, match=says) as caught:
        seal(with_stages(stages))
    assert caught.value.field == field


def test_the_runtime_takes_them_row_by_row() -> None:
    """A class with stages gives its rows their numbers; the others take those of the budget."""
    profile = seal(with_stages(OWN))
    plan = PrunePlan.from_profile(profile, [INTENT_IDS[3], INTENT_IDS[0], INTENT_IDS[3]])
    assert plan.stages == ((2, 300), (6, 200), (15, 118))
    assert [row.keeps for row in plan.rows] == [(238, 108, 60), None, (238, 108, 60)]
    assert plan.keeps([576] * 3, [1] * 3) == [[238, 300, 238], [108, 200, 108], [60, 118, 60]]
