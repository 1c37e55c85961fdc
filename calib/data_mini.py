"""Samples for the embedded model: pictures that claspkit.mini draws, and its questions about them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import INTENT_IDS

from .images import store_image
from .samples import Sample, Source, make_sample
from .sources import DataSource, Gathering, Limits, LoadResult, Progress, SourceOptions

if TYPE_CHECKING:
    from claspkit.mini.samples import MiniSample

DATASET = "claspkit.mini"
MAX_PICTURES = 1_000_000  # they are drawn one by one, until there are enough
_SCORER = "exact_match@1"


class MiniSource(DataSource):
    """Whole pictures with all their questions, until every intent has ``per_class`` of them.

    A picture is a function of the seed and its number, so asking for more keeps what was there, and drawing
    again writes nothing new. The generator's intent is a hint; the router decides.
    """

    name: ClassVar[str] = "mini"

    def __init__(self, options: SourceOptions) -> None:
        if options.per_class < 1 or options.seed < 0:
            asked = f"{options.per_class} with seed {options.seed}"
            raise UsageError(f"at least 1 sample per class and a seed from 0 are needed, not {asked}")
        self._options = options

    def load(self, limits: Limits | None = None, progress: Progress | None = None) -> LoadResult:
        """Draw the pictures into the materialise folder; see :meth:`DataSource.load`."""
        options, limits = self._options, limits or self._options.limits
        gathering = Gathering(DATASET, progress)
        index = 0
        for questions in enough_pictures(options.seed, options.per_class):
            if gathering.has_enough(limits):
                break
            buffer = io.BytesIO()
            questions[0].picture.save(buffer, "PNG")
            for question in questions:
                if gathering.has_enough(limits):
                    break
                build = partial(self._sample, question, index, buffer.getvalue())
                gathering.take(f"{DATASET}:{index}", build)
                index += 1
        return gathering.result(f"seed:{options.seed}", None)

    def _sample(self, question: MiniSample, index: int, png: bytes) -> Sample:
        picture = store_image(png, self._options.materialise)
        return make_sample(
            image=picture.path,
            image_sha256=picture.sha256,
            prompt=question.question,
            answers=[question.answer],
            scorer=self._options.scorer or _SCORER,
            source=Source(DATASET, f"seed:{self._options.seed}", None, index),
            intent_hint=question.intent,
        )


def enough_pictures(seed: int, per_class: int) -> Iterator[list[MiniSample]]:
    """The questions of one picture after the other until every intent has at least ``per_class``.

    ``seed`` (from 0) counts from the generator's own calibration seed: lower ones are what the embedded model
    was trained and validated on.
    """
    from claspkit.mini.samples import CALIBRATION_SEED, generate_samples

    counts: Counter[str] = Counter()
    endless = generate_samples(MAX_PICTURES, CALIBRATION_SEED + seed)
    for _, group in groupby(endless, key=lambda sample: sample.picture_index):
        questions = list(group)
        yield questions
        counts.update(question.intent for question in questions)
        if all(counts[intent] >= per_class for intent in INTENT_IDS):
            return
