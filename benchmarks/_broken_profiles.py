"""Profiles that somebody damaged: valid ones to start from, and a seeded generator of broken ones.

The benchmark ``profile_fuzz.py`` times the reader on them; ``tests/test_profiles_fuzz.py`` judges what it answers.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from _common import ROOT

from claspkit.profiles.profile import seal
from claspkit.profiles.profile_intents import IntentSpec, specs_taxonomy

Place = tuple[str | int, ...]

GOLDEN = ("profile-1.0", "profile-1.1", "profile-1.2", "profile-1.3")
HOSTILE = (
    "../../etc/passwd",
    "/dev/zero",
    "file:///etc/passwd",
    "router.safetensors\x00.txt",
    "<script>alert(1)</script>",
    "\x1b[2J\x1b]0;x\x07",
    "\u202egnp.exe",
    "\ud800",
    "$(id)",
    "x" * 300,
    "",
    "classes[0].rho",
)
NUMBERS = (0, 1, -1, 2, 255, 511, 512, 2**20, 2**20 + 1, 2**31, 2**53, 2**53 + 1, 2**63, 2**63 + 1, -(2**63), 10**40)
NUMBERS_WITH_POINT = (0.0, -0.0, 0.5, 1.0, 1.0000001, -1e-9, 1e4, 1e5, 5e-324, 1.7e308, 24.0, 1e22, 0.1 + 0.2)
RAW = ("NaN", "-Infinity", "1e999", "-1e999", "0" * 3 + "1", "9" * 5000, "0x10", "1_000", "tru", "'a'", "{", "]", "--1")
BIG = (257, 3000, 20_000, 60_000)


@dataclass(frozen=True)
class Broken:
    """One damaged profile.

    Attributes:
        base: name of the valid one that it was made from.
        fields: the fields of that one.
        steps: what was done to it, in words.
        data: the bytes of the file.
        sealed: whether its id was computed anew after the damage.
    """

    base: str
    fields: dict[str, Any]
    steps: tuple[str, ...]
    data: bytes
    sealed: bool


@cache
def bases() -> dict[str, dict[str, Any]]:
    """Name -> fields of a valid profile: one of every version so far, and one of every kind of router and class."""
    files = {name: ROOT / "tests" / "golden" / f"{name}.json" for name in GOLDEN}
    files["example"] = ROOT / "docs" / "example-profile.json"
    found: dict[str, dict[str, Any]] = {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()
    }
    example = {name: value for name, value in found["example"].items() if name not in {"profile_id", "schema_version"}}
    student = {**example["router"], "kind": "student", "rules_version": None}
    student |= {"file": "router.safetensors", "sha256": "ab" * 32}
    found["student"] = seal({**example, "router": student}).model_dump(mode="json")
    ids = [row["intent"] for row in example["classes"][:4]]
    specs = tuple(IntentSpec(id=name, name=name.title(), fine=(f"{name}_a", f"{name}_b")) for name in ids)
    found["own"] = seal(
        {
            **example,
            "taxonomy": specs_taxonomy(specs, ids[0]).digest,
            "intents": [spec.model_dump(mode="json") for spec in specs],
            "classes": example["classes"][:4],
            "router": {**student, "fallback": ids[0]},
            "extensions": {"note": [1, 2.5, None, {"deep": ["text", True]}]},
        }
    ).model_dump(mode="json")
    return found


def canonical(value: Any) -> bytes:
    """The canonical JSON of the format's description, written a second time."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def resealed(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields with the id that a forger would give them; UnicodeEncodeError for half a surrogate pair."""
    body = {name: value for name, value in fields.items() if name != "profile_id"}
    return {**body, "profile_id": hashlib.sha256(canonical(body)).hexdigest()}


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Every place of a JSON value but its root."""
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*here, key)
        yield from places(item, (*here, key))


def at(value: Any, place: Place) -> Any:
    """What stands there."""
    for part in place:
        value = value[part]
    return value


def broken_profile(number: int, seed: int = 0) -> Broken:
    """Case ``number`` of the sequence of ``seed``; the same one on every machine."""
    dice = random.Random(f"{seed}/{number}")
    names = sorted(bases())
    base = names[number % len(names)]
    original = bases()[base]
    fields, steps = copy.deepcopy(original), []
    if dice.random() < 0.25:
        data, steps = _damaged_bytes(_text(fields, dice), dice)
        return Broken(base, original, tuple(steps), data, sealed=False)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        steps.append(_damage(fields, dice))
    sealed = dice.random() < 0.6
    if sealed:
        try:
            fields = resealed(fields)
        except UnicodeEncodeError:
            sealed = False
    return Broken(base, original, tuple(steps), _text(fields, dice), sealed)


def _text(fields: dict[str, Any], dice: random.Random) -> bytes:
    ascii_only = dice.random() < 0.5
    text = json.dumps(fields, indent=dice.choice((None, 2)), ensure_ascii=ascii_only)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(fields).encode("ascii")


def _damage(fields: dict[str, Any], dice: random.Random) -> str:
    """One change of the value; returns what it was."""
    found = list(places(fields))
    place = dice.choice(found)
    name, change = dice.choice(CHANGES)
    parent = at(fields, place[:-1])
    change(parent, place[-1], fields, dice)
    return f"{name} {'/'.join(map(str, place))[:100]}"


def _delete(parent: Any, key: Any, _: Any, __: random.Random) -> None:
    del parent[key]


def _junk(parent: Any, key: Any, _: Any, dice: random.Random) -> None:
    kinds: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": 0})
    parent[key] = copy.deepcopy(dice.choice(dice.choice((kinds, NUMBERS, NUMBERS_WITH_POINT, HOSTILE))))


def _retype(parent: Any, key: Any, _: Any, dice: random.Random) -> None:
    value = parent[key]
    ways: list[Any] = [[value], {"value": value}, str(value)]
    if isinstance(value, int | float):
        ways += [float(value), int(value), -value, bool(value), f"{value}"]
    elif isinstance(value, list):
        ways += [dict(enumerate(map(str, value))), value[0] if value else None, [value]]
    elif isinstance(value, dict):
        ways += [list(value), list(value.values())]
    parent[key] = dice.choice(ways)


def _bounds(parent: Any, key: Any, fields: Any, dice: random.Random) -> None:
    value = parent[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _junk(parent, key, fields, dice)
    near = (value + 1, value - 1, value * 2, value / 2, value + 1e-7, value - 1e-7, value * 1e6, -value, value)
    parent[key] = dice.choice((*near, *NUMBERS, *NUMBERS_WITH_POINT))
    return None


def _elsewhere(parent: Any, key: Any, fields: Any, dice: random.Random) -> None:
    parent[key] = copy.deepcopy(at(fields, dice.choice(list(places(fields)))))


def _double(parent: Any, key: Any, _: Any, dice: random.Random) -> None:
    if isinstance(parent, list):
        parent.insert(dice.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    else:
        parent[f"{key}{dice.choice((' ', '_', '2', chr(0x430), ''))}"] = copy.deepcopy(parent[key])


def _order(parent: Any, key: Any, fields: Any, dice: random.Random) -> None:
    value = parent[key]
    if isinstance(value, list) and len(value) > 1:
        dice.shuffle(value)
    elif isinstance(parent, list) and len(parent) > 1:
        parent.reverse()
    else:
        _junk(parent, key, fields, dice)


def _insert(parent: Any, key: Any, _: Any, dice: random.Random) -> None:
    value = copy.deepcopy(dice.choice((*HOSTILE, *NUMBERS, None, [], {})))
    if isinstance(parent, list):
        parent.insert(key, value)
    else:
        parent[dice.choice(("surprise", "__proto__", "$ref", "x.y", "a[0]", "\x07", "<b>", "k" * 500))] = value


def _rename(parent: Any, key: Any, fields: Any, dice: random.Random) -> None:
    if isinstance(parent, list):
        return _order(parent, key, fields, dice)
    parent[dice.choice((str(key).upper(), f"{key} ", f"\ufeff{key}", "", str(key)[:-1]))] = parent.pop(key)
    return None


def _write(parent: Any, key: Any, fields: Any, dice: random.Random) -> None:
    value = parent[key]
    if not isinstance(value, str):
        return _junk(parent, key, fields, dice)
    ends = ("\n", "\x00", "\x9b", " ", "\u2028", "\ud83d", "é", "<i>", "x" * 400, "@1", "/", "\\")
    parent[key] = dice.choice((value + dice.choice(ends), dice.choice(ends) + value, value.upper(), value[1:]))
    return None


def _bloat(parent: Any, key: Any, _: Any, dice: random.Random) -> None:
    """Rarely large: the reader's time is what is asked."""
    count = dice.choice(BIG) if dice.random() < 0.2 else BIG[0]
    entry = dice.choice((parent[key], 1, "", {}, [], None, -1))
    small = entry if not isinstance(entry, dict | list | str) or len(entry) < 4 else 1
    parent[key] = dice.choice(([small] * count, {f"k{number}": small for number in range(count)}, "y" * (8 * count)))


CHANGES: tuple[tuple[str, Callable[[Any, Any, Any, random.Random], None]], ...] = (
    ("delete", _delete),
    ("junk at", _junk),
    ("retype", _retype),
    ("bounds of", _bounds),
    ("from elsewhere at", _elsewhere),
    ("double", _double),
    ("order of", _order),
    ("insert at", _insert),
    ("rename", _rename),
    ("write into", _write),
    ("bloat", _bloat),
)


def _damaged_bytes(data: bytes, dice: random.Random) -> tuple[bytes, list[str]]:
    """A file that was damaged without regard to what stands in it, and what was done."""
    found, start = bytearray(data), dice.randrange(len(data))
    end = min(len(data), start + dice.choice((1, 2, 8, 200)))
    kind = dice.choice(("flip", "cut", "remove", "repeat", "noise", "token", "twice", "mark", "utf-16", "tail", "deep"))
    if kind == "flip":
        for _ in range(dice.choice((1, 1, 3))):
            found[dice.randrange(len(found))] ^= 1 << dice.randrange(8)
    elif kind == "cut":
        del found[start:]
    elif kind == "remove":
        del found[start:end]
    elif kind == "repeat":
        found[start:start] = found[start:end]
    elif kind == "noise":
        found[start:end] = dice.randbytes(end - start)
    elif kind == "token":
        colon = data.find(b": ", start)
        found[colon + 2 : colon + 2] = dice.choice(RAW).encode() + dice.choice((b"", b", ", b'"'))
    elif kind == "twice":
        # A name of the outermost object a second time, with another value or the same.
        name = dice.choice(sorted(json.loads(data)))
        again = f', "{name}": {json.dumps(dice.choice((json.loads(data)[name], 1)))}'
        found[data.rstrip().rfind(b"}") :] = again.encode("utf-8", "replace") + b"}"
    elif kind == "mark":
        found[:0] = b"\xef\xbb\xbf"
    elif kind == "utf-16":
        found = bytearray(data.decode("utf-8").encode("utf-16"))
    elif kind == "tail":
        found += dice.choice((b"{}", b"\x00", b"//", data))
    else:
        depth = dice.choice((20, 40, 5000, 100_000))
        found[:] = data.replace(b'"extensions"', b'"extensions": {"x": ' + b"[" * depth + b"]" * depth + b'}, "y"', 1)
    return bytes(found), [f"{kind} at byte {start}"]
