"""Where the sentences of a normalised text end, and which of them ask or request something.

Patterns only, none of which looks further back than a word: all of it takes time linear in the text's length.
"""

from __future__ import annotations

import re
from typing import Final

# What a full stop may follow inside a sentence. "no." counts as one before a number only, for it ends sentences too.
_SHORT = (
    *("mr", "mrs", "ms", "dr", "st", "mt", "ft", "vs", "inc", "ltd", "co", "corp", "jr", "sr", "fig", "prof", "approx"),
    *("e.g", "i.e", "a.m", "p.m", "u.s", "u.k", "etc", "gen", "capt", "sgt", "rev", "gov", "sen", "dept", "ave"),
    *("blvd", "[a-z]"),
)
_END = re.compile(r"(?<=[.!?])" + "".join(rf"(?<!\b{word}\.)" for word in _SHORT) + r"(?!(?<=\bno\.) \d) ")

REQUESTS: Final = (
    r"(?:count|name|read|describe|identify|list|find|tell|give|state|estimate|transcribe|translate|explain|locate|"
    r"point|compare|solve|calculate|work out|complete|spell|guess|extract|determine|show|choose|select|convert|"
    r"measure|add up|summari[sz]e|write|draw|predict|suggest|recommend|classify|check|rate)\b"
)
"""A pattern of the verbs that requests begin with."""
QUESTION_WORDS: Final = r"(?:what|which|who|whose|whom|where|when|why|how)(?:'s|'re)?\b"
"""A pattern of the words that open questions begin with."""
AUXILIARIES: Final = r"(?:is|are|was|were|do|does|did|can|could|will|would|has|have|should)\b"
"""A pattern of the words that yes-no questions begin with."""

_REQUEST = re.compile(rf"(?:(?:please|now|then|first|next|also|and|so|ok|okay|hi|hello|hey),? )*{REQUESTS}")
# A question whose mark is missing: where a sentence begins, or a clause, where "who" and "which" mostly refer back.
_UNMARKED = re.compile(
    r"(?:(?:and|so|but|please|ok|okay|hi|hello|hey),? )*(?:"
    r"(?:what(?! an? )|which|who|whose|whom|why|how)(?:'s|'re)?\b"
    r"|(?:where|when)(?:'s| (?:is|are|was|were|do|does|did))\b"
    r"|(?:is|are|was|were|does|did|can|could|would|will) (?:you|it|this|that|there|the|he|she|they|these|those|any)\b)"
    r"|.*?[,;:] (?:and |but |so )?"
    r"(?:how (?:many|much)|what(?:'s| (?:is|are|was|were|do|does|did|colou?r|kind|type)))\b"
)
_NOTHING_ASKED = re.compile(
    r"(?:(?:so|and|please|ok|okay|well),? )?(?:"
    r"(?:can|could|would|will) you(?: please)?(?: (?:help|tell|do|answer|explain|see)(?: me)?(?: out)?"
    r"(?: with)?(?: this| that| it)?)?|do you (?:know|see)(?: this| that| it)?|any ideas?|please|right|ok|okay|yes|no"
    r"|is (?:that|this|it) (?:right|correct|true|ok|okay|so|clear|possible)|am i right|isn't it|got it|ready|thanks"
    r"|don't you think|you know|would you mind|does (?:that|this) make sense"
    r")(?:,? please)?\?"
)


def sentences(text: str) -> list[str]:
    """The sentences of a normalised text, their marks kept; abbreviations ("st. bernard", "acme inc.") end none."""
    return _END.split(text)


def is_request(sentence: str) -> bool:
    """Whether a sentence begins with a verb of :data:`REQUESTS`, "please" and the like before it."""
    return _REQUEST.match(sentence) is not None


def asks(sentence: str) -> bool:
    """Whether a sentence asks or requests something; "can you?" or "is that right?" alone asks nothing."""
    if _NOTHING_ASKED.fullmatch(sentence):
        return False
    return sentence[-1:] == "?" or is_request(sentence) or _UNMARKED.match(sentence) is not None
