"""What two answers have in common once spelling, articles and number style are set aside."""

import math
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

_NUMBER_WORDS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "twenty",
]
# "none" counts as zero because the VQA evaluation counts it so.
NUMBERS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
ARTICLES = frozenset({"a", "an", "the"})

_SAME_CHARACTER = str.maketrans(dict.fromkeys("‐‑‒–—―−", "-") | dict.fromkeys("‘’`´", "'"))
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PERCENT = re.compile(r"(\d)\s*(?:%|percent\b|per cent\b)")
_FULL_STOP = re.compile(r"\.(?!\d)")
# A hyphen is a sign only between "no word" and a digit; a colon stays only inside a time such as 7:30.
_NOISE = re.compile(r"-(?!\.?\d)|(?<=\w)-|:(?!\d)|(?<!\d):|_|[^\w\s%:.$€£-]")

_NUMBER = re.compile(r"([-+]?)\s*[$€£]?\s*((?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?)\s*[$€£]?\s*(%?)")
_SENTENCE_END = re.compile(r"[.!?;\n]")
_YES_NO = {"yes": "yes", "yeah": "yes", "yep": "yes", "true": "yes", "no": "no", "nope": "no", "false": "no"}

_BARE_LETTER = re.compile(r"\s*(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[.):,](?=\s|$)|([A-Za-z])\s*$)")
# In the middle of a sentence "a" is an article, so only a capital or a letter in brackets names an option.
_NAMED_LETTER = re.compile(
    r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?:\s+is)?\s*:?\s*(?:\(\s*([A-Za-z])\s*\)|([A-Z])(?![\w']))"
)


def plain(text: str) -> str:
    """``text`` in one case, one kind of dash and quote, single spaces, compatibility forms unfolded."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_SAME_CHARACTER).casefold().split())


def answer_key(text: str) -> str:
    """Return the form in which two short answers are compared; equal keys mean the same answer.

    After :func:`plain`: thousands separators and apostrophes go, "5 percent" becomes "5%", punctuation
    becomes a space (a full stop that no digit follows disappears, a sign before a number stays), number words
    up to twenty become digits, and articles go unless nothing else is left. Text without a letter or digit is
    compared as it is.
    """
    text = plain(text)
    cleaned = _THOUSANDS.sub("", text).replace("'", "")
    cleaned = _FULL_STOP.sub("", _PERCENT.sub(r"\1%", cleaned))
    words = [NUMBERS.get(word, word) for word in _NOISE.sub(" ", cleaned).split()]
    kept = [word for word, following in pairwise([*words, ""]) if not _article(word, following)]
    return " ".join(kept) or text


def as_number(text: str) -> float | None:
    """The number that ``text`` is, or None. "1,200" is 1200.0, "50%" is 0.5, "−3" is -3.0, "two" is 2.0."""
    text = plain(text).rstrip(".")
    found = _NUMBER.fullmatch(_THOUSANDS.sub("", NUMBERS.get(text, text)))
    if found is None:
        return None
    sign, digits, percent = found.groups()
    value = float(digits) / (100.0 if percent else 1.0)
    if not math.isfinite(value):
        return None
    return -value if sign == "-" else value


def yes_or_no(text: str) -> str | None:
    """Return "yes" or "no" when ``text`` says exactly one of them, else None.

    The first word decides; failing that, the first sentence must hold words of only one kind. "There is a
    cat" says neither, on purpose: a model that does not answer the question earns nothing by it.
    """
    first = next((part for part in _SENTENCE_END.split(text) if part.strip()), "")
    words = answer_key(first).split()
    said = [_YES_NO[word] for word in words if word in _YES_NO]
    if said and words[0] in _YES_NO:
        return said[0]
    return said[0] if len(set(said)) == 1 else None


def option_letter(index: int) -> str:
    """The letter of option ``index`` (0 is A); options are numbered 0 to 25."""
    return chr(ord("A") + index)


def named_option(answer: str, choices: Sequence[str]) -> int | None:
    """The index of the option that a reference names, by its text or else by its letter; None if neither."""
    exact = [index for index, choice in enumerate(choices) if choice.strip() == answer.strip()]
    if len(exact) == 1:
        return exact[0]
    return _option_by_text(answer, choices) if not exact else None


def chosen_option(prediction: str, choices: Sequence[str]) -> int | None:
    """The index of the option a model chose, or None when it chose none or more than one.

    Tried in order: a letter at the start ("B", "(c)", "B. cat"); the whole text of one option; a letter after
    "answer", "option" or "choice"; the one option whose text occurs in the prediction as whole words.
    """
    bare, named = _BARE_LETTER.match(prediction), _NAMED_LETTER.search(prediction)
    key = answer_key(prediction)
    by_letter = _index_of_letter(bare, choices)
    if by_letter is not None:
        return by_letter
    whole = _only([index for index, choice in enumerate(choices) if answer_key(choice) == key])
    if whole is not None:
        return whole
    by_letter = _index_of_letter(named, choices)
    if by_letter is not None:
        return by_letter
    return _only([index for index, choice in enumerate(choices) if holds_words(key, answer_key(choice))])


def holds_words(text_key: str, wanted_key: str) -> bool:
    """Whether the words of one answer key stand in another, in a row and as whole words."""
    return bool(wanted_key) and f" {wanted_key} " in f" {text_key} "


def edit_distance(left: str, right: str) -> int:
    """The Levenshtein distance: insertions, deletions and substitutions, each costing one."""
    if len(left) < len(right):
        left, right = right, left
    row = list(range(len(right) + 1))
    for done, character in enumerate(left, start=1):
        diagonal, row[0] = row[0], done
        for column, other in enumerate(right, start=1):
            cost = min(row[column] + 1, row[column - 1] + 1, diagonal + (character != other))
            diagonal, row[column] = row[column], cost
    return row[-1]


def _article(word: str, following: str) -> bool:
    """Whether a word is an article: it stands before something that is more than one letter."""
    if word not in ARTICLES or not following:
        return False
    return len(following) > 1 or not following.isalpha()


def _option_by_text(answer: str, choices: Sequence[str]) -> int | None:
    key = answer_key(answer)
    same = [index for index, choice in enumerate(choices) if answer_key(choice) == key]
    return _only(same) if same else _index_of_letter(_BARE_LETTER.fullmatch(answer.strip()), choices)


def _index_of_letter(found: re.Match[str] | None, choices: Sequence[str]) -> int | None:
    letter = next((group for group in found.groups() if group), None) if found else None
    if letter is None:
        return None
    index = ord(letter.upper()) - ord("A")
    return index if index < len(choices) else None


def _only(indices: Sequence[int]) -> int | None:
    return indices[0] if len(indices) == 1 else None
