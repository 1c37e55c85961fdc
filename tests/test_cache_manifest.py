"""What a manifest may say, and that nothing else is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from feature_stores import SHAPE, make_key, name_of
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.cache import FeatureKey
from claspkit.cache.layout import image_bytes
from claspkit.cache.manifest import MAX_GRID, ShardEntry, drop_record, parse_manifest, store_record

FILES = ("shard-000000-00000000.h5", "shard-000007-12ab34cd.h5")


def entry(which: int = 0, images: tuple[int, ...] = (0, 1)) -> ShardEntry:
    """A valid entry."""
    size = image_bytes(make_key()) * len(images) + 100
    names = tuple(name_of(image) for image in images)
    return ShardEntry(FILES[which], "a" * 64, size, names, (len(images), *SHAPE))


def test_shards_drops_and_numbers() -> None:
    lines = [store_record(make_key()), entry().to_record(), entry(1, (2,)).to_record()]
    manifest = parse_manifest(lines)
    assert list(manifest.shards.values()) == [entry(), entry(1, (2,))]
    assert manifest.next_number == 8
    after = parse_manifest([*lines, drop_record(FILES[1], "bad")])
    assert list(after.shards) == [FILES[0]]
    assert after.dropped == {FILES[1]}
    assert after.next_number == 8, "the number of a dropped shard is not used again"


def test_checksums_go_there_and_back() -> None:
    """One per image and layer, two for int8; a line without any is an older one."""
    whole = replace(entry(), checksums=bytes(range(4 * 2 * SHAPE[0])))
    record = whole.to_record()
    assert record["checksums"].startswith("00010203")
    assert parse_manifest([store_record(make_key()), record]).shards[FILES[0]] == whole
    assert "checksums" not in entry().to_record()
    twice = replace(varied_entry(24), checksums=bytes(2 * 4 * 2 * SHAPE[0]))
    key = make_key("int8", tokens=None)
    assert parse_manifest([store_record(key), twice.to_record()]).shards[FILES[0]] == twice


def test_an_image_may_come_again_after_its_shard_was_dropped() -> None:
    lines = [store_record(make_key()), entry().to_record(), drop_record(FILES[0], "bad"), entry(1).to_record()]
    assert list(parse_manifest(lines).shards) == [FILES[1]]


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"file": "../shard-000000-00000000.h5"}, "file name"),
    ({"file": "/etc/passwd"}, "file name"),
    ({"file": "shard-000000-00000000.h5\n"}, "file name"),
    ({"file": "shard-000000-0000000\N{FULLWIDTH DIGIT ZERO}.h5"}, "file name"),
    ({"file": "shard-00000\N{ARABIC-INDIC DIGIT ONE}-00000000.h5"}, "file name"),
    ({"file": "sub/shard-000000-00000000.h5"}, "file name"),
    ({"file": None}, "file name"),
    ({"sha256": "A" * 64}, "sha256"),
    ({"checksums": ""}, "checksums"),
    ({"checksums": "0" * 8 * 5}, "checksums"),
    ({"checksums": "0" * 8 * 12}, "checksums"),
    ({"checksums": "A" * 8 * 6}, "checksums"),
    ({"checksums": "0" * 47 + "\N{ARABIC-INDIC DIGIT ONE}"}, "checksums"),
    ({"checksums": [0] * 6}, "checksums"),
    ({"checksums": None}, "checksums"),
    ({"sha256": 5}, "sha256"),
    ({"bytes": 10}, "size"),
    ({"bytes": 1 << 60}, "size"),
    ({"bytes": True}, "size"),
    ({"bytes": 1e9}, "size"),
    ({"images": []}, "images"),
    ({"images": [name_of(0)] * 2}, "distinct"),
    ({"images": [name_of(0), "x"]}, "distinct"),
    ({"images": [name_of(0), 7]}, "distinct"),
    ({"images": "ab"}, "images"),
    ({"images": [name_of(0)]}, "shape"),
    ({"images": [name_of(image) for image in range(1025)]}, "images"),
    ({"shape": [2, 3, 24, 17]}, "shape"),
    ({"shape": [2**50, *SHAPE]}, "shape"),
    ({"shape": None}, "shape"),
    ({"more": 1}, "exactly"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_a_false_shard_line_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"line 2: .*{reason}"):
        parse_manifest([store_record(make_key()), {**entry().to_record(), **change}])


STORE = store_record(make_key())
FALSE: list[tuple[list[dict[str, Any]], str]] = [
    ([], "store line"),
    ([entry().to_record()], "line 1"),
    ([{**STORE, "version": 2}], "version is 2, but a key with these fields has 1"),
    ([{**STORE, "version": 3}], "this release reads 1 and 2"),
    ([{**STORE, "version": 1.0}], "version"),
    ([{**STORE, "key": {**STORE["key"], "tokens": None}}], "version is 1, but a key with these fields has 2"),
    ([{**STORE, "key": {**STORE["key"], "dtype": "int8"}}], "version is 1, but a key with these fields has 2"),
    ([{**STORE, "version": True}], "version"),
    ([{**STORE, "format": "x"}], "store line"),
    ([{**STORE, "key": {}}], "exactly the fields"),
    ([{**STORE, "key": {**STORE["key"], "dtype": "int4"}}], "dtype"),
    ([{"kind": "store", "format": "clasp-features", "version": 1}], "line 1"),
    ([STORE, STORE], "line 2: unknown kind"),
    ([STORE, {"kind": ["shard"]}], "unknown kind"),
    ([STORE, {}], "unknown kind"),
    ([STORE, entry().to_record(), entry().to_record()], "line 3: .* twice"),
    ([STORE, entry().to_record(), entry(1).to_record()], "line 3: image .* already"),
    ([STORE, drop_record(FILES[0], "x")], "line 2: drops"),
    ([STORE, entry().to_record(), drop_record(FILES[0], "x"), entry().to_record()], "line 4: .* twice"),
]


@pytest.mark.parametrize(("lines", "reason"), FALSE)
def test_a_false_manifest_is_refused(lines: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_manifest(lines)


VARIED = make_key(tokens=None)


def varied_entry(tokens: int = 30, grids: tuple[tuple[int, ...], ...] = ((1, 6, 5), ()), which: int = 0) -> ShardEntry:
    """A valid entry of a store whose token counts differ."""
    size = image_bytes(VARIED, tokens) * 2 + 100
    return ShardEntry(FILES[which], "a" * 64, size, (name_of(0), name_of(1)), (2, SHAPE[0], tokens, SHAPE[2]), grids)


def test_shards_of_differing_token_counts_and_their_grids() -> None:
    """Version 2: any count, one grid per image, and both come back."""
    other = ShardEntry(FILES[1], "b" * 64, 9_999, (name_of(2),), (1, SHAPE[0], 7, SHAPE[2]), ((24, 48),))
    lines = [store_record(VARIED), varied_entry().to_record(), other.to_record()]
    assert lines[0]["version"] == 2
    assert list(parse_manifest(lines).shards.values()) == [varied_entry(), other]


def test_version_1_is_written_wherever_it_can_be() -> None:
    """Only an open token count or int8 needs version 2; a line of version 1 is what it always was."""
    keys = [make_key(), make_key("bfloat16"), make_key("int8"), VARIED]
    assert [store_record(key)["version"] for key in keys] == [1, 1, 2, 2]
    assert entry().to_record().keys() == {"kind", "file", "sha256", "bytes", "images", "shape"}


VARIED_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"shape": [2, 3, 0, 16]}, "shape"),
    ({"shape": [2, 3, -1, 16]}, "shape"),
    ({"shape": [2, 3, True, 16]}, "shape"),
    ({"shape": [2, 3, 30.0, 16]}, "shape"),
    ({"shape": [2, 3, 1 << 21, 16]}, "shape"),
    ({"shape": [2, 3, None, 16]}, "shape"),
    ({"shape": [2, 3, 30]}, "shape"),
    ({"shape": [2, 3, 30, 17]}, "shape"),
    ({"shape": [2, 3, 300, 16]}, "below the"),  # more values than the file has bytes
    ({"grids": None}, "grids"),
    ({"grids": []}, "grids"),
    ({"grids": [[1], [1], [1]]}, "grids"),
    ({"grids": [[1], (1,)]}, "grid"),
    ({"grids": [[1], [0]]}, "grid"),
    ({"grids": [[1], [-3]]}, "grid"),
    ({"grids": [[1], [True]]}, "grid"),
    ({"grids": [[1], [1.0]]}, "grid"),
    ({"grids": [[1], ["1"]]}, "grid"),
    ({"grids": [[1], [[1]]]}, "grid"),
    ({"grids": [[1], "12"]}, "grid"),
    ({"grids": [[1], [(1 << 20) + 1]]}, "grid"),
    ({"grids": [[1], [1] * (MAX_GRID + 1)]}, "grid"),
]


@pytest.mark.parametrize(("change", "reason"), VARIED_CHANGES)
def test_a_false_line_of_version_2_is_refused(change: dict[str, Any], reason: str) -> None:
    """Shape and grids are checked like everything else."""
    with pytest.raises(ValueError, match=rf"line 2: .*{reason}"):
        parse_manifest([store_record(VARIED), {**varied_entry().to_record(), **change}])


@pytest.mark.parametrize(("key", "line"), [(make_key(), varied_entry(24)), (VARIED, entry())])
def test_a_line_of_the_other_version_is_refused(key: FeatureKey, line: ShardEntry) -> None:
    """Grids in a store of version 1, or none in one of version 2."""
    with pytest.raises(ValueError, match=r"line 2: .*exactly"):
        parse_manifest([store_record(key), line.to_record()])


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted({*varied_entry().to_record(), "more"})), _VALUES, st.booleans())
def test_any_value_in_a_line_is_refused_or_harmless(field: str, value: object, varied: bool) -> None:
    """No value of any kind gets past the parser but as an entry that would be written the same."""
    key, line = (VARIED, varied_entry()) if varied else (make_key(), entry())
    record = {**line.to_record(), field: value}
    try:
        manifest = parse_manifest([store_record(key), record])
    except ValueError:
        return
    assert [shard.to_record() for shard in manifest.shards.values()] == [record]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(VARIED.to_dict())), _VALUES)
def test_any_value_in_a_key_is_refused_or_kept(field: str, value: object) -> None:
    """The same for the store line."""
    record = store_record(VARIED)
    record["key"] = {**record["key"], field: value}
    try:
        manifest = parse_manifest([record])
    except ValueError:
        return
    assert store_record(manifest.key) == record
