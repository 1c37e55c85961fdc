"""Taxonomies of a user's own: the file, and what a profile carries of it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_taxonomy import OWN, write_own_taxonomy
from profile_example import class_fields, profile_fields

from claspkit.profiles.canonical import canonical_json
from claspkit.profiles.errors import BadDataError, ProfileError, UsageError
from claspkit.profiles.intents import STANDARD, open_taxonomy
from claspkit.profiles.profile import Profile, parse_profile, seal
from claspkit.profiles.profile_intents import intent_specs
from claspkit.profiles.taxonomy import MAX_BYTES, FineIntent, Taxonomy, parse_taxonomy


def own() -> Taxonomy:
    """The example, read."""
    return parse_taxonomy(OWN.encode())


def own_profile(**changes: Any) -> Profile:
    """A profile of the example's classes, routed by a student."""
    taxonomy, fields = own(), profile_fields()
    fields["router"] |= {
        "kind": "student", "rules_version": None, "file": "router.safetensors", "sha256": "12" * 32, "fallback": "rest",
    }  # fmt: skip
    fields["classes"] = [class_fields(intent, 0.5) for intent in taxonomy.ids]
    fields |= {"taxonomy": taxonomy.digest, "intents": [spec.model_dump() for spec in intent_specs(taxonomy) or ()]}
    for name, value in changes.items():
        fields[name] = fields[name] | value if isinstance(value, dict) else value
    return seal(fields)


def test_a_file_is_read(tmp_path: Path) -> None:
    """Classes in their order, fine intents in the order of their classes, examples and rules as written."""
    taxonomy = open_taxonomy(write_own_taxonomy(tmp_path))
    assert (taxonomy.name, taxonomy.default, taxonomy.ids) == ("shop floor", "rest", ("amount", "look", "rest"))
    assert taxonomy.fine_ids == ("how_many", "colour", "kind", "anything")
    examples = ("How many pallets are there?",)
    assert taxonomy.fine_intents[0] == FineIntent(
        "how_many", "How many things of a kind there are.", "amount", examples
    )
    assert [rule.id for rule in taxonomy.rules] == ["count", "colour", "kind"]
    assert (taxonomy.rules[0].phrases, taxonomy.rules[0].overrides) == (("how many", "number of"), True)
    assert [intent.published_rho for intent in taxonomy.intents] == [None] * 3
    assert open_taxonomy(None) is STANDARD


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('default = "rest"', 'default = "other"', "default must be one of amount, look, rest, not 'other'"),
        ('default = "rest"', "", "default must be one of amount, look, rest, and is missing"),
        ('default = "rest"', 'default = "rest"\ncolour = 1', "colour is unknown; there are: class, default"),
        ('id = "amount"', 'id = "Amount"', r"class\[0\]\.id must be small letters"),
        ('id = "amount"', 'id = "look"', r"two tables \[\[class\]\] have the id 'look'"),
        ('name = "Amounts"', 'name = "A\\u001bmounts"', r"class\[0\]\.name must be printable text"),
        ('name = "Amounts"', 'name = "Amounts"\npublished_rho = 2', r"class\[0\]\.published_rho must be a number from"),
        ('class = "rest"', 'class = "amount"', "class 'rest' has no intent"),
        ('class = "rest"', 'class = 3', r"intent\[0\]\.class must be one of amount, look, rest, not 3"),
        ('definition = "Anything else."', "", r"intent\[0\]\.definition must be printable text of 1 to 400"),
        ('definition = "Anything else."', f'definition = "{"x" * 401}"', r"intent\[0\]\.definition must be"),
        ('examples = ["How many pallets are there?"]', "examples = [1]", r"intent\[1\]\.examples must be printable"),
        ('intent = "how_many"', 'intent = "amount"', r"rule\[0\]\.intent must be one of anything, how_many, colour"),
        ('phrases = ["what is"]', "phrases = []", r"rule\[2\]\.phrases must be a list of 1 to 64 texts"),
        ("overrides = true", "overrides = 1", r"rule\[0\]\.overrides must be true or false"),
        ("[[class]]", "[class]", "it is no TOML|a taxonomy has 2 to 26 tables"),
        (OWN, "", r"a taxonomy has 2 to 26 tables \[\[class\]\]"),
        (OWN, "a = " + "[" * 5000, "it is no TOML"),
        (OWN, "\xff\x00", "it is no TOML"),
        (OWN, "#" * (MAX_BYTES + 1), "a taxonomy has at most"),
    ],
)
def test_what_is_no_taxonomy_is_one_error_that_names_the_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    """And the file."""
    assert old in OWN
    path = tmp_path / "mine.toml"
    path.write_text(OWN.replace(old, new, 1), encoding="latin-1")
    with pytest.raises(BadDataError, match=said) as caught:
        open_taxonomy(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    """A folder too; both say where to look."""
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(UsageError, match=r"cannot be read .*docs/router\.md"):
            open_taxonomy(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_refused_or_read(data: st.DataObject) -> None:
    """Whatever bytes stand there: a taxonomy, or one BadDataError."""
    raw = bytearray(OWN.encode())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    try:
        found = parse_taxonomy(bytes(raw))
    except BadDataError:
        return
    assert {fine.intent for fine in found.fine_intents} == set(found.ids)
    assert found.default in found.ids


def test_digests_tell_what_changed() -> None:
    """A reworded definition changes labels only, another order of classes all, another merging not the classes."""
    base = own()
    worded = parse_taxonomy(OWN.replace("Anything else.", "All the rest.").encode())
    assert (worded.digest, worded.labels_digest) == (base.digest, base.labels_digest)
    assert worded.sha256 != base.sha256
    merged = parse_taxonomy(OWN.replace('id = "kind"\nclass = "look"', 'id = "kind"\nclass = "rest"').encode())
    assert merged.digest == base.digest
    assert merged.labels_digest != base.labels_digest
    renamed = parse_taxonomy(OWN.replace("Amounts", "Numbers").encode())
    assert len({base.digest, renamed.digest, STANDARD.digest}) == 3


def test_a_profile_carries_its_classes() -> None:
    """Read back with their ids, names and merging; the digest and the order of a student's columns are the file's."""
    profile = parse_profile(canonical_json(own_profile().model_dump(mode="json")))
    found = profile.read_taxonomy()
    assert (found.ids, found.fine_ids, found.default) == (own().ids, own().fine_ids, "rest")
    assert (found.digest, found.labels_digest) == (own().digest, own().labels_digest)
    assert profile.for_intent("look").intent == "look"
    with pytest.raises(UsageError, match="unknown intent 'object'; there are: amount, look, rest"):
        profile.for_intent("object")
    assert intent_specs(STANDARD) is None


def test_classes_that_contradict_each_other_are_refused() -> None:
    """Each by the field that is wrong."""
    specs = [spec.model_dump() for spec in intent_specs(own()) or ()]
    twice = [*specs[:2], specs[2] | {"fine": ["kind"]}]
    rules = {"kind": "rules", "rules_version": "1.0", "file": None, "sha256": None}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"intents": specs[:2]}, "^taxonomy: it does not fit the intents"),
        ({"intents": None}, "^taxonomy: it was made for another set"),
        ({"intents": specs[:1]}, "^intents"),
        ({"intents": twice}, "^intents: two of them have the same fine"),
        ({"intents": [*specs[:2], specs[0]]}, "^intents: two of them have the same id"),
        ({"intents": [*specs[:2], specs[2] | {"id": "a b"}]}, r"^intents\[2\]\.id"),
        ({"intents": [*specs[:2], specs[2] | {"fine": [f"f{n}" for n in range(25)]}]}, "^intents: 28 fine intents"),
        ({"router": {"fallback": "default"}}, "^router.fallback: 'default' is none of amount, look, rest"),
        ({"router": rules}, "^router.kind: the rules know the standard intents only"),
        ({"classes": [class_fields(intent, 0.5) for intent in ("amount", "look")]}, "^classes: 2 of them"),
        ({"classes": [class_fields(intent, 0.5) for intent in ("look", "amount", "rest")]}, r"^classes\[0\]\.intent"),
    ]
    for changes, said in cases:
        with pytest.raises(ProfileError, match=said):
            own_profile(**changes)
