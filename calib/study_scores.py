"""The table behind a study: every holdout sample under every class's configuration.

What the run's ledger holds is taken from it. The rest is scored as the search would have, block by block, and written
to a log of its own, so that a study that was killed goes on from the block it was at.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from claspkit.profiles.budget import Stage
from claspkit.profiles.canonical import digest
from claspkit.profiles.errors import CorruptError, NotFiniteError
from claspkit.profiles.records import Record, RecordLog, read_records

from .evaluator import Evaluator
from .finished import FinishedRun
from .finite import all_finite
from .ledger import HOLDOUT, Entry
from .progress import Advance, Reporter
from .run_model import load_run_model, open_run_features
from .samples import Sample
from .search import ClassData
from .space import Candidate, side_by_side

Key = tuple[str, int, str, str]
"""Class, block number, digest of the block's sample uids, candidate id."""


class StudyLog:
    """Scores beyond the ledger's. Records of another run, in a folder that was started over, are not read."""

    def __init__(self, path: Path, run: str) -> None:
        """Read what is there; ``run`` is the digest of the run's lock."""
        self._path, self._run = path, run
        self._scores: dict[Key, tuple[float, ...]] = {}
        self._read(read_records(path) if path.exists() else [])

    def get(self, key: Key) -> tuple[float, ...] | None:
        """Scores of a block's samples, None if they are not recorded."""
        return self._scores.get(key)

    def open(self) -> RecordLog:
        """Open for appending and read again; another study of this run is refused (ResourceError)."""
        log = RecordLog(self._path)
        self._read(log.found)
        return log

    def put(self, log: RecordLog, entries: Sequence[Entry]) -> None:
        """Append scores; they are on the disk when this returns."""
        log.append({"run": self._run, **entry.to_dict()} for entry in entries)
        self._scores |= {_key(entry): entry.scores for entry in entries}

    def _read(self, records: Sequence[Record]) -> None:
        try:
            mine = [Entry.from_dict(record) for record in records if record["run"] == self._run]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(
                f"{self._path}: a line is not of a study ({error!r}). Delete the file and run the same command again: "
                "it is computed anew."
            ) from error
        self._scores |= {_key(entry): entry.scores for entry in mine}


def score_table(
    run: FinishedRun, candidates: Sequence[Candidate], report: Reporter
) -> tuple[NDArray[np.float64], int]:
    """Score every holdout sample under every candidate.

    Args:
        run: a finished calibration.
        candidates: distinct ones.
        report: where progress is told.

    Returns:
        (samples, candidates) float64 in 0..1, samples class by class in the order of ``run.classes``, and how many
        of these scores were computed now.

    Raises:
        UsageError: the model cannot be loaded, or features that are needed are gone.
        MismatchError: the model is not the one that was calibrated.
        ResourceError: another study of this run is at work.
        NotFiniteError: a candidate has scores that are not finite.
    """
    log = StudyLog(run.folder.study, digest(run.facts))
    computed = 0
    if any(missing for _, _, missing in _missing(run, candidates, log)):
        computed = _compute(run, candidates, log, report)
    rows: list[NDArray[np.float64]] = []
    for data in run.classes:
        for number, block in enumerate(run.blocks(data)):
            columns = [_known(run, log, data, number, block, candidate) for candidate in candidates]
            odd = [c.id for c, scores in zip(candidates, columns, strict=True) if not all_finite(scores or ())]
            if odd:
                raise NotFiniteError(
                    f"{odd[0]} gave NaN or infinity on holdout samples of class {data.intent!r}, so nothing can be "
                    "said about prompts that are routed to it. Calibrate in float32 or bfloat16 (--dtype)"
                )
            rows.append(np.array(columns, dtype=np.float64).T)
    return np.concatenate(rows), computed


def _compute(run: FinishedRun, candidates: Sequence[Candidate], log: StudyLog, report: Reporter) -> int:
    """Score what is missing."""
    with closing(log.open()) as file:
        work = [item for item in _missing(run, candidates, log) if item[2]]
        total = sum(len(run.blocks(data)[number]) * len(missing) for data, number, missing in work)
        report.say(f"study: {total} evaluations that the ledger does not hold; loading {run.config.model}")
        loaded = load_run_model(run.config, run.facts, run.folder)
        used = {sample.image_sha256 for data, number, _ in work for sample in run.blocks(data)[number]}
        with open_run_features(loaded, run.config, run.facts, run.folder, used) as store:
            stages = [Stage(after_layer, keep) for after_layer, keep in run.facts["stages_used"]]
            evaluator = Evaluator(loaded, store, stages, run.config.max_new_tokens)
            with report.task("study", total, "evaluations") as advance:
                for data, number, missing in work:
                    _score(evaluator, file, log, data, number, run.blocks(data)[number], missing, advance)
    return total


def _score(
    evaluator: Evaluator,
    file: RecordLog,
    log: StudyLog,
    data: ClassData,
    number: int,
    block: Sequence[Sample],
    missing: Sequence[Candidate],
    advance: Advance,
) -> None:
    uids = [sample.uid for sample in block]
    for outcomes in evaluator.evaluate(block, missing):
        entries = [
            Entry(HOLDOUT, data.intent, found.candidate.id, number, digest(uids), found.scores, found.answers)
            for found in outcomes
            if found.candidate is not None
        ]
        log.put(file, entries)
        advance(len(entries) * len(block))


def _missing(
    run: FinishedRun, candidates: Sequence[Candidate], log: StudyLog
) -> list[tuple[ClassData, int, list[Candidate]]]:
    """(class, block number, candidates without scores there), one prototype's candidates side by side."""
    return [
        (
            data,
            number,
            side_by_side(each for each in candidates if _known(run, log, data, number, block, each) is None),
        )
        for data in run.classes
        for number, block in enumerate(run.blocks(data))
    ]


def _known(
    run: FinishedRun, log: StudyLog, data: ClassData, number: int, block: Sequence[Sample], candidate: Candidate
) -> tuple[float, ...] | None:
    uids = [sample.uid for sample in block]
    entry = run.ledger.get(HOLDOUT, data.intent, candidate.id, number, uids)
    return entry.scores if entry is not None else log.get((data.intent, number, digest(uids), candidate.id))


def _key(entry: Entry) -> Key:
    return entry.intent, entry.block, entry.samples, entry.candidate
