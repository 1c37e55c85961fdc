"""What a manifest may say, and that nothing else is believed."""

from __future__ import annotations

from typing import Any

import pytest
from feature_stores import SHAPE, make_key, name_of

from claspkit.cache.layout import image_bytes
from claspkit.cache.manifest import ShardEntry, drop_record, parse_manifest, store_record

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
    ([{**STORE, "version": 2}], "version"),
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
