"""Sealing, reading and refusing profiles, field by field."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from house import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_example import MODEL, before_decoder_fields, edited, example_profile, profile_fields, written

from claspkit.profiles.canonical import canonical_json, digest
from claspkit.profiles.errors import ClaspError, ProfileError, UsageError
from claspkit.profiles.files import profile_schema, read_profile, write_profile
from claspkit.profiles.intents import INTENT_IDS
from claspkit.profiles.profile import Profile, parse_profile, seal, softmax_weights

FIELDS = profile_fields()
FILE = written(example_profile())

# (where, value, field named in the error)
Case = tuple[tuple[str | int, ...], Any, str]
WRONG: list[Case] = [
    (("format",), "clasp_profile", "format"),
    (("schema_version",), "2.0", "schema_version"),
    (("schema_version",), "1.00", "schema_version"),
    (("schema_version",), 1.0, "schema_version"),
    (("layer_index_convention",), "1 = first block", "layer_index_convention"),
    (("taxonomy",), "00" * 32, "taxonomy"),
    (("profile_id",), "0" * 63, "profile_id"),
    (("surprise",), 1, "surprise"),
    (("model",), None, "model"),
    (("model", "surprise"), 1, "model.surprise"),
    (("model", "family"), "", "model.family"),
    (("model", "id"), "x" * 257, "model.id"),
    (("model", "id"), "\x1b[31mred", "model.id"),
    (("model", "vision_depth"), "24", "model.vision_depth"),
    (("model", "vision_depth"), True, "model.vision_depth"),
    (("model", "vision_depth"), 24.0, "model.vision_depth"),
    (("model", "vision_depth"), 512, "model.vision_depth"),
    (("model", "vision_depth"), 0, "model.vision_depth"),
    (("model", "decoder_width"), 2**40, "model.decoder_width"),
    (("model", "visual_tokens"), 0, "model.visual_tokens"),
    (("model", "visual_tokens"), 100, "budget.stages"),
    (("model", "default_layer"), -2, "model.default_layer"),
    (("model", "default_layer"), 25, "model.default_layer"),
    (("model", "fingerprint"), "AB" * 32, "model.fingerprint"),
    (("model", "fingerprint"), "ab" * 32 + "\n", "model.fingerprint"),
    (("model", "revision"), 5, "model.revision"),
    (("budget", "nominal"), 577, "budget.nominal"),
    (("budget", "stages"), [], "budget.stages"),
    (("budget", "stages"), FIELDS["budget"]["stages"] * 3, "budget.stages"),
    (("budget", "stages", 0, "after_layer"), 0, "budget.stages"),
    (("budget", "stages", 0, "after_layer"), -2, "budget.stages[0].after_layer"),
    (("budget", "stages", 1, "after_layer"), -1, "budget.stages"),
    (("budget", "stages", 0, "after_layer"), -1, "selection.saliency"),  # "text" is attention inside the decoder
    (("budget", "stages", 2, "after_layer"), 31, "budget.stages"),
    (("budget", "stages", 1, "after_layer"), 2, "budget.stages"),
    (("budget", "stages", 0, "keep"), 0, "budget.stages[0].keep"),
    (("budget", "stages", 0, "keep"), 577, "budget.stages"),
    (("budget", "stages", 1, "keep"), 301, "budget.stages"),
    (("budget", "stages", 0, "extra"), 1, "budget.stages[0].extra"),
    (("budget", "mean_tokens_leaving"), 100.0, "budget.mean_tokens_leaving"),
    (("budget", "mean_tokens_entering"), 192.4, "budget.mean_tokens_entering"),
    (("budget", "scaling"), "relative", "budget.scaling"),
    (("budget", "scaling"), None, "budget.scaling"),
    (("selection", "saliency"), "attention", "selection.saliency"),
    (("selection", "positions"), "drop", "selection.positions"),
    (("selection", "positions"), 1, "selection.positions"),
    (("selection", "features"), "hidden", "selection.features"),
    (("selection", "kmeans_iterations"), 10**6, "selection.kmeans_iterations"),
    (("selection", "tie_tolerance"), -1e-6, "selection.tie_tolerance"),
    (("router", "kind"), "oracle", "router.kind"),
    (("router", "rules_version"), None, "router.rules_version"),
    (("router", "file"), "router.safetensors", "router.file"),
    (("router", "sha256"), "ab" * 32, "router.sha256"),
    (("router", "min_confidence"), 1.5, "router.min_confidence"),
    (("router", "fallback"), "defau1t", "router.fallback"),
    (("classes",), FIELDS["classes"][:8], "classes"),
    (("classes",), [*FIELDS["classes"], FIELDS["classes"][0]], "classes"),
    (("classes",), FIELDS["classes"][::-1], "classes[0].intent"),
    (("classes", 1, "intent"), "object", "classes[1].intent"),
    (("classes", 2, "intent"), "tехt", "classes[2].intent"),  # Cyrillic letters
    (("classes", 2, "intent"), "ｔｅｘｔ", "classes[2].intent"),  # full-width letters
    (("classes", 3, "layers"), [3, 14], "classes[3].scores"),
    (("classes", 3, "layers"), [14, 3, 23], "classes[3].layers"),
    (("classes", 3, "layers"), [3, 3, 23], "classes[3].layers"),
    (("classes", 3, "layers"), [3, 14, 25], "classes[3].layers"),
    (("classes", 3, "layers"), [-1, 14, 23], "classes[3].layers[0]"),
    (("classes", 3, "layers"), list(range(65)), "classes[3].layers"),
    (("classes", 3, "layers"), [], "classes[3].layers"),
    (("classes", 3, "weights"), [0.2, 0.3, 0.5], "classes[3].weights"),
    (("classes", 3, "weights"), [1.0], "classes[3].weights"),
    (("classes", 3, "weights"), [-0.1, 0.1, 1.0], "classes[3].weights[0]"),
    (("classes", 3, "tau"), 0.0, "classes[3].tau"),
    (("classes", 3, "tau"), 4.1, "classes[3].weights"),
    (("classes", 3, "scores"), [1e5, 0.5, 1.0], "classes[3].scores[0]"),
    (("classes", 4, "rho"), 1.0000001, "classes[4].rho"),
    (("classes", 4, "rho"), None, "classes[4].rho"),
    (("classes", 4, "rho"), "0.5", "classes[4].rho"),
    (("classes", 5, "decision"), "guessed", "classes[5].decision"),
    (("classes", 5, "reason"), "x" * 401, "classes[5].reason"),
    (("classes", 5, "n_search"), -1, "classes[5].n_search"),
    (("classes", 5, "n_search"), 2**60, "classes[5].n_search"),
    (("classes", 5, "score"), 71.0, "classes[5].score"),
    (("classes", 5, "ci_low"), 0.5, "classes[5].ci_low"),
    (("classes", 5, "p_value"), -0.1, "classes[5].p_value"),
    (("classes", 8, "bonus"), 1, "classes[8].bonus"),
    (("calibration", "seed"), 2**63, "calibration.seed"),
    (("calibration", "scorers"), ["exact_match"], "calibration.scorers[0]"),
    (("calibration", "datasets", 0, "samples"), -1, "calibration.datasets[0].samples"),
    (("calibration", "datasets", 0, "url"), "x", "calibration.datasets[0].url"),
    (("calibration", "label_sources"), {"rule": -1}, "calibration.label_sources.rule"),
    (("calibration", "environment"), {"a": "\x07"}, "calibration.environment.a"),
    (("calibration", "environment"), {str(n): "" for n in range(257)}, "calibration.environment"),
    (("calibration", "ledger_sha256"), "", "calibration.ledger_sha256"),
    (("extensions",), [], "extensions"),
    (("extensions",), {str(n): 1 for n in range(65)}, "extensions"),
]


def test_sealing_and_reading_agree() -> None:
    """What is sealed reads back the same, however its JSON is laid out."""
    profile = example_profile()
    assert parse_profile(canonical_json(FILE)) == profile
    assert profile.profile_id == digest({key: value for key, value in FILE.items() if key != "profile_id"})
    assert parse_profile(json.dumps(FILE, indent=7, ensure_ascii=True).encode()) == profile
    assert seal(FILE) == profile
    assert seal({**profile_fields(), "model": MODEL}) == profile


def test_any_other_content_has_another_id() -> None:
    """A number or an extension more is another profile."""
    other = seal(edited(FIELDS, ("classes", 0, "rho"), 0.75))
    assert other.profile_id != example_profile().profile_id
    assert seal(edited(FIELDS, ("extensions",), {"note": [1]})).profile_id != example_profile().profile_id


GOLDEN = ROOT / "tests" / "golden" / "profile-1.0.json"
"""Written by the release before schema version 1.1."""


def test_a_file_of_version_1_0_still_reads(tmp_path: Path) -> None:
    """Its id is that of the fields it has; the later ones take their old meaning, and writing adds none of them."""
    old = read_profile(GOLDEN)
    assert (old.schema_version, old.budget.scaling, old.selection.positions) == ("1.0", "absolute", "keep")
    assert old.profile_id == "068148df958525d2c93bb50cae2067fc6f4d453d2d8665200f6a1f95a5d4fc85"
    assert write_profile(old, tmp_path).read_bytes() == GOLDEN.read_bytes()


def test_later_fields_are_written_where_they_say_something() -> None:
    """At its old meaning a later field is left out, so that one meaning has one id; otherwise it is part of the id."""
    assert FILE["schema_version"] == "1.2"
    assert "intents" not in FILE
    assert "scaling" not in FILE["budget"]
    assert "positions" not in FILE["selection"]
    spelled = seal(edited(edited(FIELDS, ("budget", "scaling"), "absolute"), ("selection", "positions"), "keep"))
    assert spelled == example_profile()
    for where, value in ((("budget", "scaling"), "share"), (("selection", "positions"), "renumber")):
        other = seal(edited(FIELDS, where, value))
        assert written(other)[where[0]][where[1]] == value
        assert parse_profile(canonical_json(written(other))) == other
        assert other.profile_id != example_profile().profile_id


def test_a_stage_before_the_decoder_takes_the_saliency_of_the_vision_encoder() -> None:
    """"cls" is legal with it and without it; "text" and "last" have nothing to look at there."""
    fields = before_decoder_fields()
    profile = seal(fields)
    assert profile.budget.stages[0].after_layer == -1
    assert parse_profile(canonical_json(written(profile))) == profile
    assert seal(edited(FIELDS, ("selection", "saliency"), "cls")).selection.saliency == "cls"
    for saliency in ("text", "last"):
        with pytest.raises(ProfileError, match=r"^selection\.saliency: .*only 'cls'"):
            seal(edited(fields, ("selection", "saliency"), saliency))


def test_a_class_is_found_by_its_intent() -> None:
    """All nine, and the list of them for a wrong name."""
    profile = example_profile()
    assert [profile.for_intent(intent).intent for intent in INTENT_IDS] == list(INTENT_IDS)
    with pytest.raises(UsageError, match="object, attribute, text"):
        profile.for_intent("Counting")


@pytest.mark.parametrize(("where", "value", "field"), WRONG, ids=lambda value: str(value)[:40])
def test_each_wrong_field_is_named(where: tuple[str | int, ...], value: Any, field: str) -> None:
    """One bad field is one error with its path, short and without control characters."""
    with pytest.raises(ProfileError) as caught:
        parse_profile(json.dumps(edited(FILE, where, value)).encode())
    assert caught.value.field == field
    assert caught.value.exit_code == 7
    assert str(caught.value).startswith(f"{field}: ")
    assert len(str(caught.value)) < 600
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("where", [case[0] for case in WRONG if case[2] != "profile_id"], ids=str)
def test_sealing_refuses_what_reading_refuses(where: tuple[str | int, ...]) -> None:
    """The writer is no more generous than the reader."""
    for other, value, field in WRONG:
        if other == where:
            with pytest.raises(ProfileError) as caught:
                seal(edited(FILE, where, value))
            assert caught.value.field == field


@pytest.mark.parametrize("name", [name for name in FILE if name != "profile_id"])
def test_each_field_is_needed(name: str) -> None:
    """Every field of version 1.0 is required."""
    data = {key: value for key, value in FILE.items() if key != name}
    with pytest.raises(ProfileError, match=f"^{name}: Field required"):
        parse_profile(json.dumps(data).encode())


def test_an_edited_value_breaks_the_seal() -> None:
    """A legal value changed by hand is still a changed file."""
    for where, value in (
        (("classes", 0, "rho"), 0.7999),
        (("classes", 8, "reason"), "gain is significant!"),
        (("model", "revision"), "main"),
        (("calibration", "seed"), 8),
        (("extensions",), {"x": 1}),
        (("profile_id",), "00" * 32),
    ):
        with pytest.raises(ProfileError, match="changed after it was written") as caught:
            parse_profile(json.dumps(edited(FILE, where, value)).encode())
        assert caught.value.field == "profile_id"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, object(), {1: 2}])
def test_values_that_json_has_no_word_for(value: Any) -> None:
    """NaN, infinities, huge numbers and objects."""
    with pytest.raises(ProfileError):
        seal(edited(FIELDS, ("classes", 0, "rho"), value))


def test_a_student_router_needs_file_and_digest() -> None:
    """And a plain file name inside the folder."""
    weights = {"file": "r.safetensors", "sha256": "ab" * 32}
    student = {**FIELDS["router"], **weights, "kind": "student", "rules_version": None}
    assert seal({**FIELDS, "router": student}).router.kind == "student"
    for name in ("../r", "/etc/passwd", "a/b", "..", ".hidden", "", "a\\b", "r\n", "r\x00", "x" * 200, "~root"):
        with pytest.raises(ProfileError) as caught:
            seal({**FIELDS, "router": {**student, "file": name}})
        assert caught.value.field == "router.file"
    for missing in ("file", "sha256"):
        with pytest.raises(ProfileError, match=rf"^router.{missing}: it is needed"):
            seal({**FIELDS, "router": {**student, missing: None}})


def test_the_published_schema_is_this_one() -> None:
    """The file is what the code generates, and it tells good from bad."""
    published = (ROOT / "profiles" / "schema.json").read_text(encoding="utf-8")
    assert published == profile_schema(), "write files.profile_schema() to profiles/schema.json"
    schema = json.loads(published)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(FILE)
    assert not validator.is_valid({**FILE, "surprise": 1})
    assert validator.is_valid(json.loads(GOLDEN.read_text(encoding="utf-8")))
    assert validator.is_valid(written(seal(before_decoder_fields())))
    assert not validator.is_valid(edited(FILE, ("classes", 0, "rho"), 2.0))


def test_weights_are_the_softmax() -> None:
    """Known values, and no overflow at the extremes."""
    assert softmax_weights([1.0], 9.0) == (1.0,)
    assert softmax_weights([0.0, math.log(3.0)], 1.0) == pytest.approx((0.25, 0.75))
    assert softmax_weights([1e4, -1e4], 1e4) == (1.0, 0.0)


def paths(value: Any, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place of a JSON value."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [here, *(path for key, item in inner for path in paths(item, (*here, key)))]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=5), st.just([]), st.just({})
)


@settings(max_examples=50, deadline=None)
@given(where=st.sampled_from(paths(FILE)[1:]), junk=JUNK)
def test_junk_anywhere_is_refused_or_means_the_same(where: tuple[str | int, ...], junk: Any) -> None:
    """Any value in any place never gives another profile."""
    try:
        read = parse_profile(json.dumps(edited(FILE, where, junk)).encode())
    except ProfileError:
        return
    assert read == example_profile()


@settings(max_examples=50, deadline=None)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_means_the_same(position: int, bit: int) -> None:
    """Nor does any bit."""
    data = bytearray(canonical_json(FILE))
    data[position % len(data)] ^= 1 << bit
    with contextlib.suppress(ProfileError):
        assert parse_profile(bytes(data)) == example_profile()


@settings(max_examples=50)
@given(st.binary(max_size=80))
def test_any_bytes_give_a_profile_error(data: bytes) -> None:
    """Whatever is read, the error is ours."""
    with pytest.raises(ClaspError):
        parse_profile(data)


def test_a_profile_is_frozen() -> None:
    """Its fields cannot be set."""
    profile = example_profile()
    with pytest.raises(ValueError, match="frozen"):
        profile.profile_id = "x"
    assert isinstance(profile, Profile)
