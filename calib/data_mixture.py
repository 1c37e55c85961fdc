"""The public data sets the toolkit knows, and the default mixture drawn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from claspkit.profiles.errors import ResourceError, UsageError

from .data_benchmarks import BENCHMARKS
from .data_hub import HubDataset, HubSource, ImageTable, Located, Missing, locate, missing_text
from .data_table import SHORT_ANSWER, Columns
from .samples import Sample
from .sources import (
    ALLOWED,
    HUB_ID,
    DataSource,
    Limits,
    LoadResult,
    Mark,
    Progress,
    Quarantined,
    SourceOptions,
)

# Only splits that are no benchmark: calibrating on test rows would flatter every number reported on them
# later.
MIXTURE: tuple[HubDataset, ...] = (
    HubDataset(
        id="lmms-lab/VQAv2",
        split="validation",
        files="data/validation-*",
        columns=Columns("image", "question", "answers"),
        scorer="vqa_accuracy@2",
        suffix=SHORT_ANSWER,
        intents=("object", "attribute", "counting", "action", "default"),
    ),
    HubDataset(
        id="lmms-lab/GQA",
        config="val_balanced_instructions",
        split="val",
        files="val_balanced_instructions/*.parquet",
        columns=Columns("image", "question", "answer"),
        scorer="gqa@1",
        suffix=SHORT_ANSWER,
        intents=("object", "attribute", "scene", "spatial"),
        images=ImageTable("val_balanced_images", "val_balanced_images/*.parquet", "imageId", "id", "image"),
    ),
    HubDataset(
        id="lmms-lab/textvqa",
        split="train",
        files="data/train-*",
        columns=Columns("image", "question", "answers"),
        scorer="vqa_accuracy@2",
        suffix=SHORT_ANSWER,
        intents=("text",),
    ),
    HubDataset(
        id="HuggingFaceM4/A-OKVQA",
        split="train",
        files="data/train-*",
        columns=Columns("image", "question", "correct_choice_idx", "choices"),
        scorer="multiple_choice@1",
        intents=("action", "intention", "scene"),
    ),
    HubDataset(
        id="lmms-lab/OK-VQA",
        split="val2014",
        files="data/val2014-*",
        columns=Columns("image", "question", "answers"),
        scorer="vqa_accuracy@2",
        suffix=SHORT_ANSWER,
        intents=("object", "intention"),
    ),
    HubDataset(
        id="lmms-lab/VizWiz-VQA",
        split="val",
        files="data/val-*",
        columns=Columns("image", "question", "answers"),
        scorer="vqa_accuracy@2",
        suffix=SHORT_ANSWER,
        intents=("object", "text", "default"),
    ),
    HubDataset(
        id="lmms-lab/ScienceQA",
        config="ScienceQA-IMG",
        split="validation",
        files="ScienceQA-IMG/validation-*",
        columns=Columns("image", "question", "answer", "choices", "hint"),
        scorer="multiple_choice@1",
        intents=("text", "default"),
    ),
)

# Known by name for `--data`, left out of the mixture: benchmarks with a test split only, or documents.
OTHERS: tuple[HubDataset, ...] = (
    HubDataset(
        id="lmms-lab/POPE",
        split="test",
        files="data/test-*",
        columns=Columns("image", "question", "answer", category="category"),
        scorer="pope@1",
        suffix=SHORT_ANSWER,
        intents=("object",),
    ),
    HubDataset(
        id="lmms-lab/MME",
        split="test",
        files="data/test-*",
        columns=Columns("image", "question", "answer", category="category", question_id="question_id"),
        scorer="mme@1",  # its questions end in "Please answer yes or no."
        intents=("object", "attribute", "text", "scene", "spatial", "counting", "default"),
    ),
    HubDataset(
        id="lmms-lab/ChartQA",
        split="test",
        files="data/test-*",
        columns=Columns("image", "question", "answer"),
        scorer="relaxed_accuracy@1",
        suffix=SHORT_ANSWER,
        intents=("text", "counting"),
    ),
    HubDataset(
        id="lmms-lab/DocVQA",
        config="DocVQA",
        split="validation",
        files="DocVQA/validation-*",
        columns=Columns("image", "question", "answers"),
        scorer="anls@1",
        suffix=SHORT_ANSWER,
        intents=("text",),
    ),
)


class MixtureSource(DataSource):
    """All of MIXTURE, one after the other; none is left out in silence."""

    name: ClassVar[str] = "mixture"

    def __init__(self, options: SourceOptions) -> None:
        self._options = options

    def load(self, limits: Limits | None = None, progress: Progress | None = None) -> LoadResult:
        """Find all, then read all; see :meth:`DataSource.load`. The ResourceError lists every one missing."""
        samples: list[Sample] = []
        quarantine: list[Quarantined] = []
        records: list[dict[str, Any]] = []
        marks: dict[str, Mark] = {}
        for dataset, found in find_all(MIXTURE).items():
            part = HubSource(dataset, self._options).read(found, limits, progress)
            samples += part.samples
            quarantine += part.quarantine
            records += part.datasets
            marks |= part.marks
        return LoadResult(samples, quarantine, records, marks)


def find_all(datasets: Sequence[HubDataset]) -> dict[HubDataset, Located]:
    """Where each data set is; ResourceError listing all that are nowhere."""
    located: dict[HubDataset, Located] = {}
    missing: list[Missing] = []
    offline: str | None = None
    for dataset in datasets:
        found = locate(dataset, offline)
        if isinstance(found, Missing):
            missing.append(found)
        else:
            located[dataset] = found
        offline = found.offline  # unreachable once is enough: no waiting for a timeout per data set
    if missing:
        raise ResourceError(missing_text(missing))
    return located


def known_dataset(options: SourceOptions) -> DataSource:
    """The source for a data set id: as the tables above know it, changed where the user says otherwise."""
    parsed = HUB_ID.fullmatch(options.data or "")
    if parsed is None:
        raise UsageError(f"--data {options.data} is no data set id\n{ALLOWED}")
    asked = parsed.groupdict()
    known = [dataset for dataset in (*MIXTURE, *OTHERS, *BENCHMARKS) if dataset.id == asked["id"]]
    meant = [dataset for dataset in known if _is_asked(dataset, asked)]
    dataset = next(iter(meant or known), HubDataset(asked["id"]))
    dataset = replace(dataset, revision=asked["revision"], scorer=options.scorer or dataset.scorer)
    if asked["config"] and asked["config"] != dataset.config:
        # Another config may be anything: nothing that the table says about this one can be relied on.
        dataset = HubDataset(dataset.id, asked["config"], revision=dataset.revision, scorer=options.scorer)
    if asked["split"] and asked["split"] != dataset.split:
        dataset = replace(dataset, split=asked["split"], files=None, images=None)
    if options.columns:
        dataset = replace(dataset, columns=None, images=None)
    return HubSource(dataset, options)


def _is_asked(dataset: HubDataset, asked: Mapping[str, str | None]) -> bool:
    """Whether a row of the tables is of the config and the split that were named."""
    return all(asked[name] in (None, getattr(dataset, name)) for name in ("config", "split"))
