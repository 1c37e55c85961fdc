"""Answers of a pruned model, for the terminal: one in full, or many as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from rich.console import Console
from rich.table import Table
from rich.text import Text

from claspkit.profiles.budget import Stage

from .apply import Answer
from .questions import Question
from .table import clean

_WIDE = 160  # characters where no terminal says how many it has


def answer_lines(answer: Answer) -> Iterator[str]:
    """One answer in full: class, configuration, answers, tokens per stage, time."""
    yield f"class    {answer.intent}  ({clean(answer.label_source)}, confidence {answer.confidence:.2f})"
    yield f"config   layers {list(answer.layers)}, rho {answer.rho:g}"
    yield f"answer   {clean(answer.text)}"
    if answer.unpruned is not None:
        yield f"unpruned {clean(answer.unpruned)}"
    yield f"tokens   {answer.visual_tokens} visual tokens before pruning"
    for stage in answer.stages:
        yield (
            f"         {Stage(stage.after_layer, len(stage.kept)).place}: {len(stage.kept)} kept, "
            f"{len(stage.pivots)} pivots and {len(stage.kept) - len(stage.pivots)} completion"
        )
    pruned = f"{answer.seconds:.3f} s"
    both = "" if answer.seconds_unpruned is None else f", unpruned {answer.seconds_unpruned:.3f} s"
    yield f"time     {pruned}{both}"


def print_answers(rows: Sequence[tuple[Question, Answer]], console: Console) -> None:
    """Print one row per question, pruned beside unpruned where that was asked, and a line that sums up."""
    compared = any(answer.unpruned is not None for _, answer in rows)
    table = Table(header_style="bold")
    heads = ["question", "class", "answer", *(["unpruned", "same"] if compared else []), "tokens", "seconds"]
    for head in [*heads, *(["unpruned s"] if compared else [])]:
        right = head in {"seconds", "unpruned s"}
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    for question, answer in rows:
        cells = [f"{question.where}: {question.prompt}", answer.intent, answer.text]
        if compared:
            cells += [str(answer.unpruned), "yes" if answer.text == answer.unpruned else "no"]
        cells += [tokens(answer), f"{answer.seconds:.3f}"]
        if compared:
            cells.append(f"{answer.seconds_unpruned:.3f}")
        table.add_row(*(Text(clean(cell)) for cell in cells))
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)
    console.print(table)
    console.print(Text(summary_line(rows)), soft_wrap=True)


def tokens(answer: Answer) -> str:
    """Visual tokens from stage to stage: ``144 > 75 > 50 > 30``."""
    return " > ".join(str(count) for count in [answer.visual_tokens, *(len(stage.kept) for stage in answer.stages)])


def summary_line(rows: Sequence[tuple[Question, Answer]]) -> str:
    """How many there were, how many answers are those of the unpruned model, and the mean times."""
    if not rows:
        return "no question was answered"
    line = f"{len(rows)} answered, {fmean(answer.seconds for _, answer in rows):.3f} s each"
    pairs = [answer for _, answer in rows if answer.seconds_unpruned is not None]
    if not pairs:
        return line
    same = sum(answer.text == answer.unpruned for answer in pairs)
    unpruned = fmean(answer.seconds_unpruned or 0.0 for answer in pairs)
    return f"{line}; unpruned {unpruned:.3f} s each, {same} of {len(pairs)} answers are the same"
