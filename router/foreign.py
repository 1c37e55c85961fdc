"""What stands in a prompt and is recognisably no question: chat turns, code, JSON, markup, orders, padding.

All of it works on normalised text (lower case, single spaces), takes time linear in its length, and leaves a text
as it is rather than empty. Prompts without a sign of such matter are not touched and cost next to nothing.
"""

from __future__ import annotations

import re
from typing import Final

MARKERS: Final = re.compile(
    r"<\|[^|<>\s]{1,40}\|>(?:\s?(?:system|user|assistant)\b)?"  # <|im_start|>user, <|image_pad|>
    r"|</?(?:image|images|video|img|s|bos|eos|pad|unk|end_of_turn)(?:[ _-]?\d{1,4})?>"
    r"|<start_of_turn>(?:\s?(?:user|model)\b)?"
    r"|\[/?inst\]|<</?sys>>"
    r"|(?:^|(?<=\s))(?:#{2,4}\s?)?(?:user|human|assistant|gpt)\s?:"
)
"""What chat formats leave around turns."""
_MARKER_SIGNS = ("<", "[", ":")  # each marker has one of them
# Markers after which somebody else speaks, and after which the user does.
_OTHERS = re.compile(r"system\b|assistant\b|gpt\b|>\s?model\b|\[/inst\]|<<sys>>")
_USERS = re.compile(r"user\b|human\b|\[inst\]|<</sys>>|im_end|eot|end_of_turn|<\|end\|>|</s>")

_CODE_SIGNS = ("<", "|", "{", "[", "'''", "~~~")
_ORDER_SIGNS = (
    *("answer", "reply", "respond", "output", "ignor", "disregard", "forget", "vergiss", "olvid", "oubli"),
    *("you are now ", "label", "intent", "class", "category", "confidence"),
)
_ORDERS = re.compile(
    # Sentences that speak about other instructions, unless they ask something.
    r"\b(?:please )?(?:ignor(?:e|iere?n?|a|ez)|disregard|forget|vergiss|olvida|oublie[zs]?)"
    r" [^.!?]{0,120}\b(?:above|previous|prior|before|earlier|preceding|instructions?|prompts?|anweisung(?:en)?|"
    r"instruc\w{1,10}|everything|anterior(?:es)?|pr[e\u00e9]c[e\u00e9]dent\w{0,3})\b[^.!?]{0,120}(?:[.!]|$)"
    r"|\byou are now [^.!?]{1,80}(?:[.!]|$)"
    r"|(?:^|(?<=[.!?:,;] )|\b(?:please|always|only|just|simply|then|and) )(?:answer|reply|respond|output)"
    r"(?: only| always)?(?: with| by)?"
    r"(?: (?:one|the) letter:?)? \w{1,20}(?:[.!]|$)"
    # Statements about the prompt's own class.
    r"|\bthe (?:answer|(?:class|label|category|intent|kind) of (?:this|the) (?:question|prompt)) is [^.!?]{1,60}"
    r"(?:[.!]|$)"
    r"|\b(?:intent|label|class|category|confidence) ?[:=] ?\w[\w.-]{0,40}"
)
_CODE = re.compile(
    r"'''(?:(?!''').){0,2000}'''|~~~[^~]{0,2000}~~~"
    r"|<!--.{0,2000}?-->|<(script|style)\b[^<>]{0,200}>[^<]{0,2000}</\1>|</?[a-z][^<>]{0,200}>"
    r'|[\[{](?:[\[{ ]|"[^"{}\[\]]{0,80}" ?: ?(?=[\[{])){0,8}"[^{}\[\]]{0,500}:[^{}\[\]]{0,500}(?:[\]}] ?){1,4}'
    r"|\|(?: [^|]{0,60}\|| ?:?-{2,}:? ?\|){2,}"
)
_EDGES = " -=|<>*#~`{}[];/\\"

LONG: Final = 1000
"""Characters from which on padding is looked for, and questions are read alone."""
_END = 16_000  # characters at each end of a long text that are looked at
_RUN = re.compile(r"(\S)\1{59,}")
_SENTENCE = re.compile(r"[^.!?]*[.!?]+|[^.!?]+$")
_PERIOD = 12  # words of a phrase that is repeated
_REPEATS = 4
_QUESTION_WORDS = 60


def own_turns(text: str) -> str:
    """The text without chat markers and without what they give to others than the user."""
    if not any(sign in text for sign in _MARKER_SIGNS):
        return text
    found = list(MARKERS.finditer(text))
    if not found:
        return text
    first, mine = text[: found[0].start()], True
    own, every = [first], [first]
    for number, marker in enumerate(found):
        begin = marker.end()
        end = found[number + 1].start() if number + 1 < len(found) else len(text)
        if _OTHERS.search(marker[0]):
            mine = False
        elif _USERS.search(marker[0]):
            mine = True
        every.append(text[begin:end])
        if mine:
            own.append(text[begin:end])
    return " ".join(" ".join(own).split()) or " ".join(" ".join(every).split())


def without_code(text: str) -> str:
    """The text without code fences, JSON, markup and tables, and without such signs around it."""
    if any(sign in text for sign in _CODE_SIGNS):
        text = _CODE.sub(" ", text).strip() or text
    return text.strip(_EDGES) or text


def without_orders(text: str) -> str:
    """The text without orders to whoever reads it, and without statements about its own class."""
    if any(sign in text for sign in _ORDER_SIGNS):
        text = _ORDERS.sub(" ", text).strip() or text
    return text


def without_padding(text: str) -> str:
    """A long text without what it repeats; of what is then still long, its questions alone."""
    if len(text) <= LONG:
        return text
    near = text if len(text) <= 2 * _END else f"{text[:_END]} {text[-_END:]}"
    words = _RUN.sub(" ", near).split()
    words = _once(words, 0) or _once(words, 1)
    sentences = (sentence.strip() for sentence in _SENTENCE.findall(" ".join(words)))
    shorter = " ".join(dict.fromkeys(sentences))
    if len(shorter) > LONG:
        asked = [sentence.split() for sentence in _SENTENCE.findall(shorter) if sentence.endswith("?")]
        shorter = " ".join(" ".join(words[-_QUESTION_WORDS:]) for words in asked) or shorter
    return shorter or text


def _once(words: list[str], left: int) -> list[str]:
    """The words; of a phrase that stands _REPEATS times or oftener in a row, ``left`` times are left (0 or 1)."""
    for period in range(1, _PERIOD + 1):
        kept: list[str] = []
        same = 0  # how many words in a row equal the one `period` before them
        for place, word in enumerate(words):
            same = same + 1 if place >= period and word == words[place - period] else 0
            kept.append(word)
            if same == period * (_REPEATS - 1):
                del kept[len(kept) - same - period * (1 - left) :]
            elif same > period * (_REPEATS - 1):
                kept.pop()
        words = kept
    return words
