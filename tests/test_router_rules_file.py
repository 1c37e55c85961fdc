"""Files of rules: what is read, and what is refused with which words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claspkit.profiles.errors import BadDataError
from claspkit.router.rule_set import RuleSet
from claspkit.router.rules_file import load_rules, parse_rules

INTENTS = {"weed": "plants", "crop": "plants", "other": "default"}
HEAD = 'version = "1.0"\n'


def row(name: str = "weeds", fine: str = "weed", says: str = 'phrases = ["weed"]', example: str = "A weed?") -> str:
    """One [[rule]]."""
    return f'[[rule]]\nid = "{name}"\nfine = "{fine}"\n{says}\nexample = "{example}"\n'


def read(text: str) -> RuleSet:
    """The rules of a text, all checks included."""
    return load_rules(text.encode("utf-8"), INTENTS)


def test_the_first_rule_that_matches_decides() -> None:
    """Of a user's own classes, by literal words."""
    rules = read(HEAD + row() + row("crops", "crop", 'phrases = ["corn", "oats"]', "Is that corn?"))
    both = rules.matches("Is there a weed in the oats?")
    assert [(rule.id, rule.fine, rule.intent) for rule in both] == [
        ("weeds", "weed", "plants"),
        ("crops", "crop", "plants"),
    ]
    assert rules.match("Is there a weed in the oats?") is both[0]
    assert rules.match("What is the weather like?") is None
    assert rules.version == "1.0"


def test_phrases_are_literal_and_no_parts_of_words() -> None:
    """Signs that mean something in a pattern mean themselves; case, spaces and quotes do not matter."""
    rules = read(HEAD + row(says='phrases = ["C++ (new)", "what’s  up"]', example="Is it c++ (new)?"))
    assert rules.match("see C++  (NEW)!") is not None
    assert rules.match("What's up") is not None
    for other in ("ccc (new)", "xc++ (new)", "what's upset"):
        assert rules.match(other) is None, other


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.strip() == text and text.isalnum() and text.isascii()))
def test_any_word_is_found_where_it_stands_alone(word: str) -> None:
    """And not inside a longer one."""
    rules = read(HEAD + row(says=f'phrases = ["{word}"]', example=f"which {word} is it"))
    assert rules.match(f"is it ({word})") is not None
    assert rules.match(f"is it x{word}y") is None


def test_named_parts_and_line_breaks_of_patterns() -> None:
    """A part is a group of its own, and may use earlier ones; breaks and the spaces after them are left out."""
    parts = """[phrases]\nGREEN = ["oats", "rye"]\nALL = '''{GREEN}|\n   weeds?'''\n"""
    rules = read(HEAD + parts + row(says="pattern = ['''^the {ALL}\\b''', '''\\bx{2}y''']", example="The rye"))
    found = [prompt for prompt in ("the oats", "the weed", "rye", "weeds", "an xxy", "{ALL}") if rules.match(prompt)]
    assert found == ["the oats", "the weed", "an xxy"]


def test_phrases_and_patterns_may_stand_together() -> None:
    """Either is enough."""
    rules = read(HEAD + row(says="phrases = ['oats']\npattern = '^rye'", example="oats"))
    assert [rules.match(prompt) is not None for prompt in ("my oats", "rye?", "my rye")] == [True, True, False]


def test_the_digest_is_of_what_decides() -> None:
    """Examples and relations may be reworded; the order, phrases, intents and sureness may not."""
    first, second = row(), row("crops", "crop", 'phrases = ["corn"]', "corn")
    base = read(HEAD + first + second).digest
    assert read(HEAD + first.replace("A weed?", "What weed?") + second).digest == base
    others = [second + first, first.replace('"weed"]', '"weeds"]').replace("A weed?", "weeds") + second, first]
    others += [first + "overrides = true\n" + second, first.replace('fine = "weed"', 'fine = "other"') + second]
    digests = [read(HEAD + text).digest for text in others]
    assert len({base, *digests}) == len(others) + 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "version"),
        ("version = 1", "version"),
        ("version = [", "no TOML"),
        (HEAD, "at least one [[rule]]"),
        (HEAD + "rule = 3", "at least one [[rule]]"),
        (HEAD + row() + "[other]\n", "unknown: 'other'"),
        (HEAD + row(name="Weeds"), "its id is 'Weeds'"),
        (HEAD + row() + row(), "rule weeds: two rules have this id"),
        (HEAD + row(fine="tree"), "its fine intent is 'tree'; there are: weed, crop, other"),
        (HEAD + row(example=" "), "example must be a prompt"),
        (HEAD + row() + "colour = 1", "unknown fields: colour"),
        (HEAD + row().replace('example = "A weed?"\n', ""), "missing or unknown fields: example"),
        (HEAD + row(says=""), "needs phrases or a pattern"),
        (HEAD + row(says="phrases = []"), "list of texts"),
        (HEAD + row(says='phrases = "weed"'), "list of texts"),
        (HEAD + row(says='phrases = ["  "]'), "is empty or has over 200"),
        (HEAD + row(says="pattern = 3"), "patterns must be text"),
        (HEAD + row(says="pattern = '(weed'"), "no regular expression"),
        (HEAD + row(says="pattern = 'we{1,99999999999}'"), "no regular expression"),
        (HEAD + row(says="pattern = 'we*d'"), "quantifiers must be bounded"),
        (HEAD + row(says="pattern = 'we+d'"), "quantifiers must be bounded"),
        (HEAD + row(says="pattern = 'we{2,}d'"), "quantifiers must be bounded"),
        (HEAD + row(says="pattern = '{NAME}'"), "{NAME} is not in [phrases]"),
        (HEAD + "[phrases]\nA = '{B}'\nB = 'x'\n" + row(), "{B} is not in [phrases], or only further down"),
        (HEAD + "[phrases]\na = 'x'\n" + row(), "capital letters"),
        (HEAD + row() + 'overrides = "yes"', "overrides must be true or false"),
        (HEAD + row() + "before = 3", "before must be a list"),
        (HEAD + row() + 'before = ["crops"]', "it says that it stands before 'crops', and it does not"),
        (HEAD + row() + "fallback = true\n" + row("crops", "crop"), "rule crops: it stands behind a fallback"),
        (HEAD + row() + row("crops", "crop"), "rule crops: its example 'A weed?' is decided by rule 'weeds'"),
        (HEAD + row(example="A tree?"), "rule weeds: its example 'A tree?' is decided by no rule"),
        ("#" * 1_000_001, "too long"),
    ],
)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    """Each with the rule's name, where there is one."""
    with pytest.raises(BadDataError, match=re.escape(reason)):
        read(text)


def test_stars_that_are_no_quantifiers_are_allowed() -> None:
    """Escaped ones, and those in a set."""
    rules = read(HEAD + row(says=r"pattern = '''\*[*+]\+x'''", example="is it *++x"))
    assert rules.match("a **+x") is not None


def test_what_is_no_text_is_refused() -> None:
    """Bytes that are not UTF-8."""
    with pytest.raises(BadDataError, match="no TOML in UTF-8"):
        load_rules(b"\xff\xfe", INTENTS)


def test_reading_alone_compiles_nothing() -> None:
    """A wrong pattern passes the quick reading, which is for files that a test has put through the whole one."""
    text = (HEAD + row(says="pattern = '(weed'")).encode()
    assert parse_rules(text, INTENTS).rules[0].pattern == "(weed"
