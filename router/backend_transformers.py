"""The teacher: any chat model of transformers, asked for one letter per prompt.

One letter per fine intent is scored from the logits of one forward, nothing is generated: the answer is always one of
them, text inside a prompt can at worst choose a wrong one, and the confidence is a softmax. The instructions are the
same for all prompts; their keys and values are computed once.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from claspkit.profiles.errors import BadDataError, ResourceError, UsageError

from .backends import BackendOptions
from .labels import Label
from .teacher_files import NO_MEMORY
from .teacher_model import TeacherModel
from .template import instructions, letters, quoted, template_digest

_HOLE = "\u2402"  # stands for the prompt while the chat template is rendered


class TransformersBackend(TeacherModel):
    """Labels by the letter that a causal language model finds likeliest.

    Args:
        options: ``model`` is a hub id or a folder, Qwen/Qwen3-8B if not given.

    Raises:
        UsageError: no such model or device, or a tokenizer without a token for each letter.
        ResourceError: the model does not fit into the device's memory.
    """

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.template = template_digest(self.taxonomy)
        self._accepted = set(inspect.signature(self._model.forward).parameters)
        head, self._tail = self._frame()
        self._letters = torch.tensor(self._letter_ids(), device=self._device)
        self._prefix_ids = self._begin() + self._encode(head)
        self._prefix = self._read_prefix()

    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt: the fine intent of the likeliest letter, its softmax share as confidence.

        Raises:
            ResourceError: one prompt alone does not fit into memory.
            BadDataError: the model's logits are not finite.
        """
        rows = [self._row(prompt) for prompt in prompts]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        labels: list[Label | None] = [None] * len(rows)
        for start in range(0, len(order), self._batch):
            batch = order[start : start + self._batch]
            shares = self.shares([rows[index] for index in batch])
            for index, row in zip(batch, shares.tolist(), strict=True):
                best = max(range(len(row)), key=row.__getitem__)
                fine = self.taxonomy.fine_intents[best]
                # Rounded: the last digits of a share depend on the batch.
                labels[index] = Label(fine.intent, fine.id, round(row[best], 4), self.source, self.template)
        return [label for label in labels if label is not None]

    def _row(self, prompt: str) -> list[int]:
        """Token ids of one prompt and what follows it; control tokens come from the template alone."""
        return self._encode(self._clean(quoted(prompt)) + self._tail)

    @torch.inference_mode()
    def shares(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Probabilities (B, fine intents) float64 of the letters after the instructions and each row of token ids."""
        try:
            logits = self._forward(rows)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise ResourceError(
                    f"no memory on {self._device} to label one prompt of {len(rows[0])} tokens; {NO_MEMORY}"
                ) from error
            half = len(rows) // 2
            return torch.cat((self.shares(rows[:half]), self.shares(rows[half:])))
        scores = logits[:, self._letters].double()
        if not bool(torch.isfinite(scores).all()):
            raise BadDataError(f"{self.source} gives logits that are not finite; its weights or their dtype are broken")
        return scores.softmax(dim=-1).cpu()

    def _forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits (B, V) after the last token of each row; rows are padded on the left, after the shared prefix."""
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, width - len(row) :] = torch.tensor(row)
            mask[index, width - len(row) :] = 1
        before = len(self._prefix_ids)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0) + before
        mask = torch.cat((torch.ones(len(rows), before, dtype=torch.long), mask), dim=1)
        cache = copy.deepcopy(self._prefix)
        cache.batch_repeat_interleave(len(rows))
        return self._call(ids, mask, positions, cache)

    def _call(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        extra: dict[str, Any] = {"position_ids": positions.to(self._device), "logits_to_keep": 1}
        found = self._model(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            past_key_values=cache,
            use_cache=True,
            **{name: value for name, value in extra.items() if name in self._accepted},
        )
        logits: Tensor = found.logits[:, -1]
        return logits

    @torch.inference_mode()
    def _read_prefix(self) -> DynamicCache:
        """Keys and values of the instructions, batch 1."""
        ids = torch.tensor([self._prefix_ids])
        cache = DynamicCache(config=self._model.config)
        self._call(ids, torch.ones_like(ids), torch.arange(ids.shape[1])[None], cache)
        return cache

    def _frame(self) -> tuple[str, str]:
        """What stands before and after a prompt: the rendered chat template, or plain text where there is none."""
        text = instructions(self.taxonomy) + _HOLE
        if not self._tokenizer.chat_template:
            rendered = f"{text}\nLetter:"
        else:
            rendered = self._render([{"role": "user", "content": text}])
        head, _, tail = rendered.partition(_HOLE)
        return head, tail

    def _letter_ids(self) -> list[int]:
        """The token id of each letter as the first token of a reply."""
        before, answers = self._encode(self._tail), letters(self.taxonomy)
        for space in ("", " "):
            replies = [self._encode(self._tail + space + letter) for letter in answers]
            ids = [reply[-1] for reply in replies if reply[:-1] == before]
            if len(set(ids)) == len(answers):
                return ids
        raise UsageError(
            f"the tokenizer of {self.source} has no single token for each letter from A to {answers[-1]}; "
            "choose another labelling model with --router-model, or use --router rules"
        )
