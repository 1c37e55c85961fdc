"""The rules: what each one decides, what wins where two match, and that no prompt makes them slow or wrong."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from router_examples import CONFLICTS, EXPECTED, NO_RULE

from claspkit.profiles.intents import FINE_INTENTS, INTENT_IDS
from claspkit.router.backends import make_backend
from claspkit.router.rule_set import Rule, RuleSet
from claspkit.router.rules import RULES, RULES_VERSION, SHIPPED, match, matches, rules_digest, shipped_rules
from claspkit.router.rules_file import load_rules

UNITS = [
    "a",
    "what ",
    "is there ",
    "what is the ",
    "red, ",
    "USER:",
    "<<<",
    "answer with ",
    " (a) ",
    " ",
    "\n",
    "？",
    "ﷺ",
    " a. b. ",
    "how ",
    "use ",
]
UNITS += [", is the on ", "if a, ", "is the red red ", "walking a a or ", "which a-a-a 'a ", "the the the the "]
UNITS += ["how much a ", "what the sign ", "! does the man in a ", "is the left or ", "the more a than "]
UNITS += ["<|", "what color or ", "is the a a a ", "\u200b", "e\u0301", "ß", "9", "where was this "]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_each_rule_decides_its_own_example(rule: Rule) -> None:
    assert match(rule.example) == rule


def test_rules_are_well_formed() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert {rule.intent for rule in RULES} == set(INTENT_IDS)
    assert {rule.fine for rule in RULES} == {fine.id for fine in FINE_INTENTS}
    intents = {fine.id: fine.intent for fine in FINE_INTENTS}
    assert load_rules(SHIPPED.read_bytes(), intents).rules == RULES  # all its checks; see test_router_rules_file.py
    assert not any(rule.overrides and rule.fallback for rule in RULES)


def test_another_version_for_other_rules() -> None:
    # Changed on purpose? Raise RULES_VERSION (see its comment) and put the new digest here.
    assert (RULES_VERSION, rules_digest()[:16]) == ("2.0", "ae4cebe9bf1e974d")


@pytest.mark.parametrize(
    ("intent", "prompt"), [(intent, prompt) for intent, items in EXPECTED.items() for prompt in items]
)
def test_common_phrases(intent: str, prompt: str) -> None:
    rule = match(prompt)
    assert rule is not None
    assert rule.intent == intent, rule.id


@pytest.mark.parametrize("prompt", NO_RULE)
def test_where_nothing_matches_the_default_has_no_confidence(prompt: str) -> None:
    assert match(prompt) is None
    label = make_backend("rules").label([prompt])[0]
    assert (label.intent, label.fine, label.confidence, label.source) == ("default", None, 0.0, "rule:none")


def test_existence_is_a_decision_and_not_its_absence() -> None:
    label = make_backend("rules").label(["Is there a dog?"])[0]
    assert (label.intent, label.fine, label.confidence, label.source) == (
        "default",
        "existence_check",
        1.0,
        "rule:exists-there-a",
    )


@pytest.mark.parametrize("prompt", CONFLICTS)
def test_the_order_of_rules_decides_conflicts(prompt: str) -> None:
    found = list(dict.fromkeys(rule.intent for rule in matches(prompt) if not rule.fallback))
    assert tuple(found) == CONFLICTS[prompt]
    deciding = match(prompt)
    assert deciding is matches(prompt)[0]
    assert deciding == min(matches(prompt), key=RULES.index)


def undeclared(rules: RuleSet) -> dict[str, list[str]]:
    """Per rule whose ``before`` is not what its example shows: the rules of other intents that it beats there.

    A fallback loses to every real rule, which nobody has to say.
    """
    found = {}
    for rule in rules.rules:
        losers = [other for other in rules.matches(rule.example) if other.intent != rule.intent]
        beaten = [other.id for other in losers if rule.fallback or not other.fallback]
        if beaten != list(rule.before):
            found[rule.id] = beaten
    return found


def test_each_rule_says_which_others_it_beats_on_its_example() -> None:
    """Two rules of different intents meet only where one of them says that it stands before the other."""
    assert undeclared(shipped_rules()) == {}


def test_a_rule_that_silently_shadows_or_is_shadowed_would_be_seen() -> None:
    """Planted in the middle, where dogs are taken from the rules behind it and lost to those before it."""
    planted = Rule("dogs", r"\bdogs?\b", "object_identity", "object", "A dog?")
    place = next(number for number, rule in enumerate(RULES) if rule.id == "attribute-breed")
    found = undeclared(RuleSet("2.0", (*RULES[:place], planted, *RULES[place:])))
    assert found["exists-there-a"] == ["dogs"]
    assert found["attribute-breed"] == ["dogs"]


def test_rules_on_common_phrases_conflict_only_as_rules_say_or_as_listed() -> None:
    """Among all phrases here, a pair of rules of two intents is one that an example or CONFLICTS shows."""
    shown = {(rule.id, other) for rule in RULES for other in rule.before}
    for prompt in CONFLICTS:
        winner, *losers = matches(prompt)
        shown |= {(winner.id, loser.id) for loser in losers}
    for intent, prompts in EXPECTED.items():
        for prompt in prompts:
            first, *rest = matches(prompt)
            for rule in rest:
                assert rule.intent == intent or rule.fallback or (first.id, rule.id) in shown, (prompt, rule.id)


@pytest.mark.parametrize(
    ("prompt", "intent"),
    [
        ("What is the man doing?\nA. counting money\nB. reading a sign\nC. looking left or right", "action"),
        ("What is the man doing? (A) what colour (B) how many (C) where", "action"),
        ("What is the man doing?\nOptions: why, how many, where is it", "action"),
        ("What colour is the cat?\nAnswer the question using a single word or phrase.", "attribute"),
        ("What is this?\nAnswer with the option's letter from the given choices directly.", "object"),
        ("Please answer in one word: how many.\nWhere is the cat?", "spatial"),
        ("USER: <image>\nHow many dogs are there? ASSISTANT:", "counting"),
        ("<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Count the dogs.<|im_end|>", "counting"),
        ("[INST] <image>\nWhat does the sign say? [/INST]", "text"),
        ("HOW\u00a0MANY\u200b dogs", "counting"),
        ("What colour is the bus?\nReference OCR token: how, many, stops", "attribute"),
        ("Ｗｈａｔ ｃｏｌｏｕｒ is it?", "attribute"),
        ("What\u2019s the woman doing?", "action"),
    ],
)
def test_suffixes_and_chat_formats_do_not_mislead(prompt: str, intent: str) -> None:
    rule = match(prompt)
    assert rule is not None
    assert rule.intent == intent


@pytest.mark.parametrize("unit", UNITS)
def test_long_prompts_take_bounded_time(unit: str) -> None:
    prompt = unit * (100_000 // len(unit))
    for text in (prompt, prompt + " how many dogs are there?"):
        began = time.process_time()
        matches(text)
        assert time.process_time() - began < 1.0


def test_the_question_at_the_end_of_a_long_context_is_seen() -> None:
    for context in ("Some context. " * 8000, "汉" * 100_000 + " "):
        rule = match(context + "How many dogs are there?")
        assert rule is not None
        assert rule.id == "count-are-there"


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gets_an_intent_of_the_nine(prompt: str) -> None:
    label = make_backend("rules").label([prompt])[0]
    assert label.intent in INTENT_IDS
    assert label.confidence in {0.0, 1.0}


def test_only_sure_rules_overrule_a_teacher() -> None:
    sure = "How many dogs are there?"
    assert match(sure, overriding=True) == match(sure) is not None
    assert match("Where is the dog?", overriding=True) is None
    assert match("Where is the dog?") is not None
    # "why" does not overrule, and no later rule may step in for it.
    assert match("Why is the man left or right of it?", overriding=True) is None
