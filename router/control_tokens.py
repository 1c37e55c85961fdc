"""Text that no tokenizer reads as one of its control tokens: what a user writes must not open turns or pictures."""

from __future__ import annotations

import re
from typing import Any, Final

_LOOKS = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")  # <think>, [INST]; control tokens that are not marked as special
_ROUNDS: Final = 8


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Text and id of the tokens that steer a model: special ones, and added ones in angle or square brackets.

    Words that were merely added to a vocabulary are none.
    """
    special = set(tokenizer.all_special_tokens)
    decoder: dict[int, Any] = tokenizer.added_tokens_decoder
    found = {
        str(token): number
        for number, token in decoder.items()
        if token.special or str(token) in special or _LOOKS.fullmatch(str(token).strip())
    }
    return found | {token: tokenizer.convert_tokens_to_ids(token) for token in special - found.keys()}


def without_control(tokenizer: Any, text: str, tokens: dict[str, int] | None = None) -> str:
    """``text`` without what the tokenizer would read as a control token; any other text stays as it is.

    Halves of surrogate pairs, which no tokenizer takes, become question marks.

    Args:
        tokenizer: of transformers.
        text: from a user.
        tokens: :func:`control_tokens` of it, where they are at hand.

    Returns:
        A text of which the tokenizer makes none of them; where nothing else helps, the empty one.
    """
    tokens = control_tokens(tokenizer) if tokens is None else tokens
    ids = set(tokens.values()) - {tokenizer.unk_token_id}  # which stands for any letter that a tokenizer lacks
    text = text.encode("utf-8", "replace").decode("utf-8")
    for _ in range(_ROUNDS):
        for token in sorted(tokens, key=len, reverse=True):
            text = text.replace(token, " ")
        # A tokenizer may take more for a token than its text: one that ignores accents, for instance.
        made: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        rest = [number for number in made if number not in ids]
        if len(rest) == len(made) and not any(token in text for token in tokens):
            return text
        text = str(tokenizer.decode(rest)) if len(rest) < len(made) else text
    return ""
