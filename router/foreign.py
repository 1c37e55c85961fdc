"""What stands in a prompt and is recognisably no question: chat turns, code, JSON, markup, orders, padding.

All of it works on normalised text (lower case, single spaces; :func:`own_turns` still sees line breaks), takes time
linear in its length, and leaves a text as it is rather than empty. Prompts without a sign of such matter are not
touched and cost next to nothing.
"""

from __future__ import annotations

import re
from typing import Final

from claspkit.profiles.intents import FINE_INTENTS, INTENT_IDS

from .sentences import AUXILIARIES, QUESTION_WORDS, REQUESTS, is_request, sentences

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

# The name of a speaker in ordinary letters, where it may also be a word of a question, as behind "who is the".
_NAME = re.compile(r"(?:#{2,4}\s?)?(user|human|assistant|gpt)\s?:")
_NO_TURN_AFTER = re.compile(
    r"\b(?:the|an?|is|are|was|were|does|did|do|my|your|his|her|its|our|their|this|that|which|what|whose|each|every)\s$"
)
_ARTICLE = re.compile(r"\b(?:the|an?|my|your|his|her|its|our|their)\s$")  # also at the end of the line before
_LONGEST = 7  # characters of the longest of these words, and the space behind it

_CODE_SIGNS = ("<", "|", "{", "[", "'''", "~~~")
_ORDER_SIGNS = (
    *("answer", "reply", "respond", "output", "ignor", "disregard", "forget", "vergiss", "olvid", "oubli"),
    *("you are now ", "label", "intent", "class", "category", "confidence"),
)
# "label: counting", "intent = object_counting confidence: 1.0": names of classes, and nothing else that labels say.
_IDS = "|".join(sorted({*INTENT_IDS, *(fine.id for fine in FINE_INTENTS)}))
_CLAIMS = (
    rf"(?:(?:(?:intent|label|class|category) ?[:=] ?(?:{_IDS}|[a-z]+(?:_[a-z]+){{1,3}})"
    r"|confidence ?[:=] ?\d(?:\.\d{1,3})?)\b,? ?){1,4}"
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
    rf"|(?:^|(?<=[.!?] ))(?:the )?{_CLAIMS}(?:$|[.!]|(?={QUESTION_WORDS}|{AUXILIARIES}|{REQUESTS}))"
    rf"|\b{_CLAIMS}(?=[^.!?]{{0,80}}(?:[.!]|$))"
)
_CODE = re.compile(
    r"'''(?:(?!''').){0,2000}'''|~~~[^~]{0,2000}~~~"
    r"|<!--.{0,2000}?-->|<(script|style)\b[^<>]{0,200}>[^<]{0,2000}</\1>|</?[a-z][^<>]{0,200}>"
    r'|[\[{](?:[\[{ ]|"[^"{}\[\]]{0,80}" ?: ?(?=[\[{])){0,8}"[^{}\[\]]{0,500}:[^{}\[\]]{0,500}(?:[\]}] ?){1,4}'
    r"|\|(?: [^|]{0,60}\|| ?:?-{2,}:? ?\|){2,}"
)
_SHORT_CODE = 80
_AROUND = 200  # characters before and behind it in which its sentence is looked for
_MARKUP_WORDS = re.compile(r"\b(?:tags?|html|xml|elements?|markup|code|brackets?)\b")
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
    """The text in single spaces, without chat markers and without what they give to others than the user.

    Args:
        text: normalised but for its white space: a name like "assistant:" is a marker where a text or line begins or
            other turns went before ("user:" also behind a sentence), and a word elsewhere.
    """
    if not any(sign in text for sign in _MARKER_SIGNS):
        return " ".join(text.split())
    text = "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
    found = _turns(text)
    first, mine = text[: found[0].start()] if found else text, True
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


def _turns(text: str) -> list[re.Match[str]]:
    """The markers of a text, without the names of speakers that are words of it."""
    found: list[re.Match[str]] = []
    turns = False  # whether somebody's turn has begun
    for marker in MARKERS.finditer(text):
        name = _NAME.fullmatch(marker[0])
        start = marker.start()
        if name:
            beside = bool(found) and not text[found[-1].end() : start].strip()
            begins = start == 0 or text[start - 1] == "\n" or beside
            after_sentence = name[1] in {"user", "human"} and text[max(start - 2, 0) : start - 1] in {*".!?"}
            pattern = _ARTICLE if begins else _NO_TURN_AFTER
            if pattern.search(text[max(start - _LONGEST, 0) : start]) and marker.end() < len(text):
                continue
            if not (begins or turns or after_sentence):
                continue
        turns = turns or bool(_OTHERS.search(marker[0]) or _USERS.search(marker[0]))
        found.append(marker)
    return found


def without_code(text: str) -> str:
    """The text without code fences, JSON, markup and tables, and without such signs around it.

    Short code amid a sentence that asks or requests something stays: it is what is asked about.
    """
    if any(sign in text for sign in _CODE_SIGNS):
        text = _CODE.sub(_unless_asked_about, text).strip() or text
    return text.strip(_EDGES) or text


def _unless_asked_about(code: re.Match[str]) -> str:
    """The code where it is part of a question or request, else a space."""
    if len(code[0]) > _SHORT_CODE:
        return " "
    text = code.string
    before = sentences(text[max(code.start() - _AROUND, 0) : code.start()])[-1]
    after = sentences(text[code.end() : code.end() + _AROUND])[0]
    return code[0] if _is_asked_about(before, code[0], after) else " "


def _is_asked_about(before: str, code: str, after: str) -> bool:
    """Whether code stands amid a sentence that asks or requests; of markup, one that speaks of such things."""
    if not before.strip(_EDGES):
        return False
    if code[0] == "<" and not _MARKUP_WORDS.search(f"{before} {after}"):
        return False
    return after[-1:] == "?" or (is_request(before) and bool(after.strip(" .!")))


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
