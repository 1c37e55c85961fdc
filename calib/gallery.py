"""Samples of every class with what each pruning stage kept of their pictures: the report's gallery, and its file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from claspkit.profiles.budget import BEFORE_DECODER
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
_MOST_CELLS = 5_000_000  # of all pictures, counted for each drawing of one: a small file may stand for very many
_LONGEST_SIDE = 1_000_000
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
            if rows * columns > _MOST_CELLS:
                raise ValueError(f"a grid of {rows} x {columns} tokens")
            tokens, size = TokenMap((grid_view("picture", rows, columns),), cropped=True), (columns, rows)
        else:
            tokens, size = unpack(record["tokens"]), record["size"]
        width, height = size
        stages = tuple(_stage(stage, tokens) for stage in record["stages"])
        if not 1 <= min(width, height) <= max(width, height) <= _LONGEST_SIDE:
            raise ValueError(f"a picture of {width} x {height}")
        base64.b64decode(record["jpeg"], validate=True)
        known |= {"answers": tuple(record["answers"]), "size": (int(width), int(height))}
        _check_types(known)
        return cls(**known, tokens=tokens, stages=stages)

    @property
    def cells(self) -> int:
        """What it takes to draw: every token once for each drawing, and the kept ones once for each view."""
        kept = sum(len(stage.kept) for stage in self.stages)
        return self.tokens.count * (1 + len(self.stages)) + kept * len(self.tokens.views)


def _stage(record: Mapping[str, Any], tokens: TokenMap) -> StageView:
    stage = StageView(record["after_layer"], tuple(record["kept"]), tuple(record["pivots"]))
    numbers = (stage.after_layer, *stage.kept, *stage.pivots)
    if not all(type(number) is int for number in numbers) or stage.after_layer < BEFORE_DECODER:
        raise TypeError("a stage's layer and tokens are whole numbers")
    kept, pivots = set(stage.kept), set(stage.pivots)
    sound = len(kept) == len(stage.kept) and len(pivots) == len(stage.pivots) and pivots <= kept
    if not sound or not all(0 <= token < tokens.count for token in kept):
        raise ValueError("a stage keeps a token twice or one that is not there, or has a pivot that it does not keep")
    return stage


def _check_types(known: Mapping[str, Any]) -> None:
    """TypeError where a field is neither the text nor the score that it should be."""
    texts = [known[name] for name in ("intent", "uid", "image", "prompt", "candidate", "answer", "jpeg")]
    scores = [known["score"]]
    if known["unpruned"] is not None:
        texts.append(known["unpruned"])
    if known["unpruned_score"] is not None:
        scores.append(known["unpruned_score"])
    if not all(isinstance(text, str) for text in (*texts, *known["answers"])):
        raise TypeError("a text is none")
    if not all(type(score) in (int, float) and 0 <= score <= 1 for score in scores):
        raise TypeError("a score is no number from 0 to 1")


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
        record: dict[str, Any] = strict_loads(read_plain(path, _MAX_FILE), max_bytes=_MAX_FILE)
        body = record["body"]
        if record["sha256"] != digest(body):
            raise ValueError("it does not match its own digest")
        if body.get("version", 1) not in (1, VERSION):
            raise ValueError(f"it has version {body['version']}, and 1 to {VERSION} can be read")
        gallery = Gallery(str(body["profile_id"]), tuple(_shots(body["shots"])), tuple(map(str, body["missing"])))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(
            f"{path} is damaged ({error}). Delete it, and draw it anew: claspkit report RUN --gallery {SHOWN}"
        ) from error
    return gallery if gallery.profile_id == profile_id else None


def _shots(records: Sequence[Mapping[str, Any]]) -> Iterator[Shot]:
    """The samples of a file; ValueError as soon as they are more than can be drawn."""
    cells = 0
    for record in records:
        shot = Shot.from_dict(record)
        cells += shot.cells
        if cells > _MOST_CELLS:
            raise ValueError(f"its pictures have more than {_MOST_CELLS} tokens to draw")
        yield shot
