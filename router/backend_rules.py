"""The backend that needs no model: the rules alone."""

from __future__ import annotations

from collections.abc import Sequence

from claspkit.profiles.intents import DEFAULT_INTENT

from .backends import Backend
from .labels import Label
from .rules import Rule, match, rules_digest

NO_RULE = "rule:none"


def rule_label(rule: Rule) -> Label:
    """The label of a prompt that ``rule`` decides."""
    return Label(rule.intent, rule.fine, 1.0, f"rule:{rule.id}", rules_digest())


class RulesBackend(Backend):
    """Labels by the first rule that matches; confidence 1, or 0 and the default intent where none does."""

    def __init__(self) -> None:
        self.template = rules_digest()
        self.source = f"rules@{self.template[:12]}"
        self.block = 4096

    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt; about 0.1 ms each."""
        return [self._label(prompt) for prompt in prompts]

    def _label(self, prompt: str) -> Label:
        rule = match(prompt)
        return rule_label(rule) if rule else Label(DEFAULT_INTENT, None, 0.0, NO_RULE, self.template)
