"""A profile inside a model's config.json: one object under one key, read with the same suspicion as a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_example import example_profile, written

from claspkit.profiles.embedded import MAX_CONFIG, embed_profile, embedded_profile, has_profile
from claspkit.profiles.errors import ProfileError, UsageError
from claspkit.profiles.files import read_profile, write_profile
from claspkit.profiles.profile import parse_profile

NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key != "claspkit"), VALUES, max_size=6))
def test_everything_else_of_a_config_stays(config: dict[str, object]) -> None:
    """Values, types and order; and the profile comes back the same, with its id."""
    before = json.dumps(config).encode()
    after = json.loads(embed_profile(before, example_profile()))
    block = after.pop("claspkit")
    assert json.dumps(after) == json.dumps(config)
    assert block["method"] == "clasp"
    assert block["profile"] == written(example_profile())


def test_a_profile_comes_back_with_its_id() -> None:
    config = embed_profile(b"{}", example_profile())
    assert has_profile(config)
    assert parse_profile(embedded_profile(config)) == example_profile()
    assert not has_profile(b"{}")


def test_a_second_one_needs_to_be_asked_for() -> None:
    config = embed_profile(b'{"a": 1}', example_profile())
    with pytest.raises(UsageError, match="already; give --force"):
        embed_profile(config, example_profile())
    assert embed_profile(config, example_profile(), replace=True) == config


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("[]", "(config)", "JSON object"),
        ("{", "(config)", "not JSON"),
        ('{"a": NaN}', "(config)", "NaN"),
        ('{"claspkit": {}, "claspkit": {}}', "(config)", "twice"),
        ('{"claspkit": 3}', "claspkit", "'method' and 'profile'"),
        ('{"claspkit": {"method": "clasp"}}', "claspkit", "'method' and 'profile'"),
        ('{"claspkit": {"method": "clasp", "profile": {}, "x": 1}}', "claspkit", "'method' and 'profile'"),
        ('{"claspkit": {"method": "other", "profile": {}}}', "claspkit.method", "there is: clasp"),
    ],
)
def test_a_bad_config_is_refused_by_field(text: str, field: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words) as caught:
        embedded_profile(text.encode())
    assert caught.value.field == field


def test_a_file_or_folder_with_one_is_a_profile(tmp_path: Path) -> None:
    """A model's folder reads as its profile; a profile of its own in the folder comes first."""
    config = tmp_path / "config.json"
    config.write_bytes(embed_profile(b'{"model_type": "llava"}', example_profile()))
    assert read_profile(tmp_path) == read_profile(config) == example_profile()
    config.write_text("{}")
    with pytest.raises(UsageError, match=r"profile\.json: No such file"):
        read_profile(tmp_path)
    with pytest.raises(UsageError, match="no profile in it"):
        read_profile(config)
    write_profile(example_profile(), tmp_path)
    assert read_profile(tmp_path) == example_profile()
    assert config.read_text() == "{}"


def test_a_changed_or_oversized_one_is_refused(tmp_path: Path) -> None:
    """Its id says so; and a config is not read without bound."""
    config = tmp_path / "config.json"
    config.write_bytes(embed_profile(b"{}", example_profile()).replace(b'"nominal": 192', b'"nominal": 191'))
    with pytest.raises(ProfileError, match="profile_id"):
        read_profile(tmp_path)
    with config.open("r+b") as file:
        file.truncate(MAX_CONFIG + 1)
    with pytest.raises(ProfileError, match="larger than"):
        read_profile(config)
