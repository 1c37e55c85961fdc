"""docs/router.md and docs/format-profile.md say what the code does."""

import json
import re
from typing import Any

from house import ROOT

from claspkit.profiles.files import profile_schema
from claspkit.profiles.intents import FINE_INTENTS, INTENTS
from claspkit.router.backends import BACKENDS
from claspkit.router.rules import RULES, RULES_VERSION

ROUTER = (ROOT / "docs" / "router.md").read_text(encoding="utf-8")
FORMAT = (ROOT / "docs" / "format-profile.md").read_text(encoding="utf-8")


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = text.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_classes() -> None:
    expected = [
        [
            str(intent.index),
            f"`{intent.id}`",
            intent.name,
            ", ".join(f"`{fine.id}`" for fine in FINE_INTENTS if fine.intent == intent.id),
        ]
        for intent in INTENTS
    ]
    assert table(ROUTER, "Classes") == expected


def test_backends() -> None:
    assert [row[0] for row in table(ROUTER, "Backends")] == [f"`{name}`" for name in BACKENDS]


def test_rules() -> None:
    expected = [
        [f"`{rule.id}`", f"`{rule.fine}`", f"`{rule.intent}`", "yes" if rule.overrides else "", rule.example]
        for rule in RULES
    ]
    assert table(ROUTER, f"Rules, version {RULES_VERSION}") == expected


def fields(schema: dict[str, Any], node: dict[str, Any], here: str = "") -> set[str]:
    """Dotted names of all leaves of a JSON Schema, ``[]`` for arrays of objects."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in node:  # an optional one: the other is null
        node = next(part for part in node["anyOf"] if part.get("type") != "null")
    if "properties" in node:
        inner = [fields(schema, part, f"{here}.{name}" if here else name) for name, part in node["properties"].items()]
        return set().union(*inner)
    items = node.get("items", {})
    return fields(schema, items, f"{here}[]") if "$ref" in items else {here}


def test_every_field_of_the_format_has_a_place_in_the_table() -> None:
    schema = json.loads(profile_schema())
    wanted = fields(schema, schema)
    rows = table(FORMAT, "Fields")
    named = {name for row in rows for cell in (row[0], row[2]) for name in re.findall(r"`([a-z_0-9.\[\]]+)`", cell)}
    named |= {f"calibration.datasets[].{name}" for row in rows if row[0] == "`calibration.datasets[]`"
              for name in re.findall(r"`(\w+)`", row[2])}  # fmt: skip
    assert wanted - named == set()
    assert {name for row in rows for name in re.findall(r"`([a-z_0-9.\[\]]+)`", row[0])} - wanted == {
        "classes[]",
        "intents[]",
        "calibration.datasets[]",
    }
