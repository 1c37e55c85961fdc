"""The teacher's other mode: it writes JSON, which is checked, mended at most twice, and else given up.

What is asked for is ``{"intent": "<fine intent>"}`` and nothing else. Thinking text (``<think> ... </think>``) before
it is cut off; anything else around it is an error that the model is told about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from claspkit.profiles.canonical import digest, strict_loads
from claspkit.profiles.errors import shorten
from claspkit.profiles.intents import STANDARD
from claspkit.profiles.taxonomy import FineIntent, Taxonomy

from .template import described, framed, quoted

REPAIRS = 2
_MAX_ANSWER = 1000  # bytes; the longest right one has 34
_REPEATED = 300  # characters of a wrong answer that the model is shown again
_THOUGHT, _THINKS = "</think>", "<think>"
_FORM = '{"intent": "NAME"}'

Message = dict[str, str]
Conversation = list[Message]
Reply = Callable[[Sequence[Conversation]], Sequence[str]]
"""Takes conversations that end with the user, returns what the model writes next in each."""


def opening(prompt: str, taxonomy: Taxonomy = STANDARD) -> Conversation:
    """The conversation that asks about one prompt."""
    return [{"role": "user", "content": _instructions(taxonomy) + quoted(prompt)}]


def read_answer(text: str, taxonomy: Taxonomy = STANDARD) -> FineIntent:
    """The fine intent that an answer names.

    Raises:
        ValueError: it is anything but the JSON object asked for; the reason is fit to be told to the model.
    """
    _, closed, rest = text.rpartition(_THOUGHT)
    answer = (rest if closed else text).strip()
    if not answer or answer.startswith(_THINKS):
        raise ValueError("there is no answer" + (" after the thinking" if closed or answer else ""))
    found = strict_loads(answer.encode("utf-8", "replace"), max_bytes=_MAX_ANSWER, max_depth=4)
    if not isinstance(found, dict) or found.keys() != {"intent"}:
        raise ValueError(f'it must be one object with the one key "intent": {_FORM}')
    name = found["intent"]
    if not isinstance(name, str) or name not in taxonomy.fine_ids:
        raise ValueError(f"{shorten(name, 40)} is not one of the names: {', '.join(taxonomy.fine_ids)}")
    return taxonomy.fine_intents[taxonomy.fine_ids.index(name)]


def ask(prompts: Sequence[str], reply: Reply, taxonomy: Taxonomy = STANDARD) -> list[FineIntent | None]:
    """The fine intent of every prompt; None where no answer could be read after REPAIRS repairs."""
    talks = [opening(prompt, taxonomy) for prompt in prompts]
    found: list[FineIntent | None] = [None] * len(prompts)
    waiting = list(range(len(prompts)))
    for _ in range(1 + REPAIRS):
        if not waiting:
            break
        answers = reply([talks[index] for index in waiting])
        wrong = []
        for index, text in zip(waiting, answers, strict=True):
            try:
                found[index] = read_answer(text, taxonomy)
            except ValueError as error:
                talks[index] += _repair(text, str(error))
                wrong.append(index)
        waiting = wrong
    return found


def _repair(text: str, reason: str) -> Conversation:
    """Two more turns: what the model wrote, and what is wrong with it."""
    return [
        {"role": "assistant", "content": text.rpartition(_THOUGHT)[2].strip()[:_REPEATED] or "..."},
        {"role": "user", "content": f"That cannot be read: {reason}. Reply with {_FORM} and nothing else."},
    ]


@cache
def _instructions(taxonomy: Taxonomy) -> str:
    listed = "\n".join(f"{fine.id}: {described(fine)}" for fine in taxonomy.fine_intents)
    return framed(listed, f"Reply with one JSON object, {_FORM}, NAME being one of those names, and nothing else.")


@cache
def json_digest(taxonomy: Taxonomy = STANDARD) -> str:
    """SHA-256 of all that is asked in this mode and of the merging."""
    fine = [[item.id, item.intent] for item in taxonomy.fine_intents]
    return digest(["json", opening("<a>", taxonomy), _repair("", ""), REPAIRS, _REPEATED, fine])
