"""Public benchmarks for `claspkit evaluate` alone: what papers report on, so no calibration draws from them."""

from __future__ import annotations

from .data_hub import HubDataset, ImageTable
from .data_table import SHORT_ANSWER, Columns

_MMBENCH = Columns(
    "image",
    "question",
    "answer",
    context="hint",
    options=("A", "B", "C", "D"),
    category="category",
    question_id="index",
    turned=True,
)

# Another split or config of a data set that the mixture draws from is a row of its own.
BENCHMARKS: tuple[HubDataset, ...] = (
    HubDataset(
        id="lmms-lab/MMBench",
        config="en",
        split="dev",
        files="en/dev-*",
        columns=_MMBENCH,
        scorer="multiple_choice@1",
    ),
    HubDataset(
        id="lmms-lab/MMBench",
        config="cn",
        split="dev",
        files="cn/dev-*",
        columns=_MMBENCH,
        scorer="multiple_choice@1",
    ),
    HubDataset(
        id="lmms-lab/ScienceQA",
        config="ScienceQA-IMG",
        split="test",
        files="ScienceQA-IMG/test-*",
        columns=Columns("image", "question", "answer", "choices", "hint"),
        scorer="multiple_choice@1",
    ),
    HubDataset(
        id="lmms-lab/textvqa",
        split="validation",
        files="data/validation-*",
        columns=Columns("image", "question", "answers", ocr="ocr_tokens"),  # as LLaVA is evaluated on it
        scorer="vqa_accuracy@2",
        suffix=SHORT_ANSWER,
    ),
    HubDataset(
        id="lmms-lab/GQA",
        config="testdev_balanced_instructions",
        split="testdev",
        files="testdev_balanced_instructions/*.parquet",
        columns=Columns("image", "question", "answer"),
        scorer="gqa@1",
        suffix=SHORT_ANSWER,
        images=ImageTable("testdev_balanced_images", "testdev_balanced_images/*.parquet", "imageId", "id", "image"),
    ),
    HubDataset(
        id="lmms-lab/SEED-Bench",
        split="test",
        files="data/test-*",
        columns=Columns(
            "image",
            "question",
            "answer",
            options=("choice_a", "choice_b", "choice_c", "choice_d"),
            category="data_type",
        ),
        scorer="multiple_choice@1",
    ),
)
