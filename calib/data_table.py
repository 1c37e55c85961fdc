"""Samples from rows with columns, whether they come from a parquet file or from the hub."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import file_digest
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

from claspkit.profiles.canonical import digest, sha256_hex
from claspkit.profiles.errors import BadDataError, ClaspError, ResourceError, UsageError, shorten

from .answers import named_option, option_letter
from .images import StoredPicture, read_inside, store_image
from .samples import RowError, Sample, Source, clean_text, make_sample
from .sources import DataSource, Gathering, Limits, LoadResult, Mark, Progress, SourceOptions, label_of

# What a column of each role is usually called, the most telling name first.
COMMON_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "images", "picture", "img", "decoded_image", "jpg", "png"),
    "prompt": ("question", "prompt", "query", "problem", "instruction"),
    "answers": ("answers", "answer", "label", "multiple_choice_answer", "gt_answer", "solution"),
    "choices": ("choices", "options", "multiple_choices"),
    "category": ("category",),
    "question_id": ("question_id",),
}
TURNED = 1_000_000
"""MMBench numbers the copies of a question with turned-round options: its own number, plus a multiple of this."""

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
OPTIONS_SUFFIX = "\nAnswer with the option's letter from the given choices directly."
_MAX_CONTEXT = 10_000  # characters


@dataclass(frozen=True)
class Columns:
    """Which column plays which role.

    ``context`` is text put before the question where a row has some. ``options`` are columns that hold one option
    each, A first, in place of ``choices``. ``category`` and ``question_id`` are what a :class:`.sources.Mark` holds;
    ``turned`` ones are numbered as MMBench does (:data:`TURNED`). ``ocr`` is a list of texts read off the picture, put
    behind the question.
    """

    image: str
    prompt: str
    answers: str
    choices: str | None = None
    context: str | None = None
    options: tuple[str, ...] = ()
    category: str | None = None
    question_id: str | None = None
    turned: bool = False
    ocr: str | None = None


@dataclass(frozen=True)
class TableRules:
    """What all rows of one table have in common. ``suffix`` is put behind every question without options."""

    dataset: str
    revision: str | None
    split: str | None
    columns: Columns
    scorer: str | None = None
    suffix: str = ""


class ParquetSource(DataSource):
    """A .parquet file, or a folder of them in the order of their names; pictures embedded or beside them."""

    name: ClassVar[str] = "parquet"

    def __init__(self, options: SourceOptions) -> None:
        self._path = Path(options.data or "")
        self._options = options
        self._files()  # all there, or an error at once

    def load(self, limits: Limits | None = None, progress: Progress | None = None) -> LoadResult:
        """Read the rows; see :meth:`DataSource.load`. Pictures are written into the materialise folder."""
        files = self._files()
        revision = f"sha256:{digest([_file_sha256(file) for file in files])}"
        rows = parquet_rows(files)
        rules = TableRules(
            self._path.resolve().name,
            revision,
            None,
            find_columns(column_names(rows), self._options.columns),
            self._options.scorer,
        )
        pictures = TablePictures(self._options.materialise, self._options.image_root or files[0].parent)
        gathering = Gathering(rules.dataset, progress)
        gather_rows(plain_rows(rows), rules, pictures, gathering, limits or self._options.limits)
        return gathering.result(revision, None)

    def _files(self) -> list[Path]:
        if self._path.is_dir():
            files = sorted(self._path.glob("*.parquet"))
            if not files:
                raise BadDataError(f"--data {self._path}: the folder holds no .parquet file")
        else:
            files = [self._path]
        for file in files:
            if not file.is_file():
                raise BadDataError(f"--data {file}: there is no such file")
            if file.stat().st_size == 0:
                raise BadDataError(f"--data {file}: the file is empty")
        return files


@dataclass
class TablePictures:
    """Turns the picture a row holds into a file below ``materialise``.

    A row may hold the bytes, a {bytes, path} record as `datasets` keeps it, a path below ``beside``, or a
    list of exactly one of these.
    """

    materialise: Path
    beside: Path | None
    _stored: dict[str, StoredPicture] = field(default_factory=dict)

    def store(self, value: object) -> StoredPicture:
        """The picture as a stored file; RowError or BadDataError when it is none."""
        if isinstance(value, list):
            if len(value) != 1:
                raise RowError(f"the row holds {len(value)} pictures; one is supported")
            value = value[0]
        data, name = self._bytes(value)
        sha256 = sha256_hex(data)
        if sha256 not in self._stored:  # several questions about one picture usually stand in a row
            self._stored[sha256] = store_image(data, self.materialise, name)
        return self._stored[sha256]

    def _bytes(self, value: object) -> tuple[bytes, str]:
        if isinstance(value, Mapping):
            data, path = value.get("bytes"), value.get("path")
            value = data if data is not None else path
        if isinstance(value, bytes):
            return value, "embedded picture"
        if not isinstance(value, str) or not value:
            raise RowError(f"the picture column holds {shorten(value, 40)}, neither a picture nor a path")
        if self.beside is None:
            raise RowError(
                f"the row names the picture {shorten(value, 60)}; give its folder with --image-root"
            )
        return read_inside(value, self.beside)[1], value


def find_columns(available: Sequence[str], given: Mapping[str, str]) -> Columns:
    """Choose the columns by ``given`` (role -> name) and else by their common names.

    Raises:
        UsageError: a given role is unknown or its column is not there, or no column of a needed role is found;
            lists what there is.
    """
    unknown = ", ".join(sorted(given.keys() - COMMON_NAMES.keys()))
    if unknown:
        raise UsageError(f"--columns: there is no role {unknown}; {_how_to_say(available)}")
    found: dict[str, str] = {}
    for role, names in COMMON_NAMES.items():
        if role in given and given[role] not in available:
            raise UsageError(f"there is no column {given[role]!r} for {role}; {_how_to_say(available)}")
        name = given.get(role) or next((name for name in names if name in available), None)
        if name is not None:
            found[role] = name
    missing = [role for role in ("image", "prompt", "answers") if role not in found]
    if missing:
        raise UsageError(f"no column looks like {' or '.join(missing)}; {_how_to_say(available)}")
    return Columns(**found)  # type: ignore[arg-type]  # roles are the fields that hold one name


def row_sample(row: Mapping[str, Any], index: int, rules: TableRules, picture: StoredPicture) -> Sample:
    """Map row ``index`` (from 0) of a table to a sample; RowError names what is wrong with it."""
    columns = rules.columns
    choices = row.get(columns.choices) if columns.choices else None
    if columns.options:
        choices = list(takewhile(_is_text, (row.get(name) for name in columns.options)))
    if isinstance(choices, list) and not choices:
        choices = None  # open questions among ones with options
    question = clean_text(columns.prompt, row.get(columns.prompt), _MAX_CONTEXT)
    context = row.get(columns.context) if columns.context else None
    if isinstance(context, str) and _is_text(context):
        question = f"Context: {clean_text('context', context, _MAX_CONTEXT)}\n{question}"
    if columns.ocr:
        question += _ocr_text(row.get(columns.ocr))
    answers = reference_answers(row.get(columns.answers), choices)
    return make_sample(
        image=picture.path,
        image_sha256=picture.sha256,
        prompt=question + (_options_text(choices) if choices is not None else rules.suffix),
        answers=answers,
        choices=choices,
        scorer=rules.scorer,
        source=Source(rules.dataset, rules.revision, rules.split, index),
    )


def row_mark(row: Mapping[str, Any], columns: Columns) -> Mark:
    """What a row says about where it belongs; cells that are neither text nor whole numbers say nothing."""
    category = None if columns.category is None else label_of(row.get(columns.category))
    question = None if columns.question_id is None else row.get(columns.question_id)
    if columns.turned and isinstance(question, int):
        question %= TURNED
    return Mark(category, label_of(question))


def _is_text(value: object) -> bool:
    """Whether a cell holds something; tables that were read as numbers write ``nan`` where a text is missing."""
    return isinstance(value, str) and value.strip().casefold() not in ("", "nan")


def reference_answers(value: object, choices: object) -> list[object]:
    """The reference answers in the many shapes tables hold them in, as a list for :func:`make_sample`.

    A text; a number; a boolean (yes or no); a list of these or of {answer: ...} records; with options, the
    number of one (from 0), which becomes its letter and its text. Text is never interpreted: "['a', 'b']" is
    one answer.
    """
    if isinstance(choices, list) and isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(choices):
            raise RowError(f"the answer is option {value} of {len(choices)} (counted from 0)")
        text = choices[value]
        options = [choice for choice in choices if isinstance(choice, str)]
        letter = option_letter(value) if value < 26 else ""
        # Where a letter is also the text of another option ("C" of C, A, B), only the text is unmistakable.
        return [letter, text] if letter and named_option(letter, options) == value else [text]
    items = value if isinstance(value, list) else [value]
    return [_answer_text(item) for item in items]


def gather_rows(
    rows: Iterable[Mapping[str, Any]],
    rules: TableRules,
    pictures: TablePictures,
    gathering: Gathering,
    limits: Limits,
) -> None:
    """Put the samples of ``rows`` into ``gathering`` until the limit."""
    for index, row in enumerate(rows):
        if gathering.has_enough(limits):
            return
        gathering.take(
            f"{rules.dataset}:{index}",
            partial(_row_with_picture, row, index, rules, pictures),
            partial(row_mark, row, rules.columns),
        )


def _row_with_picture(
    row: Mapping[str, Any], index: int, rules: TableRules, pictures: TablePictures
) -> Sample:
    return row_sample(row, index, rules, pictures.store(row.get(rules.columns.image)))


def parquet_rows(files: Sequence[Path]) -> Any:
    """A streaming `datasets` table over parquet files, in the order given; BadDataError if one is none."""
    from datasets import load_dataset

    names = [glob.escape(str(file.absolute())) for file in files]  # `datasets` takes names for patterns
    try:
        return load_dataset("parquet", data_files=names, split="train", streaming=True)
    except Exception as error:
        raise BadDataError(f"{files[0]}: not readable as parquet ({error})") from error


def column_names(table: Any) -> list[str]:
    """The columns of a `datasets` table; BadDataError when it is too damaged to tell."""
    names = table.column_names
    if names is None:
        with _reading():
            names = list(next(iter(table), {}))
    return list(names)


def plain_rows(table: Any, *, remote: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a `datasets` table, with pictures as the bytes they are: images.py decodes, under limits.

    Raises:
        BadDataError: the table is damaged further down.
        ResourceError: the table is ``remote`` and the connection broke.
    """
    from datasets import Image

    for name, feature in (table.features or {}).items():
        if isinstance(feature, Image):
            table = table.cast_column(name, Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), Image):
            table = table.cast_column(name, type(feature)(Image(decode=False)))
    with _reading(remote):
        yield from table


@contextmanager
def _reading(remote: bool = False) -> Iterator[None]:
    """While rows are read, what goes wrong inside `datasets` or Arrow becomes an error of ours."""
    try:
        yield
    except ClaspError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if remote:
            text = f"reading from the hub broke off ({reason}); run the same command again"
            raise ResourceError(text) from error
        raise BadDataError(f"the table cannot be read further ({reason})") from error


def _answer_text(item: object) -> object:
    if isinstance(item, Mapping) and "answer" in item:
        item = item["answer"]
    if isinstance(item, bool):
        return "yes" if item else "no"
    return str(item) if isinstance(item, int | float) else item


def _options_text(choices: object) -> str:
    if not isinstance(choices, list):
        raise RowError(f"choices must be a list of texts, not {shorten(choices, 40)}")
    lines = [f"\n{option_letter(index)}. {choice}" for index, choice in enumerate(choices[:26])]
    return "".join(lines) + OPTIONS_SUFFIX


def _ocr_text(value: object) -> str:
    """What LLaVA's evaluation of TextVQA puts behind a question; the words stand there also without a token."""
    tokens = [token for token in value if isinstance(token, str)] if isinstance(value, list) else []
    return f"\nReference OCR token: {', '.join(tokens)}"[:_MAX_CONTEXT]


def _how_to_say(available: Sequence[str]) -> str:
    return (
        f"the columns are {', '.join(available) or 'none'}. Say which is which with "
        "--columns image=NAME,prompt=NAME,answers=NAME[,choices=NAME][,category=NAME][,question_id=NAME]"
    )


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
