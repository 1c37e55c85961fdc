"""Samples from a data set on the Hugging Face hub, or from the copy of it in the local hub cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from claspkit.profiles.errors import BadDataError, ResourceError, UsageError

from .data_table import (
    Columns,
    TablePictures,
    TableRules,
    column_names,
    find_columns,
    gather_rows,
    parquet_rows,
    plain_rows,
)
from .images import StoredPicture
from .samples import RowError
from .sources import DataSource, Gathering, Limits, LoadResult, Progress, SourceOptions

ROWS_PER_CLASS = 4  # rows read per data set for each sample wanted per class, when no limit is given
HUB_TIMEOUT = 10.0  # seconds to wait for the hub's word on one data set
# Validation before training rows (models were trained on those), and the test split, a benchmark, last.
SPLIT_ORDER = ("validation", "val", "dev", "train", "test")


@dataclass(frozen=True)
class ImageTable:
    """Pictures in a table of their own: ``row_key`` of a question is ``key`` of a picture."""

    config: str
    files: str
    row_key: str
    key: str
    image: str


@dataclass(frozen=True)
class HubDataset:
    """One data set and how to read it.

    Attributes:
        id: owner/name.
        config: None for its only one.
        split: None to choose by SPLIT_ORDER.
        files: pattern of the split's parquet files in the repository; None to let `datasets` find them.
        columns: None to go by their common names.
        scorer: name@version; None for the default.
        suffix: put behind every question without options.
        intents: what the data set is there for.
        images: the table of pictures, where they are apart from the questions.
        revision: commit, tag or branch; None for the newest.
    """

    id: str
    config: str | None = None
    split: str | None = None
    files: str | None = None
    columns: Columns | None = None
    scorer: str | None = None
    suffix: str = ""
    intents: tuple[str, ...] = ()
    images: ImageTable | None = None
    revision: str | None = None

    @property
    def patterns(self) -> list[str]:
        """The patterns of all files needed from the repository; empty when they are not known."""
        return [pattern for pattern in (self.files, self.images and self.images.files) if pattern]


@dataclass(frozen=True)
class Located:
    """Where a data set was found: its commit, and its folder in the hub cache (None: on the hub itself).

    ``offline``: why the hub could not be asked, None when it answered.
    """

    revision: str
    folder: Path | None
    offline: str | None = None


@dataclass(frozen=True)
class Missing:
    """A data set that is not ``here``, for a reason, nor to be had; ``offline`` as in :class:`Located`."""

    dataset: HubDataset
    here: str
    offline: str | None


class HubSource(DataSource):
    """One data set by its id; rows are streamed, so only as much is fetched as is read."""

    name: ClassVar[str] = "hub"

    def __init__(self, dataset: HubDataset, options: SourceOptions) -> None:
        self._dataset = dataset
        self._options = options

    @property
    def dataset(self) -> HubDataset:
        """What is read."""
        return self._dataset

    def load(self, limits: Limits | None = None, progress: Progress | None = None) -> LoadResult:
        """Find and read the data set; see :meth:`DataSource.load`."""
        found = locate(self._dataset)
        if isinstance(found, Missing):
            raise ResourceError(missing_text([found]))
        return self.read(found, limits, progress)

    def read(
        self, found: Located, limits: Limits | None = None, progress: Progress | None = None
    ) -> LoadResult:
        """Read the data set where :func:`locate` found it; otherwise as :meth:`load`."""
        dataset, options = self._dataset, self._options
        limits = limits or options.limits
        if limits.max_rows is None:
            limits = Limits(ROWS_PER_CLASS * options.per_class)
        split = dataset.split or choose_split(dataset, found)
        table = open_table(dataset, dataset.config, split, dataset.files, found)
        name = f"{dataset.id}:{dataset.config}" if dataset.config else dataset.id
        columns = dataset.columns or find_columns(column_names(table), options.columns)
        rules = TableRules(name, found.revision, split, columns, dataset.scorer, dataset.suffix)
        pictures = TablePictures(options.materialise, options.image_root)
        gathering = Gathering(name, progress)
        rows = plain_rows(table, remote=found.folder is None)
        if dataset.images is None:
            gather_rows(rows, rules, pictures, gathering, limits)
        else:
            joined = _with_pictures(rows, dataset, split, found, limits, pictures)
            gather_rows(joined, rules, _Joined(options.materialise, None), gathering, limits)
        return gathering.result(found.revision, split)


def locate(dataset: HubDataset, offline: str | None = None) -> Located | Missing:
    """Resolve a data set to a commit: the hub's word if it can be had, else the copy in the hub cache.

    The hub is not asked when ``offline`` already says why it cannot be.

    Raises:
        UsageError: the hub answers that there is no such data set or revision, and no copy is here.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    unknown: str | None = None
    if offline is None:
        try:
            info = HfApi().dataset_info(dataset.id, revision=dataset.revision, timeout=HUB_TIMEOUT)
            if info.sha:
                return Located(info.sha, None)
            unknown = "it named no commit"
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            unknown = str(error)
        except Exception as error:  # whatever the HTTP library of the day raises
            offline = f"{type(error).__name__}: {error}"
    found = cached(dataset)
    if isinstance(found, Located):
        return replace(found, offline=offline)
    if unknown is not None:
        revision = dataset.revision or "main"
        raise UsageError(f"the hub knows no data set {dataset.id} (revision {revision}): {unknown}")
    return Missing(dataset, found, offline)


def cached(dataset: HubDataset) -> Located | str:
    """The copy of a data set in the local hub cache, or why there is none that will do."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            dataset.id,
            repo_type="dataset",
            revision=dataset.revision,
            allow_patterns=dataset.patterns or None,
            local_files_only=True,
        )
    except Exception as error:  # not there, not complete, not readable: either way it will not do
        # By name: only later versions of the library tell the two apart.
        if type(error).__name__ == "IncompleteSnapshotError":
            return "the copy in the cache is not complete"
        return f"no copy of revision {dataset.revision or 'main'} in the cache"
    folder = Path(found)
    lacking = [pattern for pattern in dataset.patterns if not any(folder.glob(pattern))]
    if lacking:
        return f"the copy in the cache lacks {', '.join(lacking)}"
    return Located(folder.name, folder)


def missing_text(missing: Iterable[Missing]) -> str:
    """What to tell someone whose data sets are out of reach: which, where they were sought, what to do."""
    from huggingface_hub.constants import HF_HUB_CACHE

    missing = list(missing)
    reasons = dict.fromkeys(item.offline for item in missing if item.offline)
    lines = [
        f"{len(missing)} data set(s) cannot be read:",
        *(f"  {_describe(item.dataset)}: {item.here}" for item in missing),
        *(f"the hub cannot be asked: {reason}" for reason in reasons),
        f"local copies were looked for in {HF_HUB_CACHE}",
        "what to do, one of:",
        "  - connect this machine to the hub and run the same command again",
        "  - where there is a connection, run these lines, and bring that folder here:",
        *(f"      {download_command(item.dataset)}" for item in missing),
        "  - use data of your own: --data FILE.jsonl (docs/data.md has the format)",
        "  - see the toolkit work on the embedded model, which needs no data: --model mini",
    ]
    return "\n".join(lines)


def download_command(dataset: HubDataset) -> str:
    """The shell command that puts all that is needed of a data set into the hub cache."""
    wanted = [f" --include '{pattern}'" for pattern in dataset.patterns]
    include = "".join([*wanted, " --include README.md"] if wanted else [])
    revision = f" --revision {dataset.revision}" if dataset.revision else ""
    return f"hf download {dataset.id} --repo-type dataset{revision}{include}"


def open_table(dataset: HubDataset, config: str | None, split: str, files: str | None, found: Located) -> Any:
    """A streaming `datasets` table of one split; UsageError when there is no such config or split."""
    if found.folder is not None and files is not None:
        # Not by the repository's own description: it lists files of other splits, which need not be here.
        return parquet_rows(sorted(found.folder.glob(files)))
    from datasets import load_dataset

    where, revision = (dataset.id, found.revision) if found.folder is None else (str(found.folder), None)
    return _or_usage(
        dataset,
        lambda: load_dataset(where, config, split=split, revision=revision, streaming=True),
    )


def choose_split(dataset: HubDataset, found: Located) -> str:
    """The split to take when none is named, by SPLIT_ORDER; UsageError listing them when none is in it."""
    from datasets import get_dataset_split_names

    where, revision = (dataset.id, found.revision) if found.folder is None else (str(found.folder), None)
    splits = _or_usage(
        dataset, lambda: get_dataset_split_names(where, config_name=dataset.config, revision=revision)
    )
    best = next((split for split in SPLIT_ORDER if split in splits), None)
    if best is None and len(splits) != 1:
        raise UsageError(
            f"--data {dataset.id}: say which split with {dataset.id}@SPLIT; it has {', '.join(splits)}"
        )
    return best or str(splits[0])


def _or_usage(dataset: HubDataset, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ValueError as error:  # `datasets` names the configs or splits there are
        raise UsageError(f"--data {dataset.id}: {error}; choose with {dataset.id}:CONFIG@SPLIT") from error
    except Exception as error:
        raise BadDataError(f"--data {dataset.id}: {type(error).__name__}: {error}") from error


def _describe(dataset: HubDataset) -> str:
    configs = [config for config in (dataset.config, dataset.images and dataset.images.config) if config]
    return f"{dataset.id} (config {' and '.join(configs) or 'default'}, split {dataset.split or 'any'})"


class _Joined(TablePictures):
    """Pictures that the join has stored already; a refusal that it met is met again by every row about it."""

    def store(self, value: object) -> StoredPicture:
        """The stored picture itself, or the reason why there is none."""
        if isinstance(value, StoredPicture):
            return value
        raise RowError(str(value))


def _with_pictures(
    rows: Iterable[dict[str, Any]],
    dataset: HubDataset,
    split: str,
    found: Located,
    limits: Limits,
    pictures: TablePictures,
) -> Iterator[dict[str, Any]]:
    """The rows with their picture from the picture table, or a reason, under the image column's name.

    The questions are read first: then the picture table, large and in no useful order, is read once, and only
    what is asked about is written.
    """
    table, columns = dataset.images, dataset.columns
    if table is None or columns is None:
        raise UsageError(f"{dataset.id} has no picture table to join")
    head = list(islice(rows, limits.max_rows))
    needed = {str(row.get(table.row_key)) for row in head}
    stored: dict[str, StoredPicture | str] = {}
    entries = plain_rows(
        open_table(dataset, table.config, split, table.files, found), remote=found.folder is None
    )
    for row in entries:
        key = str(row.get(table.key))
        if key in needed and key not in stored:
            try:
                stored[key] = pictures.store(row.get(table.image))
            except (RowError, BadDataError) as error:
                stored[key] = str(error)
            if len(stored) == len(needed):
                break
    for row in head:
        key = str(row.get(table.row_key))
        yield {**row, columns.image: stored.get(key, f"the picture table has no picture {key!r}")}
