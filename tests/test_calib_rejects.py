"""Rejected pictures: no sample on one is counted anywhere."""

from __future__ import annotations

from claspkit.calib.rejects import Reject, leave_out
from claspkit.calib.samples import Sample, Source, make_sample
from claspkit.calib.search import ClassData
from claspkit.calib.sources import LoadResult


def sample(picture: int, row: int) -> Sample:
    """A question about picture number ``picture``."""
    return make_sample(
        image=f"{picture}.png",
        image_sha256=f"{picture:064x}",
        prompt=f"What is number {row}?",
        answers=["1"],
        source=Source("own", None, None, row),
    )


def test_rejected_pictures_leave_both_halves_and_nobody_moves_up() -> None:
    """Search and holdout lose their samples on them and nothing else, in order; the data names them."""
    search = tuple(sample(picture, row) for row, picture in enumerate((1, 2, 3, 1)))
    holdout = tuple(sample(picture, 10 + row) for row, picture in enumerate((4, 5, 5, 6)))
    classes = [ClassData("object", search, holdout), ClassData("text", holdout[:2], search[1:2])]
    data = LoadResult([*search, *holdout], [], [])
    rejects = {f"{picture:064x}": Reject(f"{picture}.png", "gone") for picture in (1, 5)}
    kept, left = leave_out(rejects, classes, data)
    assert kept == [
        ClassData("object", search[1:3], (holdout[0], holdout[3])),
        ClassData("text", holdout[:1], search[1:2]),
    ]
    assert left.samples == data.samples
    assert [row.where for row in left.quarantine] == ["picture 1.png", "picture 5.png"]
    assert {row.reason for row in left.quarantine} == {"gone"}
