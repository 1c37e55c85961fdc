"""Samples of every class with what each pruning stage kept of their pictures: the report's gallery, and its file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from claspkit.profiles.canonical import canonical_json, digest, strict_loads, write_atomic
from claspkit.profiles.errors import CorruptError
from claspkit.profiles.plain_files import read_plain
from claspkit.runtime.token_map import TokenMap, grid_view

from .ledger import HOLDOUT, UNPRUNED, Ledger
from .overlay import StageView
from .packed import pack, unpack
from .search import ClassData

VERSION = 2
"""Of the file: 2 says of every token where it lies; 1, which has one grid per picture, can still be read."""

SHOWN = 2
"""Right samples, and wrong ones, that a calibration draws of every class."""

FURTHER_SHOWN = 1
"""The same of a further budget of a run."""

RIGHT = 0.5
"""Score from which on an answer counts as right."""

_MAX_FILE = 20_000_000
_PLAIN = (
    *("intent", "uid", "image", "prompt", "answers", "candidate", "answer", "score"),
    *("unpruned", "unpruned_score", "size", "jpeg"),
)  # what is in the file as it is in a Shot


@dataclass(frozen=True)
class Shot:
    """One sample of the gallery.

    Attributes:
        intent: class id.
        uid: the sample's.
        image: its picture's name in the data.
        prompt: the question.
        answers: the references.
        candidate: configuration it was answered with, that of the profile.
        answer: what it said.
        score: of that, 0..1.
        unpruned: what the stock model said; None where the ledger does not have it.
        unpruned_score: of that.
        tokens: where the visual tokens lie.
        size: width and height of the picture as it is shown here, in pixels.
        stages: what each stage kept.
        jpeg: the picture that ``tokens`` is of, base64.
    """

    intent: str
    uid: str
    image: str
    prompt: str
    answers: tuple[str, ...]
    candidate: str
    answer: str
    score: float
    unpruned: str | None
    unpruned_score: float | None
    tokens: TokenMap
    size: tuple[int, int]
    stages: tuple[StageView, ...]
    jpeg: str

    @property
    def right(self) -> bool:
        """Whether the pruned model's answer counts as right."""
        return self.score >= RIGHT

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {**plain, "tokens": pack(self.tokens), "stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Shot:
        """Inverse of :meth:`to_dict`, also of records of the first version, which have one grid for the whole picture.

        KeyError, TypeError or ValueError for a record of another shape.
        """
        known = {name: record[name] for name in _PLAIN if name != "size"}
        if "grid" in record:
            rows, columns = record["grid"]
            tokens, size = TokenMap((grid_view("picture", rows, columns),), cropped=True), (columns, rows)
        else:
            tokens, size = unpack(record["tokens"]), record["size"]
        width, height = size
        stages = tuple(
            StageView(int(stage["after_layer"]), tuple(stage["kept"]), tuple(stage["pivots"]))
            for stage in record["stages"]
        )
        if min(width, height) < 1 or not all(0 <= token < tokens.count for stage in stages for token in stage.kept):
            raise ValueError("a picture without a side, or a token that it does not have")
        base64.b64decode(record["jpeg"], validate=True)
        known |= {"answers": tuple(record["answers"]), "size": (int(width), int(height))}
        return cls(**known, tokens=tokens, stages=stages)


@dataclass(frozen=True)
class Gallery:
    """What is shown, and why not more.

    Attributes:
        profile_id: of the profile it was drawn with.
        shots: class by class, right and wrong taking turns.
        missing: reasons in words; empty where nothing is missing.
    """

    profile_id: str
    shots: tuple[Shot, ...]
    missing: tuple[str, ...] = ()


def pick(data: ClassData, ledger: Ledger, candidate: str, count: int) -> list[int]:
    """Places in a class's holdout: ``count`` right answers and ``count`` wrong ones, taking turns.

    In hash order, which is no one's choice; but of the wrong ones those come first that the stock model has right,
    since they are what pruning lost.
    """
    scores = ledger.scores(HOLDOUT, data.intent, candidate)
    stock = ledger.scores(HOLDOUT, data.intent, UNPRUNED)
    right = [place for place, score in enumerate(scores) if score >= RIGHT]
    wrong = [place for place, score in enumerate(scores) if score < RIGHT]
    if len(stock) == len(scores):
        wrong.sort(key=lambda place: stock[place] < RIGHT)
    turns: Iterator[Sequence[int]] = (found[turn : turn + 1] for turn in range(count) for found in (right, wrong))
    return [place for one in turns for place in one]


def write_gallery(path: Path, gallery: Gallery) -> None:
    """Write a gallery; it exists only when it is complete."""
    body = {
        "version": VERSION,
        "profile_id": gallery.profile_id,
        "shots": [shot.to_dict() for shot in gallery.shots],
        "missing": list(gallery.missing),
    }
    write_atomic(path, canonical_json({"sha256": digest(body), "body": body}))


def read_gallery(path: Path, profile_id: str) -> Gallery | None:
    """Read the gallery of a profile back; None where there is none, or one of another profile.

    Raises:
        CorruptError: the file does not match its digest, is no gallery, or one of a newer version.
    """
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = strict_loads(read_plain(path), max_bytes=_MAX_FILE)
        body = record["body"]
        if record["sha256"] != digest(body):
            raise ValueError("it does not match its own digest")
        if body.get("version", 1) not in (1, VERSION):
            raise ValueError(f"it has version {body['version']}, and 1 to {VERSION} can be read")
        shots = tuple(map(Shot.from_dict, body["shots"]))
        gallery = Gallery(str(body["profile_id"]), shots, tuple(map(str, body["missing"])))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{path} is damaged ({error}). Delete it, and draw it anew: claspkit report RUN --gallery {SHOWN}"
        ) from error
    return gallery if gallery.profile_id == profile_id else None
