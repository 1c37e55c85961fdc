"""One encoding per value, suspicious reading, whole files."""

import contextlib
import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.profiles.canonical import canonical_json, digest, sha256_hex, strict_loads, write_atomic
from claspkit.profiles.errors import ResourceError

NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def test_known_bytes() -> None:
    assert canonical_json({"b": [1, 1.0, None], "a": "é"}) == '{"a":"é","b":[1,1.0,null]}'.encode()
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_equal_dicts_have_equal_bytes_and_one_is_not_one_point_zero() -> None:
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [math.nan]}, {1: "x"}, [{None: 1}], "\ud800"])
def test_what_has_no_encoding_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is json's own for some of them
        canonical_json(value)


@settings(max_examples=50)
@given(VALUES)
def test_reading_gives_back_what_was_encoded(value: Any) -> None:
    data = canonical_json(value)
    assert strict_loads(data, max_bytes=len(data)) == value
    assert canonical_json(strict_loads(data, max_bytes=len(data))) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e999]", "too large"),
        (b"[" + b"9" * 400 + b"]", "beyond 2\\*\\*63"),
        (b"[9223372036854775809]", "beyond 2\\*\\*63"),
        (b'{"a":1,"a":1}', "appears twice"),
        (b'{"x":{"a":1,"\\u0061":2}}', "appears twice"),
        (b"[" * 33 + b"]" * 33, "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b'"' + b"\\" * 3, "not JSON"),
        (b"{} {}", "not JSON"),
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\uDC00":1}', "surrogate"),
        (b"[1]" + b" " * 500_000, "more than"),
    ],
)
def test_hostile_json_is_refused_at_once(data: bytes, reason: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=reason):
        strict_loads(data, max_bytes=500_000)
    assert time.process_time() - began < 1.0


def test_edges_that_are_allowed() -> None:
    assert strict_loads(b"[9223372036854775808,-9223372036854775808]", max_bytes=99) == [2**63, -(2**63)]
    assert strict_loads(b"[" * 32 + b"]" * 32, max_bytes=99) is not None
    assert strict_loads(b'"[[[[\\"{{{{"', max_bytes=99, max_depth=1) == '[[[["{{{{'
    assert strict_loads(b'"\\ud83d\\ude00"', max_bytes=99) == "\U0001f600"


def test_depth_scan_is_linear_in_unterminated_escapes() -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="not JSON"):
        strict_loads(b'"' + b'\\"' * 400_000, max_bytes=2**20)
    assert time.process_time() - began < 2.0


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        json.dumps(strict_loads(data, max_bytes=60), allow_nan=False)


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_full_disk_keeps_the_old_file_and_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="5 bytes needed"):
        write_atomic(path, b"12345")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_other_write_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "none" / "a", b"x")
