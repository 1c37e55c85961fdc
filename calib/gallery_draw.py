"""Draws the report's gallery: samples of every class, and what each pruning stage kept of their pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from claspkit.cache.store import FeatureStore
from claspkit.profiles.canonical import canonical_json
from claspkit.profiles.errors import ClaspError
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.replay import replay

from .feeding import Feed
from .finite import all_finite
from .gallery import SHOWN, Gallery, Shot, pick
from .images import open_image
from .ledger import HOLDOUT, UNPRUNED, Ledger
from .overlay import StageView
from .report_gallery import figure
from .samples import Sample
from .search import ClassData
from .seen import shown, token_map
from .space import Candidate

MOST_BYTES = 1_200_000
"""Of all samples of a gallery, in its file and in HTML alike; the report shows as many of them as it has room for."""

_QUALITY = 78  # of the JPEGs: about 15 kB for 336 pixels squared
_SIDE = 288  # pixels along a picture's longer side at most, where it is not one of the model's own size


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
        stages: (after_layer, keep) of the run's first budget; candidates of a further one bring their own tokens.
        classes: the samples used.
        chosen: class -> configuration of the profile.
        ledger: with the holdout's answers.
        root: folder of the pictures.
        profile_id: of the profile.
        count: of each kind, at most; 0 draws nothing.
    """
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
                grid = store.grid(data.holdout[place].image_sha256)
                shot = _shot(loaded, data, place, ledger, chosen[data.intent].id, views, root, grid)
            except ClaspError as error:
                missing.append(f"{data.intent}: {error}")
                continue
            used += weight(shot)
            if used > room:
                missing.append(f"{data.intent}: pictures beyond {room / 1e3:.0f} kB of this class")
                break
            shots.append(shot)
    return Gallery(profile_id, tuple(shots), tuple(missing))


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


def weight(shot: Shot) -> int:
    """Bytes of a sample in the gallery's file or in the report, whichever are more."""
    return max(len(canonical_json(shot.to_dict())), len(figure(shot).encode()))


def _shot(
    loaded: LoadedModel,
    data: ClassData,
    place: int,
    ledger: Ledger,
    candidate: str,
    views: tuple[StageView, ...],
    root: Path,
    grid: Sequence[int],
) -> Shot:
    sample = data.holdout[place]
    given = open_image(sample.image, root, sample.image_sha256)
    tokens = token_map(loaded, given, grid)
    picture = shown(loaded, given, tokens, _SIDE)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    stock = ledger.answers(HOLDOUT, data.intent, UNPRUNED)[place : place + 1]
    stock_scores = ledger.scores(HOLDOUT, data.intent, UNPRUNED)[place : place + 1]
    spoken = all_finite(stock_scores)  # a model that gave NaN has no answer
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
        tokens=tokens,
        size=picture.size,
        stages=views,
        jpeg=base64.b64encode(file.getvalue()).decode("ascii"),
    )
