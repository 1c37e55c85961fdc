"""The backend that needs no model: the rules alone."""

from __future__ import annotations

from collections.abc import Sequence

from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import STANDARD, is_standard
from claspkit.profiles.taxonomy import Taxonomy

from .backends import Backend
from .labels import Label
from .phrases import PhraseMatcher
from .rules import Rule, match, rules_digest

NO_RULE = "rule:none"


def rule_label(rule: Rule) -> Label:
    """The label of a prompt that ``rule`` decides."""
    return Label(rule.intent, rule.fine, 1.0, f"rule:{rule.id}", rules_digest())


class RuleSet:
    """The rules of a taxonomy: its own, or for the standard one those of claspkit; others without rules have none.

    Attributes:
        template: digest of the rules.
    """

    def __init__(self, taxonomy: Taxonomy = STANDARD) -> None:
        self._own = None if is_standard(taxonomy) else PhraseMatcher(taxonomy)
        self.template = self._own.template if self._own else rules_digest()

    def find(self, prompt: str, *, overriding: bool = False) -> Label | None:
        """The label of the first rule that matches, None where none does.

        Args:
            prompt: any text.
            overriding: only if that rule may overrule a teacher.
        """
        if self._own is not None:
            return self._own.find(prompt, overriding=overriding)
        rule = match(prompt, overriding=overriding)
        return rule_label(rule) if rule else None


class RulesBackend(Backend):
    """Labels by the first rule that matches; confidence 1, or 0 and the default intent where none does.

    Raises:
        UsageError: a taxonomy of one's own that has no rules.
    """

    def __init__(self, taxonomy: Taxonomy = STANDARD) -> None:
        if not taxonomy.rules and not is_standard(taxonomy):
            raise UsageError(
                f"the taxonomy {taxonomy.name!r} has no rules to label by: give it [[rule]] tables, or choose another "
                "--router, for example transformers"
            )
        self.taxonomy = taxonomy
        self._rules = RuleSet(taxonomy)
        self.template = self._rules.template
        self.source = f"rules@{self.template[:12]}"
        self.block = 4096

    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt; about 0.1 ms each."""
        nobody = Label(self.taxonomy.default, None, 0.0, NO_RULE, self.template)
        return [self._rules.find(prompt) or nobody for prompt in prompts]
