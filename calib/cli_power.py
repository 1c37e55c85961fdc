"""``claspkit power``: how many samples per class a difference needs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import INTENT_IDS

from .config import RunConfig
from .evidence import ALPHA
from .finished import read_finished
from .power import Spread, samples_needed
from .power_run import observe, observed_rows, observed_spread
from .search import MIN_SAMPLES
from .table import clean, percent


def power(
    difference: Annotated[
        float, typer.Option(min=0.01, max=100, help="True difference to be found, in points (2 is 60 % to 62 %).")
    ],
    disagreement: Annotated[
        float | None, typer.Option(help="Share of samples that only one of the two configurations gets right.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Classes tested together; default: the run's, else nine.")
    ] = None,
    target: Annotated[float, typer.Option("--power", help="Probability of finding the difference.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Level over all classes together; a calibration has 0.05.")] = ALPHA,
    questions_per_picture: Annotated[
        float | None, typer.Option(min=1, help="Questions of a class about one picture; default: the run's, else 1.")
    ] = None,
    correlation: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of the differences of two such questions; default: the run's, else 0."),
    ] = None,
    holdout: Annotated[
        float | None, typer.Option(min=0.1, max=0.9, help="--holdout of the calibration; default: the run's, else 0.5.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Finished run whose holdout scores say what is not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Say how many samples per class a calibration needs to show a difference of so many points.

    A class leaves the default only if its best candidate wins a paired test
    on the holdout. Samples on which both configurations are right, or both
    wrong, say nothing there. What counts is on how many the two DISAGREE, and
    how much more often it is the candidate that is right: the DIFFERENCE.

    Several CLASSES are tested at once, so each has to pass at alpha / classes
    (Holm's first step). Questions of a class about ONE PICTURE tend to come
    out alike, so they count for less.

    The disagreement is rarely known beforehand: --run measures it on a
    calibration that is finished, also a small one. A small holdout knows it
    only roughly, and so is the answer.

    Examples:

      claspkit power --difference 2 --disagreement 0.08

      claspkit power --difference 3 --disagreement 0.1 --questions-per-picture 3 --correlation 0.2 --power 0.9

      claspkit power --difference 5 --run runs/mini
    """
    finished = None if run is None else read_finished(run)
    observed = observe(finished) if finished is not None else []
    seen = observed_spread(observed)
    if disagreement is None and seen.disagreement == 0:
        raise UsageError(_unknown(run))
    if classes is None:
        classes = len(INTENT_IDS) if finished is None else len(finished.classes)
    if holdout is None:
        holdout = RunConfig.holdout if finished is None else finished.config.holdout
    spread = Spread(
        seen.disagreement if disagreement is None else disagreement,
        seen.per_picture if questions_per_picture is None else questions_per_picture,
        seen.correlation if correlation is None else correlation,
    )
    _check(difference, spread, alpha, target)
    each = alpha / classes
    needed = max(samples_needed(difference / 100, spread, each, target), MIN_SAMPLES)
    facts = {
        "difference": difference / 100,
        "disagreement": spread.disagreement,
        "questions_per_picture": spread.per_picture,
        "correlation": spread.correlation,
        "design_effect": spread.design_effect,
        "power": target,
        "alpha": alpha,
        "classes": classes,
        "alpha_per_class": each,
        "holdout_share": holdout,
        "holdout_samples": needed,
        "per_class": math.ceil(needed / holdout),
        "observed": observed_rows(observed, difference / 100, each, target),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        _print(facts, Console())


def _unknown(run: Path | None) -> str:
    if run is None:
        return (
            "how often the two configurations disagree is not known: give --disagreement SHARE (for example 0.1), or "
            "--run RUN of a finished calibration, which has measured it"
        )
    return (
        f"on the holdout of {run} no tested configuration ever scored differently from the default, so there is no "
        "disagreement to measure; give --disagreement SHARE as well, for example 0.1"
    )


def _check(difference: float, spread: Spread, alpha: float, power: float) -> None:
    """Refuse what no number of samples answers."""
    disagreement = spread.disagreement
    if not math.isfinite(spread.design_effect):
        raise UsageError("--questions-per-picture and --correlation have to be numbers, such as 3 and 0.2")
    if not 0 < disagreement <= 1:
        raise UsageError(f"--disagreement {disagreement:g} is no share of samples; it lies above 0, at most at 1")
    if not 0 < difference <= 100 * disagreement:
        raise UsageError(
            f"--difference {difference:g}: it lies above 0 and, in points, at most at the disagreement, here "
            f"{100 * disagreement:g}. Where two configurations disagree on {percent(disagreement)} % of the samples, "
            "one cannot be better by more"
        )
    if not 0 < alpha < 0.5:
        raise UsageError(f"--alpha {alpha:g} is no level of a test; it lies between 0 and 0.5, as 0.05 does")
    if not 0.5 < power < 1:
        raise UsageError(f"--power {power:g}: it lies between 0.5 and 1, as 0.8 does")


def _print(facts: dict[str, Any], console: Console) -> None:
    def say(text: str, style: str | None = None) -> None:
        console.print(Text(text), style=style, highlight=False)

    say(
        f"{facts['holdout_samples']:,} holdout samples per class: --per-class {facts['per_class']} at --holdout "
        f"{facts['holdout_share']:g}",
        "bold",
    )
    say(
        f"to find a difference of {100 * facts['difference']:g} points with probability {facts['power']:g}, where the "
        f"configurations disagree on {percent(facts['disagreement'])} % of the samples."
    )
    say(
        f"One of {facts['classes']} classes tested together: each at level {facts['alpha_per_class']:.4g}, which is "
        f"{facts['alpha']:g} over all of them."
    )
    if facts["design_effect"] > 1:
        say(
            f"{facts['questions_per_picture']:.2f} questions on a picture, differences correlated by "
            f"{facts['correlation']:.2f}: {facts['design_effect']:.2f} samples do the work of one."
        )
    if facts["observed"]:
        console.print()
        console.print(_table(facts))
        console.print()
        say(
            "Needed: holdout samples by the class's own disagreement. Shows: the smallest difference that its present "
            f"holdout finds with probability {facts['power']:g}, points. '-': the candidates disagree too rarely."
        )


def _table(facts: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for place, name in enumerate(("class", "tested", "holdout", "disagree", "questions", "correl.", "needed", "shows")):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    for row in facts["observed"]:
        table.add_row(
            Text(clean(row["intent"])),
            Text(clean(row["candidate"])),
            f"{row['holdout_samples']:,}",
            percent(row["disagreement"]),
            f"{row['questions_per_picture']:.2f}",
            f"{row['correlation']:.2f}",
            "-" if row["needed"] is None else f"{row['needed']:,}",
            percent(row["detectable"]),
        )
    return table
