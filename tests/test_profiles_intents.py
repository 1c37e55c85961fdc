"""The taxonomy and the errors."""

import copy

import pytest

from claspkit.profiles import errors
from claspkit.profiles.errors import ClaspError, ProfileError, field_diff, shorten
from claspkit.profiles.intents import DEFAULT_INTENT, FINE_INTENTS, INTENT_IDS, INTENTS, merge, taxonomy_digest

EXIT_CODES = {
    "ClaspError": 1,
    "UsageError": 2,
    "BadDataError": 3,
    "NotFiniteError": 3,
    "MismatchError": 4,
    "ResourceError": 5,
    "CorruptError": 7,
    "ProfileError": 7,
    "Interrupted": 130,
}


def test_nine_intents_in_their_order() -> None:
    ids = "object attribute text scene spatial counting action intention default"
    assert tuple(ids.split()) == INTENT_IDS
    assert [intent.index for intent in INTENTS] == list(range(9))
    assert [intent.published_rho for intent in INTENTS] == [0.8, 0.4, 0.7, 0.7, 0.7, 0.6, 0.8, 0.2, 0.9]
    assert INTENT_IDS[-1] == DEFAULT_INTENT


def test_fifteen_fine_intents_cover_the_nine() -> None:
    assert len({fine.id for fine in FINE_INTENTS}) == len(FINE_INTENTS) == 15
    assert {merge(fine.id) for fine in FINE_INTENTS} == set(INTENT_IDS)
    assert merge("arithmetic_reasoning") == "counting"
    assert merge("temporal_order") == "action"
    assert len({fine.definition for fine in FINE_INTENTS}) == 15
    with pytest.raises(KeyError):
        merge("default")


def test_the_taxonomy_is_what_published_profiles_name() -> None:
    # Another digest makes every profile written so far unreadable: that needs a new major version of the format.
    assert taxonomy_digest() == "fe3c6d9c96fc0c0c2dfff98db9a807893242f0d7c1bd204156397799d420fc41"


def test_exit_codes() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, ClaspError)
    }
    assert found == EXIT_CODES


def test_a_profile_error_names_its_field_and_survives_copying() -> None:
    error = copy.copy(ProfileError("classes[2].rho", "too large"))
    assert str(error) == "classes[2].rho: too large"
    assert (error.field, error.reason) == ("classes[2].rho", "too large")


def test_field_diff_lists_what_differs() -> None:
    assert field_diff({"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3, "d": None}) == [
        "b: wanted 2, got 3",
        "c: wanted None, got nothing",
        "d: wanted nothing, got None",
    ]
    assert field_diff({"a": 1}, {"a": 1}) == []


def test_values_from_outside_are_cut() -> None:
    assert shorten("x" * 1000, 5) == "'xxxxx'..."
    assert shorten([1] * 1000, 8) == "[1, 1, 1..."
    assert shorten(1 << 100_000) == "an int too large to show"
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shorten(deep) == "a list too large to show"
    assert shorten("ab\x1b") == "'ab\\x1b'"
