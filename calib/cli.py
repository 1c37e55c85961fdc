"""The command line: ``claspkit`` and its shortcut ``clasp-calibrate``. Parsing here, work elsewhere."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import typer
from rich.console import Console
from transformers.utils import logging
from typer.exceptions import TyperException

from claspkit.profiles.errors import ClaspError

from .cli_demo import demo
from .cli_doctor import doctor
from .cli_evaluate import evaluate_command
from .cli_inspect import inspect, report
from .cli_look import plan
from .cli_optuna import export_optuna
from .cli_paper import paper
from .cli_power import power
from .cli_router import router_app
from .cli_run import run
from .cli_ship import diff, export, verify
from .cli_space import space
from .cli_stages import calibrate, stage_command
from .cli_store import store_app
from .cli_study import study
from .cli_use import route

INTERRUPTED = 130

_LABEL_HELP = """Run a calibration up to the labels; `calibrate` with the same options goes on.

Example:

  claspkit label --model mini --per-class 60 --out runs/mini
"""
_SEARCH_HELP = """Run a calibration up to the scores of the search, without a profile; `calibrate` goes on.

Example:

  claspkit search --model mini --per-class 60 --export-optuna scores.db
"""

app = typer.Typer(
    name="claspkit",
    help="Calibrate visual-token pruning for a vision-language model, look at what was found, and use it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("calibrate")(calibrate)
app.command("label", help=_LABEL_HELP)(stage_command("label"))
app.add_typer(store_app, name="cache")
app.command("search", help=_SEARCH_HELP)(stage_command("search"))
app.command()(plan)
app.command()(space)
app.command()(power)
app.command()(inspect)
app.command()(report)
app.command()(export)
app.command()(verify)
app.command()(diff)
app.command()(export_optuna)
app.command()(run)
app.command()(demo)
app.command("evaluate")(evaluate_command)
app.command()(paper)
app.command()(route)
router_app.command()(study)
app.add_typer(router_app, name="router")
app.command()(doctor)

_single = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
_single.command(name="clasp-calibrate")(calibrate)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of ``claspkit``; ends the process with the exit code of design section 7."""
    _exit(app, arguments)


def calibrate_main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of ``clasp-calibrate``, the same as ``claspkit calibrate``."""
    _exit(_single, arguments)


def _exit(application: typer.Typer, arguments: Sequence[str] | None) -> NoReturn:
    """Run a command and turn every error a user can meet into one message and its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    logging.disable_progress_bar()  # transformers' own bars would tear ours apart
    console = Console(stderr=True, highlight=False)
    try:
        code = application(args=arguments, standalone_mode=False) or 0
    except ClaspError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except TyperException as error:
        if told := error.format_message():  # empty where the help was shown in place of an error
            console.print(f"error: {told} (--help shows what there is)", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer itself turns Ctrl-C into this code
        console.print("interrupted; what was finished is kept, run the same command again to continue", markup=False)
    sys.exit(code)


def _terminate(_: int, __: FrameType | None) -> NoReturn:
    """A scheduler's SIGTERM ends a run like Ctrl-C: cleanly and resumable."""
    raise KeyboardInterrupt
