"""The answer of a router: which intent a prompt has, how sure that is, and who says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from claspkit.profiles.errors import CorruptError, shorten
from claspkit.profiles.intents import STANDARD
from claspkit.profiles.taxonomy import Taxonomy

UNREAD = "!unread"
"""End of a source whose answer could not be read: the label is the default intent with confidence 0."""


@dataclass(frozen=True)
class Label:
    """One routed prompt.

    Attributes:
        intent: id of one of the classes.
        fine: id of one of the fine intents, or None where nobody decided on one.
        confidence: in [0, 1]; 0 where nothing spoke for the intent.
        source: who decided: ``teacher:<model>@<revision>``, ``rule:<id>``, ``rule:none``, ``student:<digest>``, or
            ``replay:`` and who did when it was recorded. It ends with UNREAD where a teacher's answer was no use.
        template: digest of the rules, teacher prompt or weights behind the decision.
    """

    intent: str
    fine: str | None
    confidence: float
    source: str
    template: str

    @property
    def flagged(self) -> bool:
        """Whether a teacher was asked and its answer could not be read."""
        return self.source.endswith(UNREAD)

    def to_dict(self) -> dict[str, Any]:
        """The label as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], taxonomy: Taxonomy = STANDARD) -> Label:
        """The label written by :meth:`to_dict`, of the classes of ``taxonomy``.

        Raises:
            CorruptError: names the field that is missing, unknown or wrong.
        """
        names = {"intent", "fine", "confidence", "source", "template"}
        if fields.keys() != names:
            odd = ", ".join(sorted(map(str, fields.keys() ^ names)))
            raise CorruptError(f"a label has the wrong fields, look at: {shorten(odd)}")
        intent, fine, confidence = fields["intent"], fields["fine"], fields["confidence"]
        if intent not in taxonomy.ids:
            raise CorruptError(f"a label's intent is {shorten(intent)}; there are: {', '.join(taxonomy.ids)}")
        if fine is not None and not (fine in taxonomy.fine_ids and taxonomy.merge(fine) == intent):
            raise CorruptError(f"a label's fine intent {shorten(fine)} does not belong to {intent!r}")
        if type(confidence) not in {int, float} or not 0 <= confidence <= 1:
            raise CorruptError(f"a label's confidence is {shorten(confidence)}, it must be within 0 and 1")
        if not (isinstance(fields["source"], str) and isinstance(fields["template"], str)):
            raise CorruptError("a label's source and template must be text")
        return cls(intent, fine, float(confidence), fields["source"], fields["template"])


def unread(source: str, template: str, taxonomy: Taxonomy = STANDARD) -> Label:
    """The label of a prompt whose teacher, ``source``, gave no answer that could be read."""
    return Label(taxonomy.default, None, 0.0, source + UNREAD, template)


def settle(label: Label, min_confidence: float, fallback: str) -> Label:
    """The label, or ``fallback`` in its place if it is less sure than ``min_confidence``.

    The default costs little where a wrong class costs much. Confidence, source and template stay.
    """
    if label.confidence >= min_confidence:
        return label
    return Label(fallback, None, label.confidence, label.source, label.template)


def source_counts(labels: Iterable[Label]) -> dict[str, int]:
    """How many labels each source gave, sorted by source."""
    return dict(sorted(Counter(label.source for label in labels).items()))
