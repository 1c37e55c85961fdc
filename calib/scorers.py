"""How much an answer is worth: one function per published measure, each a number from 0 to 1."""

from collections.abc import Callable, Sequence
from typing import Protocol

from claspkit.profiles.errors import UsageError

from .answers import (
    answer_key,
    as_number,
    chosen_option,
    edit_distance,
    holds_words,
    named_option,
    plain,
    yes_or_no,
)
from .published import gqa_key, mme_reading, pope_reading, vqa_key

# (prediction, reference answers, options or None) -> score in [0, 1]
Scorer = Callable[[str, Sequence[str], Sequence[str] | None], float]

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05
_ROUNDING = 1e-9  # 1.05 is within 5 % of 1 although the float difference is 0.05000000000000004


def exact_match(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """1 when the prediction and a reference answer have the same :func:`.answers.answer_key`, else 0."""
    key = answer_key(prediction)
    return float(bool(key) and any(key == answer_key(answer) for answer in answers))


def vqa_accuracy(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """The VQA v2 accuracy: mean over leaving one annotator out of min(matches among the others / 3, 1).

    With fewer than four references the others are too few to reach 3; then all of them must match, and a
    single reference must match itself. Answers are compared by :func:`.answers.answer_key`.
    """
    return _agreement(prediction, answers, answer_key)


def vqa_accuracy_2(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """:func:`vqa_accuracy` with answers compared by the published rules, :func:`.published.vqa_key`."""
    return _agreement(prediction, answers, vqa_key)


def anls(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """The best over references of 1 - edit distance / longer length, and 0 where that is below 0.5."""
    said = plain(prediction)
    return max((_similarity(said, plain(answer)) for answer in answers), default=0.0) if said else 0.0


def relaxed_accuracy(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """1 when a number is within 5 % of a numeric reference, or text equals a textual one; else 0."""
    return float(bool(answer_key(prediction)) and any(_close(prediction, answer) for answer in answers))


def multiple_choice(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """1 when the option the model chose is the one the reference names (by text or by letter), else 0."""
    if not choices:
        return 0.0
    chosen = chosen_option(prediction, choices)
    return float(chosen is not None and any(chosen == named_option(answer, choices) for answer in answers))


def yes_no(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """1 when prediction and reference both say yes or both say no, else 0; saying neither earns 0."""
    return _says(yes_or_no(prediction), answers)


def gqa(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """1 when prediction and a reference are one text but for case and punctuation, else 0."""
    key = gqa_key(prediction)
    return float(bool(key) and any(key == gqa_key(answer) for answer in answers))


def pope(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """1 when the prediction, read by :func:`.published.pope_reading`, says what the reference says, else 0."""
    return _says(pope_reading(prediction), answers)


def mme(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """1 when the prediction, read by :func:`.published.mme_reading`, says what the reference says, else 0."""
    return _says(mme_reading(prediction), answers)


def contains(prediction: str, answers: Sequence[str], choices: Sequence[str] | None = None) -> float:
    """1 when a reference answer occurs in the prediction as whole words, else 0."""
    key = answer_key(prediction)
    return float(any(holds_words(key, answer_key(answer)) for answer in answers))


# A scorer whose results change gets a new version beside the old one: ledgers and profiles name what was
# used.
SCORERS: dict[str, Scorer] = {
    "exact_match@1": exact_match,
    "vqa_accuracy@1": vqa_accuracy,
    "vqa_accuracy@2": vqa_accuracy_2,
    "anls@1": anls,
    "relaxed_accuracy@1": relaxed_accuracy,
    "multiple_choice@1": multiple_choice,
    "yes_no@1": yes_no,
    "gqa@1": gqa,
    "pope@1": pope,
    "mme@1": mme,
    "contains@1": contains,
}

# Scorers of yes-or-no questions -> how each reads an answer: "yes", "no" or None.
READINGS: dict[str, Callable[[str], str | None]] = {
    "yes_no@1": yes_or_no,
    "pope@1": pope_reading,
    "mme@1": mme_reading,
}


def get_scorer(name: str) -> Scorer:
    """The scorer called ``name`` (name@version); UsageError listing the known ones otherwise."""
    if name not in SCORERS:
        raise UsageError(f"there is no scorer {name!r}; the scorers are {', '.join(SCORERS)}")
    return SCORERS[name]


class Question(Protocol):
    """The part of a sample that scoring needs."""

    @property
    def answers(self) -> Sequence[str]:
        """The reference answers."""

    @property
    def choices(self) -> Sequence[str] | None:
        """The options, where there are some."""

    @property
    def scorer(self) -> str:
        """The name@version of the scorer."""


def score_answer(sample: Question, prediction: str) -> float:
    """What ``prediction`` is worth as the answer to ``sample``, in [0, 1]; UsageError for no scorer."""
    return get_scorer(sample.scorer)(prediction, sample.answers, sample.choices)


def default_scorer(choices: Sequence[str] | None) -> str:
    """The scorer of a row that names none: by options where it has them, else by exact match."""
    return "multiple_choice@1" if choices else "exact_match@1"


def _says(said: str | None, answers: Sequence[str]) -> float:
    return float(said is not None and any(said == yes_or_no(answer) for answer in answers))


def _agreement(prediction: str, answers: Sequence[str], key_of: Callable[[str], str]) -> float:
    key = key_of(prediction)
    if not key or not answers:
        return 0.0
    matches = [key == key_of(answer) for answer in answers]
    needed = max(1, min(3, len(answers) - 1))
    left_out = [sum(matches) - match for match in matches] if len(answers) > 1 else [sum(matches)]
    return sum(min(count / needed, 1.0) for count in left_out) / len(left_out)


def _similarity(said: str, answer: str) -> float:
    longer = max(len(said), len(answer))
    # The lengths alone bound the distance from below, so a rambling prediction costs no quadratic work.
    if longer == 0 or 1 - abs(len(said) - len(answer)) / longer < ANLS_THRESHOLD:
        return 0.0
    similarity = 1 - edit_distance(said, answer) / longer
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _close(prediction: str, answer: str) -> bool:
    said, wanted = as_number(prediction), as_number(answer)
    if said is None or wanted is None:
        return answer_key(prediction) == answer_key(answer)
    return abs(said - wanted) <= RELAXED_TOLERANCE * abs(wanted) * (1 + _ROUNDING)
