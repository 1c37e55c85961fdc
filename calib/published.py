"""Answers as the evaluation of a public benchmark reads them, where that is not how :mod:`.answers` would."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from itertools import combinations

from .answers import ARTICLES, NUMBERS, plain

# Contractions whose spelling without the apostrophe is no other word: "its", "were" and "wed" stay what they are.
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am might've mightn't mightn't've "
    "must've mustn't needn't o'clock oughtn't shan't she'd've she's should've shouldn't shouldn't've somebody's "
    "someone's that's there'd there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't "
    "what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're "
    "why's won't would've wouldn't wouldn't've y'all you'd you'd've you'll you're you've"
)

_VQA_MARKS = str.maketrans(dict.fromkeys(';/[]"{}()=+\\_-><@`,?!', " "))
_BETWEEN_DIGITS = re.compile(r"(?<=\d),(?=\d)")
_FULL_STOP = re.compile(r"\.(?!\d)")
_NO_MARKS = str.maketrans("", "", string.punctuation)
_NO = frozenset({"no", "not"})


def _without_apostrophes(word: str) -> Iterator[str]:
    """Every spelling that lacks some of the apostrophes, or all."""
    places = [place for place, char in enumerate(word) if char == "'"]
    for count in range(1, len(places) + 1):
        for gone in combinations(places, count):
            yield "".join(char for place, char in enumerate(word) if place not in gone)


_MENDED = {bare: word for word in _CONTRACTIONS.split() for bare in _without_apostrophes(word)}


def vqa_key(text: str) -> str:
    """Return the form in which the VQA evaluation compares answers, by the rules it publishes.

    One case; full stops go unless a digit follows; number words become digits; articles go; a contraction gets the
    apostrophe it lacks; a comma between digits disappears; other punctuation becomes a space, but for the apostrophe,
    the colon, and signs such as % and $. Text of articles alone is kept as it is.
    """
    joined = _BETWEEN_DIGITS.sub("", plain(text)).translate(_VQA_MARKS)
    words = [NUMBERS.get(word, word) for word in _FULL_STOP.sub("", joined).split()]
    kept = [_MENDED.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(kept or words)


def gqa_key(text: str) -> str:
    """Return the form in which GQA answers are compared: small letters, without any ASCII punctuation."""
    return text.lower().translate(_NO_MARKS).strip()


def pope_reading(text: str) -> str | None:
    """Read an answer as POPE does: "no" where the text before the first full stop has the word no or not, else "yes".

    None for an answer without a letter or digit: nothing was said, which POPE would count as a yes.
    """
    if not any(char.isalnum() for char in text):
        return None
    words = text.partition(".")[0].replace(",", "").lower().split()
    return "no" if _NO.intersection(words) else "yes"


def mme_reading(text: str) -> str | None:
    """Read an answer as MME does: by "yes" or else "no" among its first four letters; None for what MME calls other.

    Small letters, no full stops, no outer space; "y" and "n" alone will do.
    """
    said = text.lower().strip().replace(".", "")
    if len(said) == 1:
        return {"y": "yes", "n": "no"}.get(said)
    return next((answer for answer in ("yes", "no") if answer in said[:4]), None)
