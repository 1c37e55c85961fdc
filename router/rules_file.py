"""Reads a file of rules (TOML) and refuses one that cannot be relied on. Pure functions of bytes.

``version`` is "major.minor". ``[phrases]`` names parts of patterns, for use as ``{NAME}`` in later ones. Each
``[[rule]]`` has an ``id``, the fine intent it decides (``fine``), an ``example`` and at least one of ``phrases``,
literal words, and ``pattern``, a regular expression or a list of them. Longer patterns may go on in the next line: a
line break and the spaces after it are no part of them. See :class:`.rule_set.Rule` for the rest.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from claspkit.profiles.errors import BadDataError, shorten

from .prompts import normalise
from .rule_set import Rule, RuleSet, phrase_pattern

_MAX_BYTES = 1_000_000
_MAX_PHRASE = 200
_REQUIRED = {"id", "fine", "example"}
_FIELDS = _REQUIRED | {"pattern", "phrases", "overrides", "fallback", "before"}
_NAME = re.compile(r"\{([A-Z][A-Z_]*)\}")
_ID = re.compile(r"[a-z]+(?:-[a-z]+)*")
_LITERAL = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)  # escaped characters and sets, where * is a star
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")


def load_rules(data: bytes, intents: Mapping[str, str]) -> RuleSet:
    """The rules of a file, every check passed: its patterns compile, and each example is decided by its own rule.

    Args:
        data: the file, UTF-8.
        intents: the class of each fine intent that there is.

    Raises:
        BadDataError: names the rule and what is wrong with it.
    """
    rules = parse_rules(data, intents)
    for rule in rules.rules:
        try:
            re.compile(rule.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise _wrong(rule.id, f"its pattern is no regular expression: {error}") from None
    for rule in rules.rules:
        found = rules.match(rule.example)
        if found is not rule:
            whose = f"rule {found.id!r}, which stands before it" if found else "no rule"
            raise _wrong(rule.id, f"its example {shorten(rule.example)} is decided by {whose}; reorder or reword them")
    return rules


def parse_rules(data: bytes, intents: Mapping[str, str]) -> RuleSet:
    """As :func:`load_rules`, but nothing is compiled or matched: quick, for a file that a test has checked."""
    found = _toml(data)
    version = found.get("version")
    if not (isinstance(version, str) and re.fullmatch(r"\d{1,4}\.\d{1,4}", version)):
        raise BadDataError(f'rules need a version like "1.0", found {shorten(version)}')
    rows = found.get("rule")
    if not (isinstance(rows, list) and rows):
        raise BadDataError("a file of rules needs at least one [[rule]]")
    parts = _parts(found.get("phrases", {}))
    rules = tuple(_rule(row, number, intents, parts) for number, row in enumerate(rows, 1))
    _check_order(rules)
    return RuleSet(version, rules)


def _toml(data: bytes) -> dict[str, Any]:
    if len(data) > _MAX_BYTES:
        raise BadDataError(f"a file of rules of {len(data)} bytes is too long; at most {_MAX_BYTES} are read")
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadDataError(f"the rules are no TOML in UTF-8: {error}") from None
    if odd := found.keys() - {"version", "phrases", "rule"}:
        raise BadDataError(f"rules have version, [phrases] and [[rule]]; unknown: {shorten(', '.join(sorted(odd)))}")
    return found


def _parts(named: Any) -> dict[str, str]:
    """The named parts of patterns, each in a group of its own."""
    if not isinstance(named, dict):
        raise BadDataError("[phrases] of rules must be a table of names")
    parts: dict[str, str] = {}
    for name, value in named.items():
        if not re.fullmatch(r"[A-Z][A-Z_]*", name):
            raise BadDataError(f"the name {shorten(name)} in [phrases] must be of capital letters and _")
        parts[name] = "(?:" + _expanded(name, value, parts) + ")"
    return parts


def _rule(row: Any, number: int, intents: Mapping[str, str], parts: Mapping[str, str]) -> Rule:
    name = row.get("id") if isinstance(row, dict) else None
    if not (isinstance(name, str) and _ID.fullmatch(name)):
        raise _wrong(f"number {number}", f"its id is {shorten(name)}; allowed are words of a-z joined by -")
    if odd := (_REQUIRED - row.keys()) | (row.keys() - _FIELDS):
        raise _wrong(name, f"missing or unknown fields: {', '.join(sorted(odd))}")
    if row["fine"] not in intents:
        raise _wrong(name, f"its fine intent is {shorten(row['fine'])}; there are: {', '.join(intents)}")
    if not (isinstance(row["example"], str) and row["example"].strip()):
        raise _wrong(name, "its example must be a prompt")
    for flag in ("overrides", "fallback"):
        if type(row.get(flag, False)) is not bool:
            raise _wrong(name, f"{flag} must be true or false")
    before = row.get("before", [])
    if not (isinstance(before, list) and all(isinstance(item, str) for item in before)):
        raise _wrong(name, "before must be a list of rule ids")
    alternatives = [_expanded(name, row["pattern"], parts)] if "pattern" in row else []
    alternatives += [_words(name, row["phrases"])] if "phrases" in row else []
    if not alternatives:
        raise _wrong(name, "it needs phrases or a pattern")
    fallback, overrides = row.get("fallback", False), row.get("overrides", False)
    return Rule(
        id=name,
        pattern="|".join(alternatives),
        fine=row["fine"],
        intent=intents[row["fine"]],
        example=row["example"],
        overrides=overrides,
        fallback=fallback,
        before=tuple(before),
    )


def _expanded(owner: str, value: Any, parts: Mapping[str, str]) -> str:
    """A pattern, or several as alternatives, with the named parts put in."""
    rows = value if isinstance(value, list) else [value]
    if not rows or not all(isinstance(row, str) and row for row in rows):
        raise _wrong(owner, "patterns must be text, or a list of texts")
    text = re.sub(r"\n\s*", "", "|".join(rows))
    if unknown := [name for name in _NAME.findall(text) if name not in parts]:
        raise _wrong(owner, f"{{{unknown[0]}}} is not in [phrases], or only further down")
    text = _NAME.sub(lambda found: parts[found[1]], text)
    if _UNBOUNDED.search(_LITERAL.sub("", text)):
        raise _wrong(owner, "quantifiers must be bounded: {0,40} and not * or +, which some prompts make slow")
    return text


def _words(owner: str, phrases: Any) -> str:
    if not (isinstance(phrases, list) and phrases and all(isinstance(item, str) for item in phrases)):
        raise _wrong(owner, "phrases must be a list of texts")
    words = [normalise(item) for item in phrases]
    for given, word in zip(phrases, words, strict=True):
        if not word or len(word) > _MAX_PHRASE:
            raise _wrong(owner, f"the phrase {shorten(given)} is empty or has over {_MAX_PHRASE} characters")
    return phrase_pattern(phrases)


def _check_order(rules: tuple[Rule, ...]) -> None:
    places = {rule.id: place for place, rule in enumerate(rules)}
    for place, rule in enumerate(rules):
        if places[rule.id] != place:
            raise _wrong(rule.id, "two rules have this id")
        if place and rules[place - 1].fallback and not rule.fallback:
            raise _wrong(rule.id, "it stands behind a fallback, which would decide first")
        for other in rule.before:
            if places.get(other, -1) <= place:
                raise _wrong(rule.id, f"it says that it stands before {shorten(other)}, and it does not")


def _wrong(rule: str, reason: str) -> BadDataError:
    return BadDataError(f"rule {rule}: {reason}")
