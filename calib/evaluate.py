"""``claspkit evaluate``: every row of a benchmark answered in several ways, scored, compared with the unpruned model.

Its result is a plain dict, which ``--json`` prints and the tables show.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryFile
from typing import Any, Final

from claspkit.profiles.canonical import digest, write_atomic
from claspkit.profiles.errors import BadDataError, NotFiniteError, UsageError
from claspkit.profiles.files import check_model
from claspkit.router.route import make_router
from claspkit.runtime.inputs import processor_sha256
from claspkit.runtime.models import LoadedModel

from .evaluate_answers import Answerer
from .evaluate_data import Rows
from .evaluate_log import AnswerLog, Said, batch_key
from .evaluate_measures import TOTAL, Tally, interval, mean_of_all, right_answer, tally
from .evaluate_ways import Way
from .ledger import UNPRUNED
from .metrics import yes_no_measures
from .progress import Reporter
from .samples import Sample
from .scorers import READINGS, score_answer
from .sources import Mark

ANSWERS, RESULTS = "answers.jsonl", "results.json"
SEED: Final = 0
"""Of the resampling behind the intervals."""


@dataclass(frozen=True)
class Setting:
    """How the model is run.

    Attributes:
        loaded: the model.
        max_new_tokens: length of an answer, at most.
        batch_size: rows asked at a time.
    """

    loaded: LoadedModel
    max_new_tokens: int
    batch_size: int

    def facts(self) -> dict[str, Any]:
        """What answers depend on beside way and rows."""
        return {
            "model_fingerprint": self.loaded.spec.fingerprint,
            "processor": processor_sha256(self.loaded),
            "dtype": str(self.loaded.model.dtype).removeprefix("torch."),
            "max_new_tokens": self.max_new_tokens,
        }


@dataclass(frozen=True)
class _Asked:
    """One data set's answers by the way's name, and its rows' intents by the profile's id."""

    said: Mapping[str, list[Said]]
    intents: Mapping[str | None, list[str]]


def evaluate(
    setting: Setting, ways: Sequence[Way], data: Sequence[Rows], out: Path, report: Reporter
) -> dict[str, Any]:
    """Ask, score and compare; the result is also written to ``out``/results.json.

    Args:
        setting: the model and how it is run.
        ways: the unpruned model first.
        data: the data sets, read.
        out: folder that exists; answers that lie there already are not asked for again.
        report: where progress is told.

    Returns:
        JSON values: ``ways``, ``data`` (one entry per data set) and ``average``; docs/evaluating.md has the fields.

    Raises:
        MismatchError: a profile was made for another model.
        ResourceError: another evaluation writes there; the disk is full; a picture cannot be read now.
        BadDataError: rows that the data set's measure cannot be taken of.
    """
    loaded = setting.loaded
    for way in ways:
        if way.profile is not None:
            check_model(way.profile, loaded.spec)
    for rows in data:
        if seen := _seen(rows, ways):
            report.warn(f"{rows.data}: these rows were seen by the calibration of {', '.join(seen)}")
        # What cannot be measured is said before anything is asked.
        tally(rows.measure, rows.samples, rows.marks, [0.0] * len(rows.samples), [""] * len(rows.samples))
    facts = setting.facts()
    with closing(AnswerLog(out / ANSWERS)) as log:
        answers = _answers(setting, digest(facts), ways, data, log, report)
    sets = [_data_set(rows, ways, each) for rows, each in zip(data, answers, strict=True)]
    found = {
        "model": loaded.spec.id,
        **facts,
        "device": str(loaded.model.device),
        "batch_size": setting.batch_size,
        "ways": [way.facts() for way in ways],
        "data": sets,
        "average": [
            {"name": way.name, "retained": mean_of_all([one["ways"][place]["retained"] for one in sets])}
            for place, way in enumerate(ways)
        ],
        "digest": digest([[way.key, [one.to_list() for one in of.said[way.name]]] for of in answers for way in ways]),
    }
    write_atomic(out / RESULTS, json.dumps(found, indent=1, ensure_ascii=False).encode() + b"\n")
    return found


def check_finite(found: Mapping[str, Any]) -> None:
    """Refuse an evaluation in which a way has no score because of NaN or infinity; called after it was shown.

    Raises:
        NotFiniteError: naming ways, data sets and how many rows.
    """
    odd = [
        f"{way['name']} on {one['data']}: {way['not_finite']} of {one['rows']} rows"
        for one in found["data"]
        for way in one["ways"]
        if way["not_finite"]
    ]
    if odd:
        raise NotFiniteError(
            "the model gave NaN or infinity, and what it did so for has no score: " + "; ".join(odd) + ". It overflows "
            f"in {found['dtype']}; run the same command with --dtype float32 or --dtype bfloat16"
        )


def make_folder(out: Path) -> None:
    """Make the folder of an evaluation; UsageError where that cannot be, or no file can be made in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(
            f"--out {out} cannot be made or written ({error.strerror}); give a folder that can be"
        ) from None


def _answers(
    setting: Setting, key: str, ways: Sequence[Way], data: Sequence[Rows], log: AnswerLog, report: Reporter
) -> list[_Asked]:
    """Every way's answers to every data set; what is not recorded is asked for."""
    answerer = Answerer(setting.loaded, setting.max_new_tokens)
    total = sum(len(rows.samples) for rows in data) * len(ways)
    answers: list[_Asked] = []
    with report.task("evaluate", total, "answers") as advance:
        for rows in data:
            intents = _labels(ways, rows.samples)
            said: dict[str, list[Said]] = {way.name: [] for way in ways}
            for start in range(0, len(rows.samples), setting.batch_size):
                batch = rows.samples[start : start + setting.batch_size]
                uids = [sample.uid for sample in batch]
                classes = {origin: found[start : start + len(batch)] for origin, found in intents.items()}
                keys = {way.name: batch_key(key, way.key, uids, classes[way.origin]) for way in ways}
                lacking = [way for way in ways if log.get(keys[way.name], len(batch)) is None]
                if lacking:
                    new = answerer.ask(batch, rows.root, [(way, classes[way.origin]) for way in lacking])
                    log.put({keys[way.name]: mine for way, mine in zip(lacking, new, strict=True)})
                for way in ways:
                    said[way.name] += log.get(keys[way.name], len(batch)) or []
                advance(len(batch) * len(ways))
            answers.append(_Asked(said, intents))
    return answers


def _labels(ways: Sequence[Way], samples: Sequence[Sample]) -> dict[str | None, list[str]]:
    """The intent of every row as each profile routes it, by the profile's id; for the stock model there is none."""
    found: dict[str | None, list[str]] = {None: [""] * len(samples)}
    prompts = [sample.prompt for sample in samples]
    for way in ways:
        if way.profile is not None and way.origin not in found:
            route = make_router(way.profile.router, way.folder, way.profile.read_taxonomy())
            found[way.origin] = [label.intent for label in route(prompts)]
    return found


def _data_set(rows: Rows, ways: Sequence[Way], asked: _Asked) -> dict[str, Any]:
    """One data set's entry."""
    said = asked.said
    refused = {i: one.refused for way in ways for i, one in enumerate(said[way.name]) if one.refused is not None}
    kept = [index for index in range(len(rows.samples)) if index not in refused]
    samples = [rows.samples[index] for index in kept]
    if not samples:
        reason = next(iter(refused.values()), "")
        raise BadDataError(f"--data {rows.data}: none of its {len(refused)} rows can be put to the model: {reason}")
    mine = {way.name: [said[way.name][index] for index in kept] for way in ways}
    base = _tally_of(rows, samples, mine[UNPRUNED])
    entries = [_way(rows, samples, way, mine[way.name], mine[UNPRUNED], base) for way in ways]
    left_out = [asdict(row) for row in rows.quarantine]
    left_out += [{"where": _where(rows.samples[i]), "reason": why} for i, why in sorted(refused.items())]
    profiled = [way for way in ways if way.profile is not None and not way.variant]
    return {
        "data": rows.data,
        "name": rows.name,
        "revision": rows.revision,
        "split": rows.split,
        "rows": len(samples),
        "pictures": len({sample.image_sha256 for sample in samples}),
        "left_out": len(left_out),
        "left_out_rows": left_out[:100],
        "scorers": sorted({sample.scorer for sample in samples}),
        "measure": rows.measure,
        "unit": "points" if rows.measure == TOTAL else "share",
        "seen": _seen(rows, ways),
        "classes": {way.name: dict(Counter(asked.intents[way.origin][index] for index in kept)) for way in profiled},
        "ways": entries,
    }


def _seen(rows: Rows, ways: Sequence[Way]) -> list[str]:
    """The profiles, by name, whose calibration drew from the rows' data set and split."""
    return [way.name for way in ways if way.profile is not None and not way.variant and rows.seen_by(way.profile)]


def _where(sample: Sample) -> str:
    return f"{sample.source.dataset}:{sample.source.index}"


def _way(
    rows: Rows, samples: Sequence[Sample], way: Way, said: Sequence[Said], unpruned: Sequence[Said], base: Tally | None
) -> dict[str, Any]:
    """One way's entry of a data set; scores are shares of 1, or points."""
    mine = _tally_of(rows, samples, said)
    texts = [one.text or "" for one in said]
    entry: dict[str, Any] = {
        "name": way.name,
        "score": None if mine is None else mine.score,
        "not_finite": sum(one.text is None for one in said),
        "tokens": fmean(tokens) if (tokens := [one.tokens for one in said if one.text is not None]) else None,
        "same_answers": fmean(one.text == other.text for one, other in zip(said, unpruned, strict=True)),
        "difference": None,
        "ci_low": None,
        "ci_high": None,
        "retained": None,
        "measures": _yes_no(samples, texts) if mine is not None else None,
        "by_category": _by_category(rows, samples, texts) if mine is not None else {},
    }
    if mine is None or base is None:
        return entry
    entry["retained"] = mine.score / base.score if base.score else None
    if way.profile is not None:
        low, high = interval(mine, base, SEED) or (None, None)
        entry |= {"difference": mine.score - base.score, "ci_low": low, "ci_high": high}
    return entry


def _tally_of(rows: Rows, samples: Sequence[Sample], said: Sequence[Said]) -> Tally | None:
    """The sums of a way's answers; None where one is not finite."""
    if any(one.text is None for one in said):
        return None
    return tally(rows.measure, samples, rows.marks, _scores(samples, said), [one.text or "" for one in said])


def _scores(samples: Sequence[Sample], said: Sequence[Said]) -> list[float]:
    return [score_answer(sample, one.text or "") for sample, one in zip(samples, said, strict=True)]


def _yes_no(samples: Sequence[Sample], texts: Sequence[str]) -> dict[str, Any] | None:
    """Measures of yes-or-no questions, where all rows are some."""
    if not all(sample.scorer in READINGS for sample in samples):
        return None
    said = [READINGS[sample.scorer](text) for sample, text in zip(samples, texts, strict=True)]
    right = [right_answer(sample) for sample in samples]
    return asdict(yes_no_measures(said, right, [sample.image_sha256 for sample in samples]))


def _by_category(rows: Rows, samples: Sequence[Sample], texts: Sequence[str]) -> dict[str, float]:
    """Mean score of the rows of every category that the data names."""
    found: dict[str, list[float]] = {}
    for sample, text in zip(samples, texts, strict=True):
        if category := rows.marks.get(sample.uid, Mark()).category:
            found.setdefault(category, []).append(score_answer(sample, text))
    return {category: fmean(scores) for category, scores in found.items()}
