"""The shipped rules: phrases of English questions about pictures, and the fine intent each one decides.

They stand in ``rules.toml``, most telling first: from what is asked ("how many", "what colour") over what is checked
("is it raining?") to the mere form of a question ("who ...").
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from claspkit.profiles.intents import FINE_INTENTS

from .rule_set import Rule, RuleSet
from .rules_file import parse_rules

__all__ = ["RULES", "RULES_VERSION", "SHIPPED", "Rule", "match", "matches", "rules_digest", "shipped_rules"]

SHIPPED = Path(__file__).with_name("rules.toml")


@cache
def shipped_rules() -> RuleSet:
    """The rules of this version, read once; a test puts them through all checks of :func:`.rules_file.load_rules`."""
    return parse_rules(SHIPPED.read_bytes(), {fine.id: fine.intent for fine in FINE_INTENTS})


RULES: tuple[Rule, ...] = shipped_rules().rules
# "Major.minor". A change that gives some prompt another intent raises the major number; a profile made under
# another major number routes differently and is refused.
RULES_VERSION: str = shipped_rules().version


def matches(prompt: str) -> list[Rule]:
    """Every rule that matches, in the order of RULES; the first one decides."""
    return shipped_rules().matches(prompt)


def match(prompt: str, *, overriding: bool = False) -> Rule | None:
    """The rule that decides a prompt, or None where no rule matches; see :meth:`.rule_set.RuleSet.match`."""
    return shipped_rules().match(prompt, overriding=overriding)


def rules_digest() -> str:
    """SHA-256 of all rules in their order: what labels name as their template."""
    return shipped_rules().digest
