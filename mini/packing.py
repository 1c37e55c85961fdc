"""Many questions about one picture in one sequence, each seeing what it would see if asked alone.

A row is the prompt's beginning with the picture (148 tokens), then blocks of equal length, one per question. A block
attends to the picture's part and to itself, and its positions continue right after the picture, so the logits are
those of a separate prompt per question, at a fraction of the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase
from transformers.modeling_utils import AttentionInterface

from .build import EOS, IMAGE, PROMPT
from .draw import PATCHES
from .questions import Question

PACKED_ATTENTION: Final = "claspkit_mini_packed"
IGNORED: Final = -100


@dataclass(frozen=True)
class PackedQuestions:
    """Token ids and targets, both int64 of shape (pictures, questions, longest block).

    ``targets[..., t]`` is the token that must follow ``ids[..., t]``, or -100 where nothing is asked of the model.
    """

    ids: torch.Tensor
    targets: torch.Tensor


class QuestionPacker:
    """Turns questions into blocks of tokens; remembers each text's tokens, since the texts are few."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        head, tail = PROMPT.split(IMAGE)
        self.tokenizer = tokenizer
        self.prefix: list[int] = tokenizer(head).input_ids
        self._tail = tail
        self._blocks: dict[tuple[str, str], tuple[list[int], int]] = {}

    def block(self, question: str, answer: str) -> tuple[list[int], int]:
        """Return the tokens after the picture, answer and end of text included, and how many of them are asked."""
        key = (question, answer)
        if key not in self._blocks:
            asked = self.tokenizer(self._tail.format(question=question), add_special_tokens=False).input_ids
            told = self.tokenizer(f" {answer}{EOS}", add_special_tokens=False).input_ids
            self._blocks[key] = (asked + told, len(asked))
        return self._blocks[key]

    def pack(self, questions: list[list[Question]], length: int | None = None) -> PackedQuestions:
        """Pack the same number of questions for each picture, the blocks ``length`` tokens long or as need be.

        Raises ``ValueError`` where the numbers differ or a question does not fit.
        """
        per_picture = len(questions[0])
        if any(len(row) != per_picture for row in questions):
            raise ValueError("every picture of a batch needs the same number of questions")
        blocks = [[self.block(q.text, q.answer) for q in row] for row in questions]
        longest = max(len(tokens) for row in blocks for tokens, _ in row) - 1
        if length is not None:
            if longest > length:
                raise ValueError(f"a question takes {longest} tokens, not {length}")
            longest = length
        ids = np.full((len(questions), per_picture, longest), self.tokenizer.pad_token_id, dtype=np.int64)
        targets = np.full_like(ids, IGNORED)
        for i, row in enumerate(blocks):
            for j, (tokens, asked) in enumerate(row):
                ids[i, j, : len(tokens) - 1] = tokens[:-1]
                targets[i, j, asked - 1 : len(tokens) - 1] = tokens[asked:]
        return PackedQuestions(torch.from_numpy(ids), torch.from_numpy(targets))


def packed_hidden(
    model: LlavaForConditionalGeneration,
    prefix: list[int],
    image_features: torch.Tensor,
    ids: torch.Tensor,
    kept: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the decoder's last hidden states of all blocks, shape (pictures, questions, block, width).

    ``image_features`` is (pictures, 144, width), projected; ``ids`` is int64 (pictures, questions, block). ``kept``
    is int64 (pictures, n): only those visual tokens enter the decoder, at their original positions.
    """
    rows, per_picture, block = ids.shape
    decoder = model.model.language_model
    embed = decoder.get_input_embeddings()
    before = len(prefix)
    head = embed(torch.tensor(prefix, device=ids.device)).expand(rows, -1, -1)
    visual = torch.arange(PATCHES, device=ids.device).expand(rows, -1)
    if kept is not None:
        visual = kept
        image_features = image_features.gather(1, kept[..., None].expand(-1, -1, image_features.shape[-1]))
    tail = embed(ids.reshape(rows, -1))
    inputs = torch.cat([head, image_features.to(head.dtype), tail], dim=1)
    positions = torch.cat(
        [
            torch.arange(before, device=ids.device).expand(rows, -1),
            before + visual,
            before + PATCHES + torch.arange(block, device=ids.device).repeat(per_picture).expand(rows, -1),
        ],
        dim=1,
    )
    start = before + visual.shape[1]
    hidden: torch.Tensor = decoder(
        inputs_embeds=inputs, position_ids=positions, use_cache=False, block_length=block, prefix_length=start
    ).last_hidden_state
    return hidden[:, start:].reshape(rows, per_picture, block, -1)


def use_packed_attention(model: LlavaForConditionalGeneration) -> None:
    """Let ``model``'s decoder read packed rows, and only those, until another attention is set."""
    AttentionInterface.register(PACKED_ATTENTION, _packed_attention)
    model.model.language_model.set_attn_implementation(PACKED_ATTENTION)


def _packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    *,
    prefix_length: int,
    block_length: int,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention in the transformers library's calling form; query, key, value are (rows, heads, length, size)."""
    rows, heads, _length, size = query.shape
    prefix_key, prefix_value = key[:, :, :prefix_length], value[:, :, :prefix_length]
    scores = query[:, :, :prefix_length] @ prefix_key.transpose(-1, -2) * scaling
    scores = scores.float().masked_fill(_future(prefix_length, query.device), float("-inf"))
    first = scores.softmax(-1).to(prefix_value.dtype) @ prefix_value

    own_query = query[:, :, prefix_length:]
    own_key, own_value = (
        tensor[:, :, prefix_length:].reshape(rows, heads, -1, block_length, size) for tensor in (key, value)
    )
    to_prefix = (own_query @ prefix_key.transpose(-1, -2) * scaling).float()
    blocked_query = own_query.reshape(rows, heads, -1, block_length, size)
    to_own = (blocked_query @ own_key.transpose(-1, -2) * scaling).float()
    to_own = to_own.masked_fill(_future(block_length, query.device), float("-inf")).flatten(2, 3)
    weights = torch.cat([to_prefix, to_own], dim=-1).softmax(-1).to(value.dtype)
    own_weights = weights[..., prefix_length:].reshape(rows, heads, -1, block_length, block_length)
    second = weights[..., :prefix_length] @ prefix_value + (own_weights @ own_value).flatten(2, 3)
    return torch.cat([first, second], dim=2).transpose(1, 2).contiguous(), None


def _future(length: int, device: torch.device) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
