"""The text that routers look at: one form per prompt, whatever chat format it came in.

Everything here runs in time linear in the prompt's length.
"""

from __future__ import annotations

import re
import unicodedata

from claspkit.profiles.canonical import sha256_hex

from .foreign import own_turns, without_code, without_orders, without_padding
from .sentences import AUXILIARIES, QUESTION_WORDS, REQUESTS, asks, sentences

WINDOW = 4000  # characters a router reads of a long prompt: half from its start, half from its end

# Control characters, and what Unicode wants ignored where it is not supported: zero-width and direction marks, soft
# hyphens, fillers, variation selectors, tags.
_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0e-\\x1f\\x7f-\\x84\\x86-\\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
_TERMINAL = re.compile("\x1b\\[[0-9;?]{0,20}[A-Za-z]")  # colours, cursor moves
_SINGLE = re.compile("[\u2018\u2019\u02bc\u00b4`]")
_DOUBLE = re.compile("[\u201c\u201d]")

_OPTION_A = re.compile(r"(?:^|\s)(?:\(a\)|\[a\]|a[.):])\s")
_OPTION_B = re.compile(r"\s(?:\(b\)|\[b\]|b[.):])\s")
_OPTION = re.compile(r"(?:^|\s)(?:\([a-j]\)|\[[a-j]\]|[a-j][.):])\s")
_ASKS = re.compile(
    r"\b(?:what|which|who|whose|whom|where|when|why|how|is|are|was|were|do|does|did|can|could|will|would|has|have)\b"
    r"[^.!?]{1,400}\?"
)
_OPTIONS_HEAD = re.compile(r"\s(?:options|choices|answer choices)\s?:")
# How an answer should look. After "the", "which" or "she" the word is part of a question ("what is the answer in the
# red box?"), and where a question begins behind a colon or comma the instruction ends.
_PART_OF_A_QUESTION = (
    *("the", "a", "an", "your", "this", "that", "his", "her", "my", "its", "our", "their", "each", "every", "any"),
    *("no", "which", "what", "whose", "correct", "right", "wrong", "final", "first", "you", "she", "he"),
    *("last", "they", "it", "we", "i", "who", "to", "will", "would", "can", "could", "may", "might", "did", "does"),
    *("do", "not"),
)
_FREE = "".join(rf"(?<!\b{word} )" for word in _PART_OF_A_QUESTION)
_ASKING = rf"(?:(?:{QUESTION_WORDS}|{AUXILIARIES})[^.?!]{{0,160}}\?|{REQUESTS})"
_INSTRUCTION = re.compile(
    # In the midst of a clause that ends as a question it is left ("does the girl answer with her hand raised?").
    r"(?:(?P<begins>^|(?<=[^\w\s] ))|\b)"
    r"(?=please |answer|respond|reply|give|provide|state)"  # looked for first: what follows is dear
    rf"(?:{_FREE}please |{_FREE}(?<!please ))(?:"
    r"(?:answer|respond|reply)(?: the question)?(?: directly| only| briefly)? (?:with|using|in|from|by)"
    r"|(?:give|provide|state) (?:me )?(?:the|your|an) (?:\w{1,10} )?answer (?:in|as|with|using)"
    r"(?= (?:an?|one|two|three|english|digits|words|json|at most|no more)\b))"
    rf" (?:[^.?!:,]|[:,](?! ?{_ASKING})){{0,160}}+(?(begins)[.?!:,]?|(?!\?)[.!:,]?)"
)


def normalise(prompt: str) -> str:
    """The prompt in one form: NFKC, casefolded, single spaces, straight quotes, nothing invisible.

    What chat formats leave behind (``USER:``, ``<image>``, ``<|im_start|>user``, ``ASSISTANT:``) is taken out, and
    with it what they give to others than the user.
    """
    text = _TERMINAL.sub("", prompt) if "\x1b" in prompt else prompt
    text = text.encode("utf-8", "replace").decode("utf-8")  # half surrogates cannot be hashed or tokenised
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _DOUBLE.sub('"', _SINGLE.sub("'", _INVISIBLE.sub("", text)))
    return own_turns(text)


def prompt_digest(prompt: str) -> str:
    """SHA-256 of the normalised prompt: prompts with one digest get one label."""
    return sha256_hex(normalise(prompt).encode("utf-8"))


def window(text: str) -> str:
    """``text``, or its first and last WINDOW / 2 characters: questions stand at an end of a long context."""
    half = WINDOW // 2
    return text if len(text) <= WINDOW else f"{text[:half]} ... {text[-half:]}"


def question(normalised: str) -> str:
    """The question itself, out of a normalised prompt: without answer options, "answer with ..." sentences, padding
    and what is recognisably foreign (:mod:`.foreign`).

    Options would mislead: "what is he doing? (a) counting money (b) reading a sign" asks for an action. A
    prompt that has nothing else is returned as it is.
    """
    text = without_code(window(without_padding(normalised)))
    stem = _INSTRUCTION.sub(" ", text) if any(word in text for word in ("answer", "respond", "reply")) else text
    stem = without_orders(stem)
    first = _OPTION_A.search(stem)
    if first is not None and _OPTION_B.search(stem, first.end() - 1):
        stem = stem[: first.start()] if stem[: first.start()].strip() else _after_options(stem)
    head = _OPTIONS_HEAD.search(stem)
    if head is not None:
        stem = stem[: head.start()]
    return " ".join(stem.split()) or without_orders(text)


def asked(text: str) -> str:
    """Of a question in several sentences those that ask or request something; all of them where none does.

    A statement beside the question ("Trust me, this is easy.") then changes nothing, nor does what asks for nothing
    ("Can you?").
    """
    parts = sentences(text)
    if len(parts) == 1:
        return text
    return " ".join(part for part in parts if asks(part)) or text


def _after_options(text: str) -> str:
    """The question behind answer options that a text begins with; nothing where there is none."""
    *_, last = _OPTION.finditer(text)
    asked = _ASKS.search(text, last.end())
    return "" if asked is None else text[asked.start() :]
