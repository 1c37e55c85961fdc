"""A byte-level tokenizer without merges, with whatever special tokens and chat template a test needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

FIRST_LETTER = 200


def tiny_tokenizer(special: Mapping[str, int], template: str | None, **named: str) -> Any:
    """Letters from id FIRST_LETTER on, ``special`` tokens at theirs, "<pad>" at 0; ``named`` as attributes."""
    letters = {letter: FIRST_LETTER + place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab={"<pad>": 0, **special, **letters}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<pad>", *special])
    made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", extra_special_tokens=named)
    made.chat_template = template
    return made
