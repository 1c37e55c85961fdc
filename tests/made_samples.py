"""Samples that are made up: one question of one picture each, told apart by number."""

from __future__ import annotations

from claspkit.calib.samples import Sample, Source, make_sample


def made_samples(count: int, dataset: str, first_picture: int = 0) -> tuple[Sample, ...]:
    """Samples of as many pictures.

    Args:
        count: how many.
        dataset: where they are said to come from; samples of two data sets have other uids.
        first_picture: number of the first picture; ranges that do not meet share no picture.
    """
    return tuple(
        make_sample(
            image=f"{dataset}-{first_picture + i}.png",
            image_sha256=f"{first_picture + i:064x}",
            prompt="How many?",
            answers=("1",),
            choices=None,
            scorer="exact_match@1",
            source=Source(dataset, None, None, i),
        )
        for i in range(count)
    )
