"""``claspkit run``: ask a pruned model about one's own pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import INTENT_IDS
from claspkit.runtime.models import load_model

from .apply import Answer, Asker, draw
from .cli_use import ProfileOption
from .progress import Reporter
from .questions import Question, Refused, gather
from .table_answers import answer_lines, print_answers


def run(
    profile: ProfileOption,
    model: Annotated[str, typer.Option(help="Alias, hub id or folder of the model the profile was made for.")],
    image: Annotated[
        Path | None, typer.Option(help="Picture to ask about, or a folder: every picture in it.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Question, as a user would type it.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help='In place of --prompt: a file with {"image": ..., "prompt": ..., "intent"?: ...} a line.'),
    ] = None,
    intent: Annotated[
        str | None, typer.Option(help=f"Skip the router: {', '.join(INTENT_IDS)}, or a class of the profile's own.")
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Write the picture with the kept tokens drawn on it; of several questions, a folder."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also answer with all visual tokens.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest answer, in tokens.")] = 64,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per question on stdout.")] = False,
) -> None:
    """Answer questions about pictures with a pruned model, and show what was kept and how long it took.

    Of several questions, one that cannot be answered is a line on stderr, the others go on, and the exit code is 3.

    Examples:

      claspkit run --profile runs/mini/profile --model mini --image photo.png \\
        --prompt "How many stars are there?" --overlay kept.png

      claspkit run --profile runs/mini/profile --model mini --image photos --prompt "What is this?" --compare

      claspkit run --profile runs/mini/profile --model mini --prompts asked.jsonl --json > answers.jsonl
    """
    rules = read_profile(profile)
    if intent is not None:
        rules.for_intent(intent)
    questions = gather(image, prompt, prompts, rules.intent_ids, intent)
    alone = prompts is None and image is not None and not image.is_dir()
    if alone and isinstance(questions[0], Question):
        questions[0].open()  # what cannot be asked is refused before a model is loaded
    if overlay is not None and not alone:
        _make_folder(overlay)
    loaded = load_model(model, device=device, revision=rules.model.revision)
    asker = Asker(loaded, rules, profile if profile.is_dir() else profile.parent)
    asking = _Asking(asker, max_new_tokens, compare, overlay, alone, as_json)
    if compare:
        asking.warm_up(questions)
    reporter = Reporter(quiet=alone or as_json)
    with reporter.task("questions", len(questions), "questions") as advance:
        for number, question in enumerate(questions):
            asking.take(number, question)
            advance(1)
    if not as_json:
        if alone:
            for line in answer_lines(asking.answers[0][1]):
                typer.echo(line)
        else:
            print_answers(asking.answers, Console())
    if overlay is not None and asking.answers:
        typer.echo(f"overlay  {overlay}", err=True)
    if asking.refused:
        raise BadDataError(f"{asking.refused} of {len(questions)} questions could not be answered, see above")


class _Asking:
    """Question after question, and what came of each."""

    def __init__(
        self, asker: Asker, max_new_tokens: int, compare: bool, overlay: Path | None, alone: bool, as_json: bool
    ) -> None:
        self._asker, self._longest, self._compare = asker, max_new_tokens, compare
        self._overlay, self._alone, self._json = overlay, alone, as_json
        self.answers: list[tuple[Question, Answer]] = []
        self.refused = 0

    def warm_up(self, questions: list[Question | Refused]) -> None:
        """Answer one question for nothing: the first one pays for threads and kernels, and times would mislead."""
        for question in questions:
            if isinstance(question, Question):
                try:
                    self._ask(question)
                except BadDataError:
                    continue
                return

    def take(self, number: int, question: Question | Refused) -> None:
        """Answer one question, or say why not; alone, an error is the command's."""
        if isinstance(question, Refused):
            self._refuse(number, question.where, question.reason)
            return
        try:
            answer = self._ask(question)
        except BadDataError as error:
            if self._alone:
                raise
            self._refuse(number, question.where, str(error))
            return
        self.answers.append((question, answer))
        drawn = self._draw(number, question, answer)
        if self._json:
            facts = {"id": number, "image": question.image, "prompt": question.prompt, **answer.to_dict()}
            typer.echo(json.dumps(facts | ({"overlay": str(drawn)} if drawn else {})))

    def _ask(self, question: Question) -> Answer:
        picture = question.open()
        return self._asker.ask(picture, question.prompt, question.intent, self._longest, compare=self._compare)

    def _refuse(self, number: int, where: str, reason: str) -> None:
        self.refused += 1
        typer.echo(f"error: {where}: {reason}", err=True)
        if self._json:
            typer.echo(json.dumps({"id": number, "where": where, "error": reason}))

    def _draw(self, number: int, question: Question, answer: Answer) -> Path | None:
        if self._overlay is None or not answer.stages:
            return None
        target = self._overlay
        if target.is_dir():
            target = target / f"{number:04d}-{Path(question.image).stem}.png"
        try:
            draw(self._asker.loaded, question.open(), answer).save(target)
        except (OSError, ValueError) as error:  # Pillow: an ending it does not know is a ValueError
            raise UsageError(f"cannot write --overlay {target}: {error}") from None
        return target


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--overlay takes a folder here: {folder} cannot be made ({error.strerror})") from None
