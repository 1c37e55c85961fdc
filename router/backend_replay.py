"""Recorded answers in place of a labeller: those of an earlier run, or of anyone who wrote them down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from claspkit.profiles.canonical import sha256_hex, strict_loads
from claspkit.profiles.errors import BadDataError, CorruptError, UsageError, shorten
from claspkit.profiles.records import read_records

from .backends import Backend, BackendOptions
from .labels import Label
from .prompts import prompt_digest

_MAX_LINE = 2**20
_REPLAY = "replay:"


class ReplayBackend(Backend):
    """Labels by a file of answers.

    Args:
        options: ``answers`` is the file: a run's labels.jsonl, or lines of {"prompt", "fine"[, "confidence"]}.

    Raises:
        UsageError: no file given, or none there.
        BadDataError: a line that is no answer, or two answers to one prompt; names the line.
        CorruptError: a damaged label log.
    """

    def __init__(self, options: BackendOptions) -> None:
        if options.answers is None:
            raise UsageError("the replay router needs --router-answers FILE: a run's labels.jsonl, or lines of answers")
        self._path, self.taxonomy = options.answers, options.taxonomy
        data = read_answers(self._path)
        self.template = sha256_hex(data)
        self.source = f"{_REPLAY}{self.template[:12]}"
        self.block = 4096
        self._known = self._from_log() if is_log(data) else self._from_lines(data)

    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt, as recorded.

        Raises:
            BadDataError: prompts that have no answer; says how many and shows the first.
        """
        keys = [prompt_digest(prompt) for prompt in prompts]
        absent = [prompt for prompt, key in zip(prompts, keys, strict=True) if key not in self._known]
        if absent:
            raise BadDataError(
                f"{self._path} has no answer to {len(absent)} of {len(prompts)} prompts, the first: "
                f"{shorten(absent[0])}. Answers fit prompts that are equal but for case, spaces and what chat formats "
                "leave; add them, or label with another router"
            )
        return [self._known[key] for key in keys]

    def answer(self, prompt: str) -> Label | None:
        """The label recorded for a prompt, None if there is none."""
        return self._known.get(prompt_digest(prompt))

    def _from_log(self) -> dict[str, Label]:
        """Prompt digest -> label of the log's last labeller."""
        records, ours = read_records(self._path), self.taxonomy.labels_digest
        if records and records[-1].get("taxonomy", ours) != ours:
            raise BadDataError(
                f"{self._path} was labelled with other classes than these; label anew, or give its --taxonomy"
            )
        try:
            last = {name: records[-1][name] for name in ("backend", "template", "taxonomy")} if records else {}
            mine = [record for record in records if last.items() <= record.items()]
            pairs = {str(record["prompt"]): Label.from_dict(record["label"], self.taxonomy) for record in mine}
        except (KeyError, AttributeError, CorruptError) as error:
            raise CorruptError(f"{self._path} is no label log of this version: {error}") from None
        return {key: self._taken(label) for key, label in pairs.items()}

    def _from_lines(self, data: bytes) -> dict[str, Label]:
        """Prompt digest -> label of plain lines."""
        found: dict[str, Label] = {}
        for number, row in answer_rows(data, self._path):
            prompt, fine, confidence = row.get("prompt"), row.get("fine"), row.get("confidence", 1.0)
            try:
                if not (isinstance(prompt, str) and isinstance(fine, str) and fine in self.taxonomy.fine_ids):
                    raise CorruptError(f"there is {shorten(row)}")
                fields = {"intent": self.taxonomy.merge(fine), "fine": fine, "confidence": confidence}
                label = Label.from_dict({**fields, "source": self.source, "template": self.template}, self.taxonomy)
            except CorruptError as error:
                kinds = ", ".join(self.taxonomy.fine_ids)
                raise BadDataError(
                    f'{self._path}, line {number}: an answer needs "prompt" (text), "fine" (one of {kinds}) '
                    f'and may have "confidence" (from 0 to 1); {error}'
                ) from None
            key = prompt_digest(prompt)
            if found.setdefault(key, label) != label:
                raise BadDataError(f"{self._path}, line {number}: another answer to {shorten(prompt)} stands above")
        return found

    def _taken(self, label: Label) -> Label:
        """A recorded label as ours; who decided stays readable in its source."""
        source = label.source if label.source.startswith(_REPLAY) else _REPLAY + label.source
        if len(source) > 256 or not source.isprintable():
            raise CorruptError(f"{self._path}: a label's source is {shorten(label.source)}")
        return replace(label, source=source, template=self.template)


def read_answers(path: Path) -> bytes:
    """The bytes of a file of answers.

    Raises:
        UsageError: it is not there or no file.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the answers {path} cannot be read ({error.strerror}); name a file with --router-answers"
        ) from None


def is_log(data: bytes) -> bool:
    """Whether lines begin with a checksum, as those of a label log do, and not with a JSON object."""
    return bool(data.strip()) and not data.lstrip().startswith(b"{")


def answer_rows(data: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not blank."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                row = strict_loads(line, max_bytes=_MAX_LINE)
                if not isinstance(row, dict):
                    raise ValueError("it is no JSON object")
            except ValueError as error:
                raise BadDataError(f"{path}, line {number}: {error}") from None
            yield number, row
