"""The ledger: the only place where results are recorded. Resume, logs, reports and the profile all read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

from claspkit.profiles.canonical import digest
from claspkit.profiles.errors import CorruptError, shorten
from claspkit.profiles.records import open_log, read_records

SEARCH, HOLDOUT = "search", "holdout"

UNPRUNED = "unpruned"
"""Candidate id of the stock model with all visual tokens."""

MAX_COST = 1e30
"""Of anything, for one result: any number of them can be added up."""


@dataclass(frozen=True)
class Cost:
    """What was computed for a result, and what it takes without sharing anything. It decides nothing.

    Attributes:
        flops: of the decoder's layers, padding included; what several candidates shared counts in equal parts.
        flops_alone: the same for one prompt at a time, answered token by token, without padding.
        token_layers: tokens through decoder layers, counted like ``flops``.
        token_layers_alone: counted like ``flops_alone``.
        bytes_read: of cached features.
        drafted: answers that were guessed, and confirmed without a step of decoding.
    """

    flops: float = 0.0
    flops_alone: float = 0.0
    token_layers: float = 0.0
    token_layers_alone: float = 0.0
    bytes_read: float = 0.0
    drafted: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Entry:
    """Results of one candidate on one block of one class's samples.

    Attributes:
        split: "search" or "holdout".
        intent: class id.
        candidate: candidate id, or :data:`UNPRUNED`.
        block: block number within the split.
        samples: digest of the block's sample uids, in order.
        scores: one per sample, 0..1; NaN where the model or the scorer gave no finite number, null in the file.
        answers: what the model said, one per sample.
        cost: what it took; results that differ in this alone are equal.
    """

    split: str
    intent: str
    candidate: str
    block: int
    samples: str
    scores: tuple[float, ...]
    answers: tuple[str, ...]
    cost: Cost = field(default=Cost(), compare=False)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What identifies an entry."""
        return self.split, self.intent, self.candidate, self.block

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, one line of the file."""
        return {**self.result, "cost": asdict(self.cost)}

    @property
    def result(self) -> dict[str, Any]:
        """The part that decides, as a JSON object."""
        return {
            "split": self.split,
            "class": self.intent,
            "candidate": self.candidate,
            "block": self.block,
            "samples": self.samples,
            "scores": [score if math.isfinite(score) else None for score in self.scores],
            "answers": list(self.answers),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Entry:
        """Inverse of :meth:`to_dict`; KeyError or TypeError for a line of another shape."""
        return cls(
            split=str(record["split"]),
            intent=str(record["class"]),
            candidate=str(record["candidate"]),
            block=int(record["block"]),
            samples=str(record["samples"]),
            scores=tuple(_score(score) for score in record["scores"]),
            answers=tuple(str(answer) for answer in record["answers"]),
            cost=_cost(record.get("cost", {})),  # older ledgers have none
        )


def _score(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in {int, float}:
        raise TypeError(f"a score is a number or null, not {shorten(value)}")
    if not 0 <= value <= 1:
        raise ValueError(f"a score is from 0 to 1, not {shorten(value)}")
    return float(value)


def _cost(record: Any) -> Cost:
    odd = [name for name, value in record.items() if type(value) not in {int, float} or not 0 <= value <= MAX_COST]
    if odd:
        raise ValueError(f"cost.{odd[0]} is a number from 0 to {MAX_COST:g}, not {shorten(record[odd[0]])}")
    return Cost(**record)


class Ledger:
    """Entries of one run, on disk and in memory."""

    def __init__(self, path: Path, entries: dict[tuple[str, str, str, int], Entry], log: Any) -> None:
        """Use :meth:`open` or :meth:`read`."""
        self._path = path
        self._entries = entries
        self._log = log

    @classmethod
    def open(cls, path: Path, known: Ledger | None = None) -> Ledger:
        """Open for writing; a torn last line is cut off, a second writer is refused.

        Args:
            path: the file.
            known: entries of another ledger that count as held by this one, without standing in its file.
        """
        log, records = open_log(path)
        return cls(path, _beside(known, _index(path, records)), log)

    @classmethod
    def read(cls, path: Path, known: Ledger | None = None) -> Ledger:
        """Open for reading only, also while another process writes; ``known`` as in :meth:`open`."""
        return cls(path, _beside(known, _index(path, read_records(path))), None)

    def get(self, split: str, intent: str, candidate: str, block: int, uids: Sequence[str]) -> Entry | None:
        """Return the entry if it was made on exactly these samples."""
        entry = self._entries.get((split, intent, candidate, block))
        if entry is not None and entry.samples != digest(list(uids)):
            raise CorruptError(
                f"{self._path}: block {block} of class {intent!r} ({split}) was scored on other samples than this "
                "run's; run again with --fresh to start over"
            )
        return entry

    def put(self, entries: Iterable[Entry]) -> None:
        """Append entries; they are on the disk when this returns."""
        new = list(entries)
        self._log.append([entry.to_dict() for entry in new])
        self._entries.update({entry.key: entry for entry in new})

    def take(self, other: Ledger) -> None:
        """Append what another ledger holds and this one does not, in the order in which it was scored."""
        self.put([entry for key, entry in other._entries.items() if key not in self._entries])

    def entries(self) -> list[Entry]:
        """All entries, sorted by key."""
        return [self._entries[key] for key in sorted(self._entries)]

    def scores(self, split: str, intent: str, candidate: str) -> list[float]:
        """All scores of a candidate on a split, in sample order."""
        return [score for entry in self._blocks(split, intent, candidate) for score in entry.scores]

    def answers(self, split: str, intent: str, candidate: str) -> list[str]:
        """All answers of a candidate on a split, in sample order."""
        return [answer for entry in self._blocks(split, intent, candidate) for answer in entry.answers]

    def _blocks(self, split: str, intent: str, candidate: str) -> Iterator[Entry]:
        """A candidate's blocks from the front, up to the first that is not there."""
        block = 0
        while entry := self._entries.get((split, intent, candidate, block)):
            yield entry
            block += 1

    def candidates(self, split: str, intent: str) -> list[str]:
        """Ids with scores on a class's split, in the order in which they were first scored."""
        keys = (key for key in self._entries if key[:2] == (split, intent))
        return list(dict.fromkeys(candidate for _, _, candidate, _ in keys))

    @property
    def evaluations(self) -> int:
        """Candidate evaluations recorded: one is one candidate on one sample."""
        return sum(len(entry.scores) for entry in self._entries.values())

    @property
    def sha256(self) -> str:
        """Digest of the results, whatever the order in which they were written."""
        return digest([entry.result for entry in self.entries()])

    def close(self) -> None:
        """Release the lock."""
        if self._log is not None:
            self._log.close()


def _beside(
    known: Ledger | None, own: dict[tuple[str, str, str, int], Entry]
) -> dict[tuple[str, str, str, int], Entry]:
    return own if known is None else {**known._entries, **own}


def _index(path: Path, records: list[dict[str, Any]]) -> dict[tuple[str, str, str, int], Entry]:
    try:
        entries = [Entry.from_dict(record) for record in records]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(
            f"{path}: a line is not a ledger entry ({error!r}); this file is not a claspkit ledger"
        ) from error
    return {entry.key: entry for entry in entries}
