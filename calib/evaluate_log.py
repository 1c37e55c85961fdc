"""Answers of an evaluation on disk: one checksummed line per way and batch, so that a killed one goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from claspkit.profiles.canonical import digest
from claspkit.profiles.errors import CorruptError, UsageError, shorten
from claspkit.profiles.records import Record, RecordLog


@dataclass(frozen=True)
class Said:
    """What a way made of one row.

    Attributes:
        text: the answer; None where the model gave NaN or infinity for it, or the row could not be asked.
        tokens: visual tokens that leave a decoder layer, mean over the layers; 0 where there is no answer.
        refused: why the row could not be asked; None where it could.
    """

    text: str | None
    tokens: float = 0.0
    refused: str | None = None

    def to_list(self) -> list[Any]:
        """As JSON."""
        return [self.text, self.tokens, self.refused]

    @classmethod
    def from_list(cls, value: Any) -> Self:
        """Inverse of :meth:`to_list`; TypeError or ValueError for anything else."""
        text, tokens, refused = value
        told = all(part is None or isinstance(part, str) for part in (text, refused))
        if not told or type(tokens) not in (int, float) or tokens < 0 or None not in (text, refused):
            raise TypeError(f"no answer: {shorten(value)}")
        return cls(text, float(tokens), refused)


class AnswerLog:
    """Answers by what they depend on: the model, how it was run, the way, and the rows of the batch.

    A folder may hold the answers of any number of evaluations: what was asked before is not asked again.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending; a torn last line is cut off.

        Raises:
            ResourceError: another evaluation writes there.
            CorruptError: the file is damaged, or none of ours.
            UsageError: it cannot be written.
        """
        try:
            self._log = RecordLog(path)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written ({error.strerror}); give --out a folder where files can be"
            ) from None
        try:
            self._found = dict(_entry(record) for record in self._log.found)
        except (KeyError, TypeError, ValueError) as error:
            self._log.close()
            raise CorruptError(
                f"{path}: a line is not of an evaluation ({error!r}). Delete the file and run the same command again: "
                "the questions are asked anew."
            ) from error

    def get(self, key: str, rows: int) -> list[Said] | None:
        """The answers of a batch of so many rows, None if they are not recorded."""
        found = self._found.get(key)
        if found is not None and len(found) != rows:
            raise CorruptError(f"{self._log.path}: {len(found)} answers for a batch of {rows}; delete the file")
        return found

    def put(self, answers: dict[str, list[Said]]) -> None:
        """Append batches by key; they are on the disk when this returns."""
        self._log.append({"key": key, "said": [one.to_list() for one in said]} for key, said in answers.items())
        self._found |= answers

    def close(self) -> None:
        """Release the lock."""
        self._log.close()


def batch_key(setting: str, way: str, uids: Sequence[str], intents: Sequence[str]) -> str:
    """The name of a batch's answers.

    Args:
        setting: digest of the model and of how it is run.
        way: :attr:`.evaluate_ways.Way.key`.
        uids: of the rows, in order.
        intents: classes that they were asked as, in order.
    """
    return digest([setting, way, list(uids), list(intents)])


def _entry(record: Record) -> tuple[str, list[Said]]:
    return str(record["key"]), [Said.from_list(value) for value in record["said"]]
