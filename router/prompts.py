"""The text that routers look at: one form per prompt, whatever chat format it came in.

Everything here runs in time linear in the prompt's length.
"""

from __future__ import annotations

import re
import unicodedata

from claspkit.profiles.canonical import sha256_hex

WINDOW = 4000  # characters a router reads of a long prompt: half from its start, half from its end

_MARKERS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>(?:\s?(?:system|user|assistant)\b)?"  # <|im_start|>user, <|image_pad|>
    r"|</?(?:image|images|video|img|s|bos|eos|pad|unk|start_of_turn|end_of_turn)(?:[ _-]?\d{1,4})?>"
    r"|\[/?inst\]|<</?sys>>"
    r"|(?:^|(?<=\s))(?:#{2,4}\s?)?(?:user|human|assistant|gpt)\s?:"
)
# Invisible characters: zero-width and direction marks, soft hyphen, byte order mark, control characters.
_INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\\x00-\\x08\\x0e-\\x1f\\x7f-\\x84\\x86-\\x9f]"
)
_SINGLE = re.compile("[\u2018\u2019\u02bc\u00b4`]")
_DOUBLE = re.compile("[\u201c\u201d]")

_OPTION_A = re.compile(r"(?:^|\s)(?:\(a\)|\[a\]|a[.):])\s")
_OPTION_B = re.compile(r"\s(?:\(b\)|\[b\]|b[.):])\s")
_OPTIONS_HEAD = re.compile(r"\s(?:options|choices|answer choices)\s?:")
_INSTRUCTION = re.compile(
    r"\b(?:please )?(?:answer|respond|reply)(?: the question)?(?: directly| only| briefly)?"
    r" (?:with|using|in|from|by) [^.?!]{0,160}[.?!]?"
)


def normalise(prompt: str) -> str:
    """The prompt in one form: NFKC, casefolded, single spaces, straight quotes, nothing invisible.

    What chat formats leave behind (``USER:``, ``<image>``, ``<|im_start|>user``, ``ASSISTANT:``) is taken
    out.
    """
    text = prompt.encode("utf-8", "replace").decode("utf-8")  # half surrogates cannot be hashed or tokenised
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _DOUBLE.sub('"', _SINGLE.sub("'", _INVISIBLE.sub("", text)))
    text = " ".join(text.split())
    return " ".join(_MARKERS.sub(" ", text).split())


def prompt_digest(prompt: str) -> str:
    """SHA-256 of the normalised prompt: prompts with one digest get one label."""
    return sha256_hex(normalise(prompt).encode("utf-8"))


def window(text: str) -> str:
    """``text``, or its first and last WINDOW / 2 characters: questions stand at an end of a long context."""
    half = WINDOW // 2
    return text if len(text) <= WINDOW else f"{text[:half]} ... {text[-half:]}"


def question(normalised: str) -> str:
    """The question itself, out of a normalised prompt: without answer options and "answer with ..."
    sentences.

    Options would mislead: "what is he doing? (a) counting money (b) reading a sign" asks for an action. A
    prompt that has nothing else is returned as it is.
    """
    text = window(normalised)
    stem = _INSTRUCTION.sub(" ", text)
    first = _OPTION_A.search(stem)
    if first is not None and _OPTION_B.search(stem, first.end() - 1):
        stem = stem[: first.start()]
    head = _OPTIONS_HEAD.search(stem)
    if head is not None:
        stem = stem[: head.start()]
    return " ".join(stem.split()) or text
