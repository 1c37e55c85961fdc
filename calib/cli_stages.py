"""``claspkit calibrate`` and the commands that stop at one of its stages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from claspkit.profiles.errors import UsageError

from .config import RunConfig
from .folder import RunFolder
from .labelling import Access
from .pipeline import STAGES, Pipeline
from .plan import DEFAULT_BUDGET
from .plan_cache import ALL, tidy_layers
from .progress import Reporter
from .schedule import join_budgets, parse_stages
from .sources import parse_columns
from .strategies import STRATEGIES
from .table import print_summary

Model = Annotated[str, typer.Option(help="Alias (mini, llava-1.5-7b, ...), hub id, or folder of the model.")]
PerClass = Annotated[int, typer.Option(min=1, help="Samples per intent class; half of them are kept for the decision.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Samples: FILE.jsonl, FILE.parquet or a hub data set id. Default: mini draws its own; "
        "other models take the documented mixture of public data sets."
    ),
]
ImageRoot = Annotated[str | None, typer.Option(help="Folder of the pictures; default: the data file's own folder.")]
Columns = Annotated[str | None, typer.Option(help="Column names of your data: image=img,prompt=question,...")]
MaxRows = Annotated[int | None, typer.Option(min=1, help="Read at most this many rows per data set.")]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="Nominal visual tokens (192) or share of them (1/3, 0.35, 35%); several times for a profile each. "
        f"Default: {DEFAULT_BUDGET}.",
    ),
]
AdaptiveBudget = Annotated[
    bool,
    typer.Option(
        "--adaptive-budget",
        help="Spend the first --budget's compute on classes with different ones, where the holdout shows a gain.",
    ),
]
Schedule = Annotated[
    str,
    typer.Option(help="Stage list of the budget: plain (interpolated where it has none), recycled, or interpolated."),
]
Stage = Annotated[
    list[str] | None,
    typer.Option(
        "--stage", help="AFTER_LAYER:KEEP, or before:KEEP before the decoder; several times, instead of a named budget."
    ),
]
Scorer = Annotated[str | None, typer.Option(help="Scorer of rows that name none, for example vqa_accuracy@1.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of sampling and resampling.")]
Router = Annotated[
    str,
    typer.Option(
        help="Who labels the prompts: rules or student (offline), transformers (Qwen3-8B), openai (a server) or replay."
    ),
]
RouterModel = Annotated[
    str | None,
    typer.Option(help="Hub id or folder of another labelling model, its name on the server, or a student's file."),
]
RouterMode = Annotated[str, typer.Option(help="How a teacher answers: logits (one letter, scored) or json (written).")]
RouterEndpoint = Annotated[
    str | None, typer.Option(help="OpenAI-compatible address, such as http://localhost:8000/v1, for --router openai.")
]
RouterKeyEnv = Annotated[
    str | None,
    typer.Option(help='Environment variable with the endpoint\'s key; default OPENAI_API_KEY, "" sends none.'),
]
RouterConcurrency = Annotated[int, typer.Option(min=1, max=256, help="Requests to the endpoint at a time.")]
RouterAnswers = Annotated[
    str | None, typer.Option(help="Recorded answers for --router replay: a run's labels.jsonl, or lines of answers.")
]
TaxonomyFile = Annotated[
    Path | None,
    typer.Option("--taxonomy", help="File of classes and intents of your own (TOML); default: the nine classes."),
]
PrototypesFile = Annotated[
    Path | None,
    typer.Option("--prototypes", help="File of layer prototypes of your own (TOML); default: the five built-in ones."),
]
LabelUntilFull = Annotated[
    bool, typer.Option("--label-until-full", help="Label only until every class has --per-class samples.")
]
ProfileRouter = Annotated[
    str,
    typer.Option(
        help="Router of the profile: auto (rules if they labelled, else whatever agrees best with the labels), rules, "
        "or student."
    ),
]
Rho = Annotated[
    list[float] | None,
    typer.Option("--rho", min=0.0, max=1.0, help="Split ratio to try, several times; default: the file's, or tenths."),
]
StrategyOption = Annotated[str, typer.Option("--strategy", help=f"Search strategy, one of: {', '.join(STRATEGIES)}.")]
Holdout = Annotated[float, typer.Option(min=0.1, max=0.9, help="Share of the pictures kept for the final decision.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, max=1024, help="Longest answer, in tokens.")]
Revision = Annotated[str | None, typer.Option(help="Hub revision of the model.")]
Device = Annotated[str, typer.Option(help="Torch device: cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, float16 or bfloat16; default: the checkpoint's, float32 on a CPU."),
]
BlockSize = Annotated[int, typer.Option(min=1, max=4096, help="Samples per batch.")]
CacheLayers = Annotated[
    str, typer.Option(help="Vision layers to cache: all, prototypes (what the search reads), or a list 3,12,23.")
]
CacheDtype = Annotated[str, typer.Option(help="Values of the feature cache: float16, bfloat16, float32 or int8.")]
CacheWorkers = Annotated[
    int,
    typer.Option(min=1, max=256, help="Processes that fill the feature cache, each with a model of its own."),
]
SearchWorkers = Annotated[
    int,
    typer.Option(min=1, max=256, help="Processes that search, a class at a time, each with a model of its own."),
]
Out = Annotated[Path | None, typer.Option(help="Run folder; default runs/MODEL.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete this run's results and start over.")]
ExportOptuna = Annotated[
    Path | None,
    typer.Option("--export-optuna", help="After the search, write its scores for optuna-dashboard: FILE.db, FILE.log."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout, nothing else.")]


def stage_command(until: str) -> Callable[..., None]:
    """Return a command that runs the pipeline up to ``until``; all of them take the same options."""

    def command(
        model: Model,
        per_class: PerClass,
        data: Data = None,
        image_root: ImageRoot = None,
        columns: Columns = None,
        max_rows: MaxRows = None,
        scorer: Scorer = None,
        budget: BudgetOption = None,
        adaptive_budget: AdaptiveBudget = False,
        schedule: Schedule = "plain",
        stage: Stage = None,
        seed: Seed = 0,
        router: Router = "rules",
        router_model: RouterModel = None,
        router_mode: RouterMode = "logits",
        router_endpoint: RouterEndpoint = None,
        router_key_env: RouterKeyEnv = None,
        router_concurrency: RouterConcurrency = Access.concurrency,
        router_answers: RouterAnswers = None,
        taxonomy: TaxonomyFile = None,
        label_until_full: LabelUntilFull = False,
        profile_router: ProfileRouter = "auto",
        rho: Rho = None,
        prototypes: PrototypesFile = None,
        strategy: StrategyOption = "race",
        holdout: Holdout = 0.5,
        max_new_tokens: MaxNewTokens = 16,
        revision: Revision = None,
        device: Device = "cpu",
        dtype: Dtype = None,
        block_size: BlockSize = 32,
        cache_layers: CacheLayers = ALL,
        cache_dtype: CacheDtype = "float16",
        cache_workers: CacheWorkers = 1,
        search_workers: SearchWorkers = 1,
        out: Out = None,
        fresh: Fresh = False,
        export_optuna: ExportOptuna = None,
        as_json: AsJson = False,
    ) -> None:
        if export_optuna is not None:
            _check_export(export_optuna, until)
        config = RunConfig(
            model=model,
            per_class=per_class,
            revision=revision,
            data=data,
            image_root=image_root,
            columns=tuple(sorted(parse_columns(columns).items())) if columns else (),
            max_rows=max_rows,
            scorer=scorer,
            seed=seed,
            budget=join_budgets(budget or [DEFAULT_BUDGET]),
            schedule=schedule,
            stages=parse_stages(stage or []),
            router=router,
            router_model=router_model,
            router_mode=router_mode,
            router_endpoint=router_endpoint,
            router_answers=router_answers,
            taxonomy=None if taxonomy is None else str(taxonomy),
            label_until_full=label_until_full,
            profile_router=profile_router,
            rhos=tuple(sorted(set(rho or []))),
            prototypes=None if prototypes is None else str(prototypes),
            strategy=strategy,
            holdout=holdout,
            max_new_tokens=max_new_tokens,
            device=device,
            dtype=dtype,
            block_size=block_size,
            cache_layers=tidy_layers(cache_layers),
            cache_dtype=cache_dtype,
            adaptive_budget=adaptive_budget,
        )
        folder = RunFolder(out or Path("runs") / re.sub(r"[^\w.-]+", "-", model.strip("/.")))
        reporter = Reporter(quiet=as_json)
        outcome = Pipeline(config, folder, reporter).run(
            until=until,
            fresh=fresh,
            cache_workers=cache_workers,
            search_workers=search_workers,
            access=Access(router_key_env, router_concurrency),
        )
        if export_optuna is not None:
            _export(folder, export_optuna, reporter)
        if outcome is None:
            reporter.say(f"done up to {until!r} in {folder.root}; `claspkit calibrate` with the same options goes on")
        elif as_json:
            typer.echo(json.dumps(outcome.summary))
        else:
            print_summary(outcome.summary, Console(), folder.profile, folder.report)

    command.__doc__ = _CALIBRATE_HELP if until == "profile" else None
    return command


def _check_export(to: Path, until: str) -> None:
    """Refuse what cannot be exported before anything is computed."""
    from .optuna_export import check_target  # optuna takes a while to load: only where it is asked for

    if STAGES.index(until) < STAGES.index("search"):
        raise UsageError(
            f"--export-optuna needs the scores of a search, and this command ends at {until!r}; "
            "take claspkit search or claspkit calibrate"
        )
    check_target(to)


def _export(folder: RunFolder, to: Path, reporter: Reporter) -> None:
    from .optuna_export import export_optuna

    found = export_optuna(folder.root, to)
    reporter.say(f"search written to {to}: {len(found)} studies, {sum(found.values())} trials")


_CALIBRATE_HELP = """Calibrate pruning for a model: samples, labels, features, search, profile.

Examples:

  clasp-calibrate --model mini --per-class 60

  clasp-calibrate --model llava-1.5-7b --per-class 2000 --budget 192 --device cuda

  clasp-calibrate --model ./my-llava --per-class 500 --data mine.jsonl --budget 1/9

  clasp-calibrate --model mini --per-class 300 --budget 2/9 --budget 1/3 --budget 1/9 --adaptive-budget

The same command again continues where the last one stopped. The result is RUN/profile/profile.json, with
RUN/report.html to look at; that of a second budget is RUN/profile-NOMINAL/profile.json. A class keeps the default
configuration unless the holdout shows a gain.
"""

calibrate = stage_command("profile")
