"""Samples from a file with one JSON object a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from claspkit.profiles.canonical import strict_loads
from claspkit.profiles.errors import BadDataError, shorten

from .images import PictureChecks
from .samples import RowError, Sample, Source, make_sample
from .sources import DataSource, Gathering, Limits, LoadResult, Mark, Progress, SourceOptions, label_of

MAX_LINE_BYTES = 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonlSource(DataSource):
    """Rows of {image, prompt, answers | answer, choices?, scorer?, intent?}, or LLaVA conversations.

    The fields and what each may hold are in docs/data.md.
    """

    name: ClassVar[str] = "jsonl"

    def __init__(self, options: SourceOptions) -> None:
        self._path = Path(options.data or "")
        self._image_root = options.sample_root
        self._options = options
        if not self._path.is_file():
            raise BadDataError(f"--data {self._path}: there is no such file")

    def load(self, limits: Limits | None = None, progress: Progress | None = None) -> LoadResult:
        """Read the file; see :meth:`DataSource.load`. Every picture is decoded once."""
        limits = limits or self._options.limits
        if self._path.stat().st_size == 0:
            raise BadDataError(f"--data {self._path}: the file is empty")
        if not self._image_root.is_dir():
            raise BadDataError(f"the image root {self._image_root} is no folder; give it with --image-root")
        gathering = Gathering(self._path.name, progress)
        pictures = PictureChecks(self._image_root)
        digest = sha256()
        try:
            opened = self._path.open("rb")
        except OSError as error:
            raise BadDataError(f"--data {self._path}: {error.strerror}") from error
        with opened as file:
            for number, line in numbered_lines(file, digest.update):
                if gathering.has_enough(limits):
                    continue  # read on: the digest is of the whole file
                where = f"{self._path.name}:{number}"
                gathering.take(where, partial(self._row, line, number, pictures), partial(_mark, line))
        return gathering.result(f"sha256:{digest.hexdigest()}", None)

    def _row(self, line: bytes | None, number: int, pictures: PictureChecks) -> Sample:
        if line is None:
            raise RowError(f"the line is longer than {MAX_LINE_BYTES} bytes")
        try:
            row = strict_loads(line, max_bytes=MAX_LINE_BYTES)
        except ValueError as error:
            cut = "" if line.endswith(b"\n") else " (the file ends within this line)"
            raise RowError(f"{error}{cut}") from None
        if not isinstance(row, dict):
            raise RowError(f"one JSON object is needed, not {shorten(row, 40)}")
        image, prompt, answers = _conversation(row) if "conversations" in row else _plain_row(row)
        if not isinstance(image, str) or not image.strip():
            raise RowError(f"image must be a path, not {shorten(image, 40)}")
        picture = pictures.check(image)
        return make_sample(
            image=picture.path,
            image_sha256=picture.sha256,
            prompt=prompt,
            answers=answers,
            choices=row.get("choices"),
            scorer=row.get("scorer", self._options.scorer),
            source=Source(self._path.name, None, None, number),
            intent_hint=row.get("intent"),
        )


def _mark(line: bytes | None) -> Mark:
    """What a line says beside its sample; only asked about lines that are samples."""
    row = strict_loads(line or b"{}", max_bytes=MAX_LINE_BYTES)
    return Mark(label_of(row.get("category")), label_of(row.get("question_id")))


def numbered_lines(file: BinaryIO, seen: Callable[[bytes], object]) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not blank with their numbers from 1; None stands for one longer than MAX_LINE_BYTES.

    ``seen`` gets every byte of the file in order. Memory stays bounded whatever the file holds.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        seen(line)
        number += 1
        too_long = len(line) > MAX_LINE_BYTES
        piece = line
        while too_long and not piece.endswith(b"\n"):
            piece = file.readline(MAX_LINE_BYTES)
            if not piece:
                break
            seen(piece)
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if too_long or line.strip():
            yield number, None if too_long else line


def _plain_row(row: Mapping[str, Any]) -> tuple[object, object, object]:
    if "answer" in row and "answers" in row:
        raise RowError("answer and answers are both given; keep one")
    for field in ("image", "prompt"):
        if field not in row:
            raise RowError(f"{field} is missing; the row has {shorten(sorted(row))}")
    if "answer" in row:
        return row["image"], row["prompt"], [row["answer"]]
    if "answers" in row:
        return row["image"], row["prompt"], row["answers"]
    raise RowError(f"answers (or answer) is missing; the row has {shorten(sorted(row))}")


def _conversation(row: Mapping[str, Any]) -> tuple[object, object, object]:
    """The first question and answer of a LLaVA record; later turns lean on earlier ones and are left out."""
    turns = row["conversations"]
    if "image" not in row:
        raise RowError("the conversation has no image")
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns[:2]):
        raise RowError(f"conversations must start with two turns, not {shorten(turns, 40)}")
    speakers = [turn.get("from") for turn in turns[:2]]
    if speakers != ["human", "gpt"]:
        raise RowError(f"conversations must start with human, then gpt, not {shorten(speakers, 40)}")
    question, answer = (turn.get("value") for turn in turns[:2])
    return row["image"], question, [answer]
