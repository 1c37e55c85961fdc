"""The rules of a user's own taxonomy: literal phrases, found as whole words in a prompt's question."""

from __future__ import annotations

import re

from claspkit.profiles.canonical import digest
from claspkit.profiles.taxonomy import PhraseRule, Taxonomy

from .labels import Label
from .prompts import normalise, question


class PhraseMatcher:
    """Decides prompts by the rules of ``taxonomy``, the first that matches.

    Phrases are compared in the prompts' one form (:func:`.prompts.normalise`) and are no regular expressions: a file
    from elsewhere makes no search slow.

    Attributes:
        template: digest of the rules.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self._rules = [(rule, _pattern(rule)) for rule in taxonomy.rules]
        self.template = digest([[rule.id, rule.fine, list(rule.phrases), rule.overrides] for rule in taxonomy.rules])

    def find(self, prompt: str, *, overriding: bool = False) -> Label | None:
        """The label of the first rule that matches; None where none does, or where it may not overrule as asked."""
        text = question(normalise(prompt))
        for rule, pattern in self._rules:
            if pattern.search(text):
                if overriding and not rule.overrides:
                    return None
                return Label(self._taxonomy.merge(rule.fine), rule.fine, 1.0, f"rule:{rule.id}", self.template)
        return None


def _pattern(rule: PhraseRule) -> re.Pattern[str]:
    wanted = "|".join(re.escape(normalise(phrase) or phrase) for phrase in rule.phrases)
    return re.compile(rf"(?<!\w)(?:{wanted})(?!\w)")
