"""Rules in their order, and what they decide."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from claspkit.profiles.canonical import digest

from .prompts import asked, normalise, question, window

# What a data set's template appends to a question: words read from the picture beforehand, which ask for nothing.
_READ_BEFORE = re.compile(r"\b(?:reference )?ocr tokens?\s?:")


@dataclass(frozen=True)
class Rule:
    """One thing that prompts say, and what it makes them.

    Attributes:
        id: its name in label sources.
        pattern: regular expression, searched in the normalised question (:func:`.prompts.question`).
        fine: the fine intent it decides.
        intent: the id of the class that its fine intent belongs to.
        example: a prompt that it decides.
        overrides: whether it also overrules a teacher; only phrases that leave no doubt do.
        fallback: whether it only reads the form of a question. It stands after all rules that do more.
        before: ids of later rules of other classes that match its example as well, and lose; fallbacks are left out.
    """

    id: str
    pattern: str
    fine: str
    intent: str
    example: str
    overrides: bool = False
    fallback: bool = False
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleSet:
    """Rules in deciding order.

    Attributes:
        version: "major.minor"; another major number gives some prompt another class.
        rules: the first one that matches decides.
        whole: search the whole normalised prompt, options and instructions included, not the question alone.
    """

    version: str
    rules: tuple[Rule, ...]
    whole: bool = False

    def matches(self, prompt: str) -> list[Rule]:
        """Every rule that matches, in order; the first one decides."""
        text = self._text(prompt)
        return [rule for rule in self.rules if _compiled(rule.pattern).search(text)]

    def match(self, prompt: str, *, overriding: bool = False) -> Rule | None:
        """The rule that decides a prompt, or None where no rule matches.

        Args:
            prompt: any text.
            overriding: return the deciding rule only if it may overrule a teacher.
        """
        text = self._text(prompt)
        for rule in self.rules:
            if _compiled(rule.pattern).search(text):
                return rule if rule.overrides or not overriding else None
        return None

    def _text(self, prompt: str) -> str:
        return window(normalise(prompt)) if self.whole else _stem(prompt)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all rules in their order: what labels name as their template."""
        return digest([[rule.id, rule.pattern, rule.fine, rule.overrides] for rule in self.rules])


def phrase_pattern(phrases: Sequence[str]) -> str:
    """A pattern of literal phrases in the form that prompts are compared in, none of them inside a word."""
    words = (re.escape(normalise(phrase) or phrase) for phrase in phrases)
    return r"(?<!\w)(?:" + "|".join(words) + r")(?!\w)"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _stem(prompt: str) -> str:
    """The question that rules look at."""
    text = question(normalise(prompt))
    return asked(_READ_BEFORE.split(text, maxsplit=1)[0].strip() or text)
