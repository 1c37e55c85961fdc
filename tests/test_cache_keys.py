"""A key has one digest per meaning, refuses nonsense, and says what differs."""

from __future__ import annotations

from typing import Any

import pytest
from feature_stores import make_key
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.cache import DTYPES, FeatureKey

OTHERS: dict[str, Any] = {
    "model_id": "other",
    "revision": "abc",
    "fingerprint": "2" * 64,
    "processor_sha256": "3" * 64,
    "image_backend": "torchvision",
    "dtype": "bfloat16",
    "layers": (0, 2),
    "tokens": 25,
    "width": 17,
}


@pytest.mark.parametrize("field", OTHERS)
def test_each_field_changes_the_digest_and_is_named(field: str) -> None:
    one, other = make_key(), make_key(**{field: OTHERS[field]})
    assert one.digest != other.digest
    lines = one.diff(other)
    assert [line.split(":")[0] for line in lines] == [field]


def test_an_open_token_count_is_another_key() -> None:
    """Null is a value of its own, and the difference says so."""
    assert make_key().diff(make_key(tokens=None)) == ["tokens: wanted None, got 24"]
    assert make_key().digest != make_key(tokens=None).digest


def test_equal_keys_do_not_differ() -> None:
    assert make_key().diff(make_key()) == []
    assert make_key().digest == make_key().digest


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.sets(st.integers(0, 100), min_size=1).map(lambda found: tuple(sorted(found))),
    st.integers(1, 1 << 20),
    st.none() | st.integers(1, 1 << 20),
)
def test_dict_round_trip(dtype: str, layers: tuple[int, ...], width: int, tokens: int | None) -> None:
    """A key survives its plain form, with a token count and without."""
    key = make_key(dtype, layers=layers, width=width, tokens=tokens)
    assert FeatureKey.from_dict(key.to_dict()) == key


NONSENSE = [
    ("model_id", ""),
    ("model_id", 3),
    ("model_id", "x" * 513),
    ("revision", ""),
    ("fingerprint", "A" * 64),
    ("fingerprint", "0" * 63),
    ("processor_sha256", None),
    ("image_backend", ""),
    ("dtype", "float64"),
    ("dtype", ["float16"]),
    ("layers", ()),
    ("layers", [0, 1]),
    ("layers", (2, 0)),
    ("layers", (0, 0)),
    ("layers", (-1,)),
    ("layers", (True,)),
    ("layers", (0.0,)),
    ("layers", (1 << 40,)),
    ("tokens", 0),
    ("tokens", True),
    ("tokens", 1.0),
    ("width", 1 << 40),
]


@pytest.mark.parametrize(("field", "value"), NONSENSE)
def test_nonsense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        make_key(**{field: value})


def test_fields_must_be_exactly_those() -> None:
    data = make_key().to_dict()
    without = {name: value for name, value in data.items() if name != "width"}
    wrong: dict[str, Any]
    for wrong in ({**data, "more": 1}, without, {}):
        with pytest.raises(ValueError, match="exactly the fields"):
            FeatureKey.from_dict(wrong)
