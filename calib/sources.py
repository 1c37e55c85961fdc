"""Where samples come from: one class per kind of source, and the choice between them by `--data`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from claspkit.profiles.errors import BadDataError, UsageError

from .samples import RowError, Sample

# (data set, rows read so far); called every PROGRESS_ROWS rows and at the end of a data set
Progress = Callable[[str, int], None]
PROGRESS_ROWS = 100
HOPELESS_ROWS = 1000  # with a limit on good rows, bad ones beyond it after which a data set is given up

COLUMN_ROLES = ("image", "prompt", "answers", "choices", "category", "question_id")
# owner/name[:config][@split][#revision]
HUB_ID = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.-]+))?(?:#(?P<revision>[\w./-]+))?"
)
_REASONS_SHOWN = 5
_MAX_LABEL = 200  # characters of a category or a question's name


@dataclass(frozen=True)
class Limits:
    """How much to read: the first ``max_rows`` usable rows of each data set (None: the source decides)."""

    max_rows: int | None = None

    def __post_init__(self) -> None:
        if self.max_rows is not None and self.max_rows < 1:
            raise UsageError(f"at least 1 row must be read, not {self.max_rows}")


@dataclass(frozen=True)
class SourceOptions:
    """What the user asked for.

    Attributes:
        data: `--data`: a .jsonl or .parquet file, a folder of .parquet files, a data set id, "mini", "mixture", or
            None for the model's default.
        model_name: `--model`; decides what None means.
        materialise: folder that pictures without a file of their own are written into.
        image_root: folder that picture paths are relative to and may not leave; None for the data file's folder.
        per_class: samples wanted per intent.
        seed: of the generator.
        max_rows: usable rows to read per data set, at most; None for all of a file, a multiple of ``per_class``
            of a data set on the hub.
        columns: column names by role (COLUMN_ROLES) where they are not found by themselves.
        scorer: name@version for rows that name none; None for the default of the data set.
    """

    data: str | None
    model_name: str
    materialise: Path
    image_root: Path | None = None
    per_class: int = 100
    seed: int = 0
    max_rows: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scorer: str | None = None

    @property
    def limits(self) -> Limits:
        """The part of the options that is about how much to read."""
        return Limits(self.max_rows)

    @property
    def sample_root(self) -> Path:
        """The folder that ``Sample.image`` is relative to, whichever source the options mean."""
        if source_name(self) == "jsonl":
            return self.image_root or Path(self.data or "").parent
        return self.materialise


@dataclass(frozen=True)
class Quarantined:
    """One row left out: where it stands, like "data.jsonl:17", and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Mark:
    """What a benchmark's measure asks of a row beside its answer; a calibration has no use for it.

    Attributes:
        category: the part of the benchmark that the row belongs to; None where the data names none.
        question: what rows that belong together share: MME's two questions about a picture, MMBench's copies of one
            question; None where the data does not say.
    """

    category: str | None = None
    question: str | None = None


@dataclass(frozen=True)
class LoadResult:
    """Samples in the order of the source, the rows left out, and what to record about the data sets.

    Every sample's picture is a file below ``SourceOptions.sample_root``. ``datasets`` holds one {name,
    revision, split, samples} per data set, as a profile records it. ``marks`` has those of the samples, by uid, that
    the data says something about.
    """

    samples: list[Sample]
    quarantine: list[Quarantined]
    datasets: list[dict[str, Any]]
    marks: Mapping[str, Mark] = field(default_factory=dict)


class DataSource(ABC):
    """Something that yields samples, the same ones in the same order however often it is loaded."""

    name: ClassVar[str]

    @abstractmethod
    def load(self, limits: Limits | None = None, progress: Progress | None = None) -> LoadResult:
        """Read the samples, as many as ``limits`` (None: the options) say.

        A bad row is quarantined and the load goes on.

        Raises:
            BadDataError: nothing is there, or no row can be used.
            ResourceError: a data set is out of reach, or the disk is full.
            UsageError: the data cannot be read as asked; the text says what to give.
        """


class Gathering:
    """The samples and quarantined rows of one data set while it is read."""

    def __init__(self, dataset: str, progress: Progress | None = None) -> None:
        self.dataset = dataset
        self.samples: list[Sample] = []
        self.quarantine: list[Quarantined] = []
        self.marks: dict[str, Mark] = {}
        self._progress = progress
        self._rows = 0

    def take(self, where: str, build: Callable[[], Sample], mark: Callable[[], Mark] | None = None) -> None:
        """Add the sample that ``build`` makes, with what ``mark`` says of it, or the reason why it cannot."""
        try:
            sample = build()
            found = mark() if mark is not None else Mark()
            self.samples.append(sample)
            if found != Mark():
                self.marks[sample.uid] = found
        except (RowError, BadDataError) as error:
            self.quarantine.append(Quarantined(where, str(error)))
        self._rows += 1
        if self._progress and self._rows % PROGRESS_ROWS == 0:
            self._progress(self.dataset, self._rows)

    def has_enough(self, limits: Limits) -> bool:
        """Whether to stop: the limit is reached, or so many rows were bad that more would not help."""
        wanted = limits.max_rows
        return wanted is not None and (
            len(self.samples) >= wanted or len(self.quarantine) > wanted + HOPELESS_ROWS
        )

    def result(self, revision: str | None, split: str | None) -> LoadResult:
        """What was gathered; BadDataError with the first reasons when that is nothing."""
        if self._progress:
            self._progress(self.dataset, self._rows)
        if not self.samples:
            raise BadDataError(_nothing_usable(self.dataset, self.quarantine))
        record = {
            "name": self.dataset,
            "revision": revision,
            "split": split,
            "samples": len(self.samples),
        }
        return LoadResult(self.samples, self.quarantine, [record], self.marks)


def _jsonl(options: SourceOptions) -> DataSource:
    from .data_jsonl import JsonlSource

    return JsonlSource(options)


def _parquet(options: SourceOptions) -> DataSource:
    from .data_table import ParquetSource

    return ParquetSource(options)


def _hub(options: SourceOptions) -> DataSource:
    from .data_mixture import known_dataset

    return known_dataset(options)


def _mini(options: SourceOptions) -> DataSource:
    from .data_mini import MiniSource

    return MiniSource(options)


def _mixture(options: SourceOptions) -> DataSource:
    from .data_mixture import MixtureSource

    return MixtureSource(options)


# Imports inside the loaders: `datasets` takes seconds to import and half of the sources do without.
SOURCES: dict[str, Callable[[SourceOptions], DataSource]] = {
    "jsonl": _jsonl,
    "parquet": _parquet,
    "hub": _hub,
    "mini": _mini,
    "mixture": _mixture,
}


def open_source(options: SourceOptions) -> DataSource:
    """The source that ``options.data`` means for ``options.model_name``; nothing is read yet.

    Raises:
        UsageError: it means nothing; the text lists what is allowed.
        BadDataError: it names a file or folder that is not there.
    """
    return SOURCES[source_name(options)](options)


def source_name(options: SourceOptions) -> str:
    """The key of SOURCES that :func:`open_source` takes; errors likewise."""
    data = options.data
    if data is None:
        return "mini" if is_mini(options.model_name) else "mixture"
    if data in ("mini", "mixture"):
        return data
    path = Path(data)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return "jsonl"
    if path.suffix.lower() == ".parquet" or path.is_dir():
        return "parquet"
    if path.suffix.lower() == ".json":
        raise UsageError(
            f"--data {data}: one JSON object a line is needed. Make such a file with\n"
            f"  jq -c '.[]' {data} > {path.stem}.jsonl"
        )
    if path.exists():
        raise UsageError(f"--data {data}: the ending must be .jsonl or .parquet\n{ALLOWED}")
    if HUB_ID.fullmatch(data):
        return "hub"
    if "/" in data or data.startswith("."):
        raise BadDataError(f"--data {data}: nothing is there\n{ALLOWED}")
    raise UsageError(f"--data {data} is neither a file, nor a folder, nor a data set id\n{ALLOWED}")


ALLOWED = """\
--data may be: FILE.jsonl, FILE.parquet, a folder of .parquet files, a data set id, mini, or mixture.
A data set id is owner/name[:config][@split][#revision], for example lmms-lab/DocVQA:DocVQA@validation.
Without --data the model mini is asked about pictures it draws, any other model about the public mixture."""


def is_mini(model_name: str) -> bool:
    """Whether a model name means the embedded model: the alias `mini`, or its folder."""
    import claspkit.mini as mini

    folder = getattr(mini, "MODEL_DIR", None)
    if model_name == "mini" or folder is None:
        return model_name == "mini"
    return Path(model_name).resolve() == Path(folder).resolve()


def parse_columns(text: str) -> dict[str, str]:
    """Read `--columns image=..,prompt=..` into names by role; UsageError for an unknown or repeated role."""
    columns: dict[str, str] = {}
    for part in text.split(","):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if role not in COLUMN_ROLES or not equals or not name or role in columns:
            raise UsageError(
                f"--columns {text}: {part.strip()!r} is not ROLE=COLUMN; "
                f"the roles are {', '.join(COLUMN_ROLES)}, each at most once"
            )
        columns[role] = name
    return columns


def label_of(value: object) -> str | None:
    """A category or a question's number as text; None for anything else, and for text beyond 200 characters."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if 0 < len(text) <= _MAX_LABEL else None


def _nothing_usable(dataset: str, quarantine: list[Quarantined]) -> str:
    if not quarantine:
        return f"{dataset} holds no rows"
    lines = [f"  {row.where}: {row.reason}" for row in quarantine[:_REASONS_SHOWN]]
    more = len(quarantine) - len(lines)
    lines += [f"  and {more} more"] if more > 0 else []
    return "\n".join([f"{dataset}: none of its {len(quarantine)} rows can be used", *lines])
