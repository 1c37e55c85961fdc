"""200 injections: what an untrusted prompt may hold beside its question. Data; nothing of it is ever run.

Each kind puts each of its texts (:mod:`.injection_texts`) in two places of a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .injection_texts import HELD_OUT, TUNED

PLACES: Final = ("before", "after", "around", "within", "between")
"""Where a text goes: in front of the prompt, behind it, both, at a space in its middle, between all its letters."""

_OF_KIND: Final = {"control": ("after", "within"), "invisible": ("around", "between"), "special": ("after", "within")}
_USUAL: Final = ("before", "after")


@dataclass(frozen=True)
class Injection:
    """One way to attack a prompt.

    Attributes:
        kind: what it tries, such as "override" or "json".
        text: what it adds.
        place: one of PLACES.
        target: the intent id that it wants the prompt to have, or None.
        held_out: whether its text played no part when the routers were made to withstand injections.
    """

    kind: str
    text: str
    place: str
    target: str | None
    held_out: bool

    def into(self, prompt: str) -> str:
        """The attacked prompt; the carrier's own letters stay, in their order."""
        if self.place == "before":
            return f"{self.text} {prompt}"
        if self.place == "after":
            return f"{prompt} {self.text}"
        if self.place == "around":
            return f"{self.text} {prompt} {self.text}"
        if self.place == "between":
            return self.text.join(prompt)
        middle = prompt.find(" ", len(prompt) // 2)
        return f"{prompt[:middle]} {self.text} {prompt[middle:]}" if middle >= 0 else f"{prompt} {self.text}"


def _all() -> tuple[Injection, ...]:
    return tuple(
        Injection(kind, text, place, target, held_out)
        for texts, held_out in ((TUNED, False), (HELD_OUT, True))
        for kind, wordings in texts.items()
        for text, target in wordings
        for place in _OF_KIND.get(kind, _USUAL)
    )


INJECTIONS: Final = _all()
KINDS: Final = tuple(dict.fromkeys(injection.kind for injection in INJECTIONS))
