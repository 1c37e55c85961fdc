"""Which samples a class works with: taken in hash order from the labelled ones, split by picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from claspkit.router.labels import Label

from .config import RunConfig
from .samples import Sample, sample_order, split_holdout
from .search import ClassData


def take_classes(
    samples: Sequence[Sample], labels: Mapping[str, Label], intents: Iterable[str], config: RunConfig
) -> list[ClassData]:
    """Take ``config.per_class`` samples of every class in hash order, and split each by picture.

    Args:
        samples: all that were read.
        labels: sample uid -> label; a sample without one belongs to no class.
        intents: class ids, in the order of the result.
        config: gives ``per_class``, ``seed`` and ``holdout``.
    """
    classes = []
    for intent in intents:
        mine = [sample for sample in samples if sample.uid in labels and labels[sample.uid].intent == intent]
        taken = sample_order(mine, config.seed)[: config.per_class]
        search, holdout = split_holdout(taken, config.seed, config.holdout)
        classes.append(ClassData(intent, tuple(search), tuple(holdout)))
    return classes
