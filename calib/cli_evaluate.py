"""``claspkit evaluate``: what pruning by a profile costs on a benchmark."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from claspkit.profiles.errors import CorruptError, UsageError
from claspkit.runtime.models import load_model

from .config import RunConfig
from .evaluate import RESULTS, Setting, check_finite, evaluate, make_folder
from .evaluate_data import MINI_ROWS, MINI_SEED, read_rows
from .evaluate_table import print_evaluation
from .evaluate_ways import WAYS, Way, read_ways
from .progress import Reporter
from .run_model import DTYPES

Profiles = Annotated[
    list[Path], typer.Option("--profile", help="profile.json, or the folder that holds it; several times.")
]
Model = Annotated[str, typer.Option(help="Alias, hub id or folder of the model that the profiles were made for.")]
MaxRows = Annotated[
    int | None,
    typer.Option(min=1, help=f"Usable rows per data set, the first ones; default: all, of mini {MINI_ROWS}."),
]
ImageRoot = Annotated[
    Path | None, typer.Option(help="Folder of the pictures that files name; default: the file's own.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the pictures that --data mini draws.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the answers and results; default runs/evaluate-MODEL.")
]
MaxNewTokens = Annotated[int, typer.Option(min=1, max=4096, help="Longest answer, in tokens.")]
BATCH_SIZE = 8
BatchSize = Annotated[int, typer.Option(min=1, max=4096, help="Rows asked at a time.")]
Device = Annotated[str, typer.Option(help="Torch device.")]
Dtype = Annotated[
    str | None, typer.Option(help=f"Weights as: {', '.join(DTYPES)}; default: the checkpoint's, float32 on a CPU.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def evaluate_command(
    profile: Profiles,
    model: Model,
    data: Annotated[
        list[str], typer.Option(help="Rows to answer: a file, a data set id, or mini, as of calibrate; several times.")
    ],
    way: Annotated[
        list[str] | None,
        typer.Option(help=f"Also every profile with one part replaced, several times: {', '.join(WAYS)}."),
    ] = None,
    max_rows: MaxRows = None,
    image_root: ImageRoot = None,
    seed: Seed = MINI_SEED,
    out: Out = None,
    max_new_tokens: MaxNewTokens = RunConfig.max_new_tokens,
    batch_size: BatchSize = BATCH_SIZE,
    device: Device = "cpu",
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Answer every row of a data set with the unpruned model and under each profile, and say what pruning costs.

    Each data set is scored with its own scorer and the measure that is reported
    of it: MME's total, POPE's F1, MMBench's circular accuracy, else the mean
    score. The last table has the share of the unpruned score that is left, and
    its mean over the data sets, the "average" of papers on pruning.

    The same command goes on where it stopped; answers lie in OUT/answers.jsonl
    and are asked for once, also if profiles or data sets are added later.

    Examples:

      claspkit evaluate --profile runs/mini/profile --model mini --data mini --way default

      claspkit evaluate --profile runs/llava/profile --profile runs/llava/profile-64 --model llava-1.5-7b \\
        --data lmms-lab/POPE --data lmms-lab/MME --data lmms-lab/ScienceQA@test --device cuda

      claspkit evaluate --profile runs/mini/profile --model mini --data rows.jsonl --way rho=0.3 --json > found.json
    """
    check_dtype(dtype)
    ways = read_ways(profile, way or [])
    report = Reporter(quiet=as_json)
    folder = out_folder(out, model)
    rows = read_rows(data, model, folder, image_root=image_root, max_rows=max_rows, seed=seed, report=report)
    loaded = load_model(model, device=device, dtype=DTYPES[dtype] if dtype else None, revision=revision_of(ways))
    found = evaluate(Setting(loaded, max_new_tokens, batch_size), ways, rows, folder, report)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        print_evaluation(found, Console())
        typer.echo(f"results  {folder / 'results.json'}", err=True)
    check_finite(found)


def out_folder(out: Path | None, model: str) -> Path:
    """The folder of an evaluation, made if need be; CorruptError where its results cannot replace what is there."""
    name = re.sub(r"[^\w.-]+", "-", model.strip("/."))
    folder = out or Path("runs") / f"evaluate-{name}"
    make_folder(folder)
    results = folder / RESULTS
    if results.exists() and not results.is_file():
        raise CorruptError(f"{results} is no plain file; move it away, or give another --out")
    return folder


def check_dtype(dtype: str | None) -> None:
    """Refuse an unknown ``--dtype`` before anything is read; UsageError."""
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype} does not exist; there are: {', '.join(DTYPES)}")


def revision_of(ways: Sequence[Way]) -> str | None:
    """The revision of the model that the first profile was made for."""
    return next((way.profile.model.revision for way in ways if way.profile is not None), None)
