"""One calibration question, checked when it is made, and the orders in which the pipeline takes many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from claspkit.profiles.canonical import digest, sha256_hex
from claspkit.profiles.errors import CorruptError, UsageError, shorten

from .scorers import READINGS, SCORERS, default_scorer

UID_DIGITS = 16
MAX_PROMPT = 20_000  # characters
MAX_ANSWER = 4_000  # characters
MAX_ANSWERS = 64
MAX_CHOICES = 26  # as many as there are letters to name them by
IMAGE_MARKER = "<image>"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_INTENT = re.compile(r"[a-z][a-z0-9_]{0,31}")


class RowError(ValueError):
    """Why one row of a data set cannot become a sample; a source turns it into a quarantined row."""


@dataclass(frozen=True)
class Source:
    """Where a sample comes from.

    ``index`` is the line number in a JSONL file (from 1), the row number in a table (from 0), or the number
    of the question a generator made (from 0): whatever stays the same when the data set grows at its end.
    """

    dataset: str
    revision: str | None
    split: str | None
    index: int


@dataclass(frozen=True)
class Sample:
    """A picture, the exact text the model is asked about it, and what counts as right.

    ``image`` is a path relative to the image root, with forward slashes. ``answers`` holds at least one
    reference. ``scorer`` is name@version. ``intent_hint`` is what the data set claims; the router decides.
    """

    uid: str
    image: str
    image_sha256: str
    prompt: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] | None
    scorer: str
    source: Source
    intent_hint: str | None

    def to_dict(self) -> dict[str, Any]:
        """The sample as JSON values; :meth:`from_dict` takes it back."""
        record = asdict(self)
        record["answers"] = list(self.answers)
        record["choices"] = None if self.choices is None else list(self.choices)
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Sample:
        """Read a sample written by :meth:`to_dict`, checking every field and the uid.

        Raises:
            CorruptError: naming the field that is missing, unknown, of a wrong type, or at odds with the uid.
        """
        source = record.get("source") if isinstance(record, Mapping) else None
        if not isinstance(source, Mapping):
            raise CorruptError(f"a stored sample has no source: {shorten(source)}")
        _same_names("a stored sample", record, {field.name for field in fields(cls)})
        _same_names("the source of a stored sample", source, {field.name for field in fields(Source)})
        names = ("image", "image_sha256", "prompt", "answers", "choices", "scorer", "intent_hint")
        try:
            sample = make_sample(**{name: record[name] for name in names}, source=_read_source(source))
        except RowError as error:
            raise CorruptError(f"a stored sample is damaged: {error}") from None
        if sample.uid != record["uid"]:
            raise CorruptError(f"a stored sample is damaged: uid {shorten(record['uid'])}, not {sample.uid}")
        return sample


def make_sample(
    *,
    image: str,
    image_sha256: str,
    prompt: object,
    answers: object,
    source: Source,
    choices: object = None,
    scorer: object = None,
    intent_hint: object = None,
) -> Sample:
    """Check the fields of one row and build its sample; the uid follows from the content.

    The picture is known by then; the other fields are whatever the row held. Placeholders for the picture are
    taken out of the prompt, because each model family puts its own in.

    Raises:
        RowError: naming the field and what is wrong with it.
    """
    if not (isinstance(image, str) and isinstance(image_sha256, str) and _SHA256.fullmatch(image_sha256)):
        raise RowError(
            f"a picture needs a path and a sha256, not {shorten(image)} and {shorten(image_sha256)}"
        )
    question = _clean_prompt(prompt)
    options = None if choices is None else _clean_choices(choices)
    references = _clean_answers(answers)
    measure = _clean_scorer(scorer, options)
    if not any(SCORERS[measure](answer, references, options) > 0 for answer in references):
        raise RowError(_unreachable(measure, references, options))
    if intent_hint is not None and not (isinstance(intent_hint, str) and _INTENT.fullmatch(intent_hint)):
        raise RowError(f"intent {shorten(intent_hint)} is no id: small letters, digits and _")
    content = [image_sha256, question, list(references), measure, source.dataset, source.index]
    return Sample(
        uid=digest(content)[:UID_DIGITS],
        image=image,
        image_sha256=image_sha256,
        prompt=question,
        answers=references,
        choices=options,
        scorer=measure,
        source=source,
        intent_hint=None if intent_hint is None else str(intent_hint),
    )


def sample_order(samples: Iterable[Sample], seed: int) -> list[Sample]:
    """The samples by sha256 of "seed:uid": an order that stays when data is added or taken away."""
    return sorted(samples, key=lambda sample: sha256_hex(f"{seed}:{sample.uid}".encode()))


def split_holdout(samples: Iterable[Sample], seed: int, fraction: float) -> tuple[list[Sample], list[Sample]]:
    """Split into (search, holdout), each in the order given; about ``fraction`` of the pictures are held out.

    The side is a function of the picture and the seed alone, so that all questions about one picture fall on
    one side and stay there when data is added.

    Raises:
        UsageError: ``fraction`` is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"the held-out fraction must be at least 0 and below 1, not {fraction}")
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for sample in samples:
        drawn = int(sha256_hex(f"holdout:{seed}:{sample.image_sha256}".encode())[:13], 16) / 16**13
        sides[drawn < fraction].append(sample)
    return sides


def clean_text(field: str, value: object, limit: int) -> str:
    """``value`` without the space around it, if it is text that fits; ``field`` names it in the reason.

    Raises:
        RowError: no string, blank, longer than ``limit`` characters, or not encodable (half a surrogate
        pair).
    """
    if not isinstance(value, str):
        raise RowError(f"{field} must be text, not {shorten(value, 40)}")
    text = value.strip()
    if not text:
        raise RowError(f"{field} is empty")
    if len(text) > limit:
        raise RowError(f"{field} has {len(text)} characters; at most {limit} are allowed")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError(f"{field} holds half a surrogate pair, which is no text") from None
    return text


def _clean_prompt(value: object) -> str:
    text = clean_text("prompt", value, MAX_PROMPT)
    markers = text.count(IMAGE_MARKER)
    if markers > 1:
        raise RowError(f"prompt asks about {markers} pictures; one is supported")
    return clean_text("prompt", text.replace(IMAGE_MARKER, ""), MAX_PROMPT)


def _clean_answers(value: object) -> tuple[str, ...]:
    given = _listed("answers", value)
    # A blank among several annotators' answers is a skipped question, not a reference.
    kept = [item for item in given if not (isinstance(item, str) and not item.strip())]
    if not kept:
        raise RowError("answers holds no answer")
    if len(kept) > MAX_ANSWERS:
        raise RowError(f"answers holds {len(kept)} answers; at most {MAX_ANSWERS} are allowed")
    return tuple(clean_text("an answer", item, MAX_ANSWER) for item in kept)


def _clean_choices(value: object) -> tuple[str, ...]:
    cleaned = tuple(clean_text("a choice", item, MAX_ANSWER) for item in _listed("choices", value))
    if not 2 <= len(cleaned) <= MAX_CHOICES:
        raise RowError(f"choices holds {len(cleaned)} options; 2 to {MAX_CHOICES} are allowed")
    if len(set(cleaned)) < len(cleaned):
        raise RowError("choices holds the same option twice")
    return cleaned


def _clean_scorer(value: object, choices: tuple[str, ...] | None) -> str:
    if value is None:
        return default_scorer(choices)
    if not isinstance(value, str) or value not in SCORERS:
        raise RowError(f"scorer {shorten(value)} is none of {', '.join(SCORERS)}")
    return value


def _listed(field: str, value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise RowError(f"{field} must be a list of texts, not {shorten(value, 40)}")
    return value


def _unreachable(scorer: str, answers: Sequence[str], choices: Sequence[str] | None) -> str:
    wanted = "be yes or no" if scorer in READINGS else "be something to compare with"
    if scorer == "multiple_choice@1":
        wanted = f"name one of the choices {shorten(list(choices or ()))}"
    return f"no answer can score under {scorer}: {shorten(list(answers))} should {wanted}"


def _read_source(record: Mapping[str, Any]) -> Source:
    source = Source(record["dataset"], record["revision"], record["split"], record["index"])
    texts = [text for text in (source.revision, source.split) if text is not None]
    whole = isinstance(source.index, int) and not isinstance(source.index, bool) and source.index >= 0
    if not whole or not all(isinstance(text, str) for text in (source.dataset, *texts)):
        raise RowError(f"the source is {shorten(dict(record))}")
    return source


def _same_names(what: str, record: Mapping[str, Any], wanted: set[str]) -> None:
    if record.keys() != wanted:
        odd = ", ".join(sorted(map(str, record.keys() ^ wanted)))
        raise CorruptError(f"{what} must have exactly the fields {', '.join(sorted(wanted))}; look at {odd}")
