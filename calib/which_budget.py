"""Which of a run's budgets is shown: by its tokens, by the text it was asked with, by a share, or "adaptive"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from claspkit.profiles.errors import CorruptError, UsageError

from .command import command_of
from .schedule import parse_nominal
from .space import Space
from .summary_budgets import has_classes
from .table_budgets import ADAPTIVE
from .view import RunView


@dataclass(frozen=True)
class ShownBudget:
    """A budget of a run, or the budgets that its classes were given.

    Attributes:
        name: nominal visual tokens, or "adaptive"; None of an unfinished run with one budget, which does not say.
        numbers: class id -> number of its budget among the run's, the first being 0.
    """

    name: int | str | None
    numbers: Mapping[str, int]

    @property
    def number(self) -> int | None:
        """The one budget of all classes; None where they have different ones."""
        return None if self.name == ADAPTIVE else next(iter(self.numbers.values()))

    def spaces(self, view: RunView) -> list[Space]:
        """The candidates at the budgets that are shown; empty where this version has other ones."""
        return [view.spaces[number] for number in sorted({*self.numbers.values()})] if view.spaces else []


def budgets_of(view: RunView) -> list[tuple[int | None, str | None]]:
    """Nominal visual tokens of a run's budgets, and the text each was asked with; None for what is not known."""
    if used := view.facts.get("budgets_used"):
        return [(int(nominal), text.strip()) for (nominal, _), text in zip(used, _texts(view), strict=True)]
    asked = None if view.config.stages else view.config.budget
    return [(view.summary["budget"]["nominal"] if view.summary else None, asked)]


def show_budget(view: RunView, asked: str | None) -> ShownBudget:
    """Find the budget that was asked for; without one the first.

    Args:
        view: the run.
        asked: visual tokens or a share, as ``--budget`` of a calibration takes it, or "adaptive".

    Raises:
        UsageError: no such budget; the text lists those that there are.
        CorruptError: a further budget of a run whose summary is of an earlier version.
    """
    intents, budgets = view.taxonomy.ids, budgets_of(view)
    if asked == ADAPTIVE:
        shown = _adaptive(view, budgets)
    else:
        number = 0 if asked is None else _number(view, asked, budgets)
        shown = ShownBudget(budgets[number][0], dict.fromkeys(intents, number))
    if any(shown.numbers.values()) and view.summary is not None and not has_classes(view.summary):
        raise CorruptError(
            f"{view.folder.summary} is of an earlier version, which wrote the classes of the first budget alone. Run "
            f"this again, it is quick now: {command_of(view.facts, view.folder.root)}"
        )
    return shown


def _number(view: RunView, asked: str, budgets: Sequence[tuple[int | None, str | None]]) -> int:
    for number, (nominal, text) in enumerate(budgets):
        if asked in (str(nominal), text):
            return number
    tokens = view.summary["model"]["visual_tokens"] if view.summary else None
    if tokens is not None:  # a run that is going on does not say how many there are
        wanted = parse_nominal(asked, tokens)
        for number, (nominal, _) in enumerate(budgets):
            if nominal == wanted:
                return number
    raise UsageError(f"{view.folder.root} has no --budget {asked}; there are: {list_budgets(view)}")


def _adaptive(view: RunView, budgets: Sequence[tuple[int | None, str | None]]) -> ShownBudget:
    found = view.summary.get("adaptive") if view.summary else None
    if found is None or found["decision"] != ADAPTIVE:
        raise UsageError(
            f"{view.folder.root} has no --budget adaptive: no profile with budgets by class was made; there are: "
            f"{list_budgets(view)}"
        )
    order = [nominal for nominal, _ in budgets]
    return ShownBudget(ADAPTIVE, {intent: order.index(nominal) for intent, nominal in found["nominals"].items()})


def list_budgets(view: RunView) -> str:
    """All budgets of a run in words: ``16 (1/9), 48``."""
    words = []
    for nominal, text in budgets_of(view):
        if nominal is None:
            words.append(text or "one by --stage")
        else:
            words.append(f"{nominal}" if text in (None, str(nominal)) else f"{nominal} ({text})")
    return ", ".join(words)


def _texts(view: RunView) -> list[str]:
    return view.config.budget.split(",")
