"""Samples of every class with what each pruning stage kept of their pictures: the report's gallery."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from claspkit.cache.store import FeatureStore
from claspkit.profiles.canonical import canonical_json, digest, strict_loads, write_atomic
from claspkit.profiles.errors import ClaspError, CorruptError
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.replay import replay

from .apply import seen_picture
from .feeding import Feed
from .finite import all_finite
from .images import open_image
from .ledger import HOLDOUT, UNPRUNED, Ledger
from .overlay import StageView
from .samples import Sample
from .search import ClassData
from .space import Candidate

SHOWN = 2
"""Right samples, and wrong ones, that a calibration draws of every class."""

MOST_BYTES = 1_200_000
"""Of all pictures and token lists together, so that the report stays below 2 MB."""

RIGHT = 0.5
"""Score from which on an answer counts as right."""

_QUALITY = 78  # of the JPEGs: about 15 kB for 336 pixels squared
_MAX_FILE = 20_000_000


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
        grid: (rows, columns) of visual tokens.
        stages: what each stage kept.
        jpeg: the picture as the model sees it, base64.
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
    grid: tuple[int, int]
    stages: tuple[StageView, ...]
    jpeg: str

    @property
    def right(self) -> bool:
        """Whether the pruned model's answer counts as right."""
        return self.score >= RIGHT

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Shot:
        """Inverse of ``asdict``; KeyError, TypeError or ValueError for a record of another shape."""
        stages = tuple(
            StageView(int(stage["after_layer"]), tuple(stage["kept"]), tuple(stage["pivots"]))
            for stage in record["stages"]
        )
        rows, columns = record["grid"]
        base64.b64decode(record["jpeg"], validate=True)
        return cls(**{**record, "answers": tuple(record["answers"]), "grid": (rows, columns), "stages": stages})


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


def draw_gallery(
    loaded: LoadedModel,
    store: FeatureStore,
    stages: Sequence[tuple[int, int]],
    classes: Sequence[ClassData],
    chosen: Mapping[str, Candidate],
    ledger: Ledger,
    root: Path,
    profile_id: str,
    count: int = SHOWN,
) -> Gallery:
    """Draw ``count`` right and ``count`` wrong holdout samples of every class.

    Answers and scores are the ledger's. The tokens come from one prefill per class on the cached features, as the
    search ran it, so no picture is encoded again. A picture that cannot be read any more is left out and told.

    Args:
        loaded: the run's model.
        store: its features.
        stages: (after_layer, keep) of the run's first budget.
        classes: the samples used.
        chosen: class -> configuration of the profile.
        ledger: with the holdout's answers.
        root: folder of the pictures.
        profile_id: of the profile.
        count: of each kind, at most; 0 draws nothing.
    """
    if not loaded.family.one_grid:
        told = f"the tokens of a {loaded.family.id} picture are no single grid on it, which is all that can be drawn"
        return Gallery(profile_id, (), (told,))
    shots: list[Shot] = []
    missing: list[str] = []
    room = MOST_BYTES // max(1, len(classes))
    for data in classes:
        picked = pick(data, ledger, chosen[data.intent].id, count)
        if not picked:
            continue
        kept = kept_tokens(loaded, store, stages, [data.holdout[place] for place in picked], chosen[data.intent])
        used = 0
        for place, views in zip(picked, kept, strict=True):
            try:
                shot = _shot(loaded, data, place, ledger, chosen[data.intent].id, views, root)
            except ClaspError as error:
                missing.append(f"{data.intent}: {error}")
                continue
            used += len(canonical_json(asdict(shot)))
            if used > room:
                missing.append(f"{data.intent}: pictures beyond {room / 1e3:.0f} kB of this class")
                break
            shots.append(shot)
    return Gallery(profile_id, tuple(shots), tuple(missing))


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


def kept_tokens(
    loaded: LoadedModel,
    store: FeatureStore,
    stages: Sequence[tuple[int, int]],
    samples: Sequence[Sample],
    candidate: Candidate,
) -> list[tuple[StageView, ...]]:
    """What each stage keeps of every sample's picture under a candidate, from cached features; one prefill."""
    facts = loaded.family.facts(loaded.model)
    prototype = candidate.prototype
    (block,) = Feed(loaded, store).read(samples, [(prototype.layers, prototype.weights)])
    row = RowPlan((facts.default_layer,), (1.0,), candidate.rho, candidate.keeps)  # what stands there is fused already
    plan = PrunePlan(
        tuple((layer, keep) for layer, keep in stages),
        (row,) * len(samples),
        scaling=facts.scaling,
        visual_tokens=facts.visual_tokens,
    )
    with (
        torch.inference_mode(),
        replay(loaded.model, loaded.family, block.records, block.grids),
        apply_plan(loaded.model, loaded.family, plan) as surgery,
    ):
        loaded.model.generate(**block.inputs, max_new_tokens=1, do_sample=False, num_beams=1)
    traces = surgery.last
    views = []
    for number in range(len(samples)):
        rows = [(trace.after_layer, trace.row(number)) for trace in traces]
        views.append(
            tuple(
                StageView(layer, tuple(t for t, _ in kept), tuple(t for t, kind in kept if kind == "pivot"))
                for layer, kept in rows
            )
        )
    return views


def write_gallery(path: Path, gallery: Gallery) -> None:
    """Write a gallery; it exists only when it is complete."""
    body = asdict(gallery)
    write_atomic(path, canonical_json({"sha256": digest(body), "body": body}))


def read_gallery(path: Path, profile_id: str) -> Gallery | None:
    """Read the gallery of a profile back; None where there is none, or one of another profile.

    Raises:
        CorruptError: the file does not match its digest or is no gallery.
    """
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = strict_loads(path.read_bytes(), max_bytes=_MAX_FILE)
        body = record["body"]
        if record["sha256"] != digest(body):
            raise ValueError("it does not match its own digest")
        shots = tuple(map(Shot.from_dict, body["shots"]))
        gallery = Gallery(str(body["profile_id"]), shots, tuple(map(str, body["missing"])))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{path} is damaged ({error}). Delete it, and draw it anew: claspkit report RUN --gallery {SHOWN}"
        ) from error
    return gallery if gallery.profile_id == profile_id else None


def _shot(
    loaded: LoadedModel,
    data: ClassData,
    place: int,
    ledger: Ledger,
    candidate: str,
    views: tuple[StageView, ...],
    root: Path,
) -> Shot:
    sample = data.holdout[place]
    picture = seen_picture(loaded, open_image(sample.image, root, sample.image_sha256))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    stock = ledger.answers(HOLDOUT, data.intent, UNPRUNED)[place : place + 1]
    stock_scores = ledger.scores(HOLDOUT, data.intent, UNPRUNED)[place : place + 1]
    spoken = all_finite(stock_scores)  # a model that gave NaN has no answer
    side = round(loaded.spec.visual_tokens**0.5)
    return Shot(
        intent=data.intent,
        uid=sample.uid,
        image=sample.image,
        prompt=sample.prompt,
        answers=sample.answers,
        candidate=candidate,
        answer=ledger.answers(HOLDOUT, data.intent, candidate)[place],
        score=ledger.scores(HOLDOUT, data.intent, candidate)[place],
        unpruned=stock[0] if spoken else None,
        unpruned_score=stock_scores[0] if spoken else None,
        grid=(side, side),
        stages=views,
        jpeg=base64.b64encode(file.getvalue()).decode("ascii"),
    )
