"""Prompts with known fine intents: lines of them, or what a run's labeller decided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from claspkit.profiles.errors import BadDataError, UsageError, shorten
from claspkit.profiles.intents import STANDARD
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.backend_replay import ReplayBackend, answer_rows, is_log
from claspkit.router.backends import BackendOptions

from .folder import RunFolder, read_samples


@dataclass(frozen=True)
class Labelled:
    """A prompt, its fine intent's id, and the id of the class this belongs to."""

    prompt: str
    fine: str
    intent: str


def read_labelled(path: Path, part: str | None = None, taxonomy: Taxonomy = STANDARD) -> list[Labelled]:
    """Read labelled prompts.

    Args:
        path: lines of {"prompt", "fine"}, other fields being ignored; or a run's labels.jsonl, whose prompts are
            taken from the samples.json beside it, each once, without those that have no fine intent.
        part: take only lines whose "part" is this.
        taxonomy: whose fine intents they are.

    Raises:
        UsageError: a file cannot be read, ``part`` asked of a label log, or nothing is left.
        BadDataError: a line that is no labelled prompt; names it.
        CorruptError: a damaged label log or sample list.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); name a file of labelled prompts") from None
    if not is_log(data):
        found = _from_lines(data, path, part, taxonomy)
    elif part is not None:
        raise UsageError(f"{path} is a run's label log, which has no parts; leave --part out")
    else:
        found = _from_run(path, taxonomy)
    if not found:
        where = "" if part is None else f" of part {part!r}"
        raise UsageError(f"{path} holds no prompt with a fine intent{where}")
    return found


def is_run_log(path: Path) -> bool:
    """Whether a file that :func:`read_labelled` takes is a run's label log: what labellers said, which may be wrong."""
    return is_log(path.read_bytes())


def _from_lines(data: bytes, path: Path, part: str | None, taxonomy: Taxonomy) -> list[Labelled]:
    found = []
    for number, row in answer_rows(data, path):
        prompt, fine = row.get("prompt"), row.get("fine")
        if not (isinstance(prompt, str) and isinstance(fine, str) and fine in taxonomy.fine_ids):
            raise BadDataError(
                f'{path}, line {number}: a labelled prompt needs "prompt" (text) and "fine" (one of '
                f"{', '.join(taxonomy.fine_ids)}); there is {shorten(row)}"
            )
        if part is None or row.get("part") == part:
            found.append(Labelled(prompt, fine, taxonomy.merge(fine)))
    return found


def _from_run(path: Path, taxonomy: Taxonomy) -> list[Labelled]:
    folder = RunFolder(path.parent)
    if not folder.samples.exists():
        raise UsageError(f"{path} names prompts by their digests; {folder.samples}, which holds them, is not there")
    answers = ReplayBackend(BackendOptions(answers=path, taxonomy=taxonomy))
    prompts = dict.fromkeys(sample.prompt for sample in read_samples(folder).samples)
    labels = ((prompt, answers.answer(prompt)) for prompt in prompts)
    return [
        Labelled(prompt, label.fine, label.intent)
        for prompt, label in labels
        if label is not None and label.fine is not None
    ]
