"""Guessed answers as the tokens that a model would say them with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from .greedy import end_tokens
from .models import LoadedModel


def draft_tokens(loaded: LoadedModel, answers: Sequence[str]) -> list[list[int]]:
    """Tokenise answers as they follow the chat template's call for one, each with the token that ends it.

    A tokenizer may have one token for a word behind a space and another for the word alone; the template knows which of
    them an answer begins with. A wrong guess costs time and changes nothing.
    """
    opening, space = _opening(loaded.processor)
    tokenizer: Any = loaded.processor.tokenizer
    before = tokenizer(opening, add_special_tokens=False)["input_ids"]
    whole = tokenizer([opening + space + answer for answer in answers], add_special_tokens=False)["input_ids"]
    end = list(end_tokens(loaded.model)[:1])
    return [[*ids[len(before) :], *end] if ids[: len(before)] == before else end for ids in whole]


def _opening(processor: Any) -> tuple[str, str]:
    """A rendered question up to where its answer begins, and the white space that comes before the answer."""
    question = {"role": "user", "content": [{"type": "text", "text": "?"}]}
    reply = {"role": "assistant", "content": [{"type": "text", "text": "A"}]}
    try:
        opening = str(processor.apply_chat_template([question], add_generation_prompt=True))
        whole = str(processor.apply_chat_template([question, reply]))
    except (TemplateError, TypeError, ValueError):  # a template that cannot do without pictures, or none
        return "", ""
    space, found, _ = whole.removeprefix(opening).partition("A")
    return (opening, space) if whole.startswith(opening) and found and not space.strip() else (opening, "")
