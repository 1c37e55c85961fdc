"""Pictures that could not be used when their features were due: found out once, then left out of the run for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from claspkit.profiles.errors import BadDataError, CorruptError
from claspkit.profiles.records import RecordLog, read_records

from .folder import RunFolder
from .search import ClassData
from .sources import LoadResult, Quarantined
from .worker_ledgers import read_all


@dataclass(frozen=True)
class Reject:
    """A picture left out: its name in the data, and why."""

    picture: str
    reason: str


def read_rejects(folder: RunFolder) -> dict[str, Reject]:
    """SHA-256 hex -> the picture left out; empty where there is no such file.

    Raises:
        CorruptError: the file is damaged or no list of pictures.
    """
    if not folder.rejects.exists():
        return {}
    try:
        return {
            str(record["sha256"]): Reject(str(record["picture"]), str(record["reason"]))
            for record in read_records(folder.rejects)
        }
    except KeyError as error:
        raise CorruptError(
            f"{folder.rejects}: a line has no {error}. Delete it and run the same command again: the pictures are "
            "tried anew."
        ) from error


def add_rejects(folder: RunFolder, rejects: Mapping[str, Reject]) -> None:
    """Write more pictures down; they are on disk on return.

    Raises:
        BadDataError: the run has scores already, which were made with these pictures.
    """
    if not rejects:
        return
    if (ledger := read_all(folder)) is not None and ledger.evaluations:
        first = next(iter(rejects.values()))
        raise BadDataError(
            f"{len(rejects)} pictures that this run has scores for cannot be used any more, the first: "
            f"{first.reason}. Put them back and run the same command again, or start over with --fresh."
        )
    with RecordLog(folder.rejects) as log:
        log.append(
            {"sha256": sha, "picture": reject.picture, "reason": reject.reason} for sha, reject in rejects.items()
        )


def leave_out(
    rejects: Mapping[str, Reject], classes: Sequence[ClassData], data: LoadResult
) -> tuple[list[ClassData], LoadResult]:
    """The classes without samples on rejected pictures, nobody moving up, and the data with these quarantined."""
    kept = [
        ClassData(
            each.intent,
            tuple(sample for sample in each.search if sample.image_sha256 not in rejects),
            tuple(sample for sample in each.holdout if sample.image_sha256 not in rejects),
        )
        for each in classes
    ]
    rows = [Quarantined(f"picture {reject.picture}", reject.reason) for reject in rejects.values()]
    return kept, replace(data, quarantine=[*data.quarantine, *rows])
