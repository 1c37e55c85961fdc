"""The user's words in a batch of token ids: what a router reads where only the tokens are at hand."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

_MARK = "claspkitmarkstheuserstext"


class PromptReader:
    """Takes the last user turn out of tokenised chats.

    The chat template's own words around it are found by putting a mark through the template.

    Args:
        processor: the model's processor, or its tokenizer.
        placeholders: ids of the tokens that stand for pictures.
    """

    def __init__(self, processor: Any, placeholders: tuple[int, ...]) -> None:
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._placeholders = torch.tensor(placeholders)
        self._before, self._after = _around_user_text(processor)

    def read(self, ids: Tensor, attention: Tensor | None = None) -> list[str]:
        """Return one text per row of ``ids`` (B, S); ``attention`` (B, S) is 0 for padding."""
        rows = ids.cpu()
        real = torch.ones_like(rows, dtype=torch.bool) if attention is None else attention.cpu() != 0
        return [self._read(row[keep]) for row, keep in zip(rows, real, strict=True)]

    def _read(self, ids: Tensor) -> str:
        text = self._tokenizer.decode(ids[~torch.isin(ids, self._placeholders)], skip_special_tokens=False)
        if self._before and self._before in text:
            text = text.rpartition(self._before)[2]
        if self._after:
            text = text.rpartition(self._after)[0] or text
        for token in {*self._tokenizer.all_special_tokens, *self._tokenizer.get_added_vocab()}:
            text = text.replace(token, " ")
        return " ".join(text.split())


def _around_user_text(processor: Any) -> tuple[str, str]:
    """What the chat template writes before and after a user's text; empty strings where there is no template."""
    if getattr(processor, "chat_template", None) is None:
        return "", ""
    first = _render(processor, [("user", _MARK)])
    later = _render(processor, [("user", "a"), ("assistant", "b"), ("user", _MARK)])
    before, found, after = later.partition(_MARK)
    if not found:
        return "", ""
    # The user's header is how a first turn and a later one begin alike.
    opening = first.partition(_MARK)[0]
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(opening), reversed(before), strict=False))
    header = "".join(letter for letter, _ in shared)[::-1]
    return header.strip(), after.strip()


def _render(processor: Any, turns: list[tuple[str, str]]) -> str:
    """Put turns through the chat template; their content as parts, or as text where the template takes only that."""
    parts: list[dict[str, Any]] = [
        {"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns
    ]
    plain = [{"role": role, "content": text} for role, text in turns]
    options = {"add_generation_prompt": True, "tokenize": False}
    try:
        return str(processor.apply_chat_template(parts, **options))
    except Exception:  # whatever a template does with parts it does not know
        return str(processor.apply_chat_template(plain, **options))
