"""The teacher as the paper asks it: a chat model of transformers that writes its answer as JSON, greedily."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from claspkit.profiles.errors import ResourceError

from .backends import BackendOptions
from .json_mode import Conversation, ask, json_digest
from .labels import Label, unread
from .teacher_files import NO_MEMORY
from .teacher_model import TeacherModel

_LONGEST = 64  # tokens; the longest right answer has about 12


class TransformersJsonBackend(TeacherModel):
    """Labels by what a causal language model writes; thinking off, greedy, a repair asked for at most twice.

    Args:
        options: as for the letters' backend.

    Attributes:
        max_new_tokens: of an answer.

    Raises:
        UsageError: no such model or device.
        ResourceError: the model does not fit into the device's memory.
    """

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.template = json_digest(self.taxonomy)
        self.max_new_tokens = _LONGEST
        fill = self._tokenizer.pad_token_id
        self._fill = 0 if fill is None else fill  # masked: any token will do
        # The checkpoint's own would be mixed in, with penalties that change what is greedy.
        self._model.generation_config = GenerationConfig(
            eos_token_id=self._model.generation_config.eos_token_id or self._tokenizer.eos_token_id,
            pad_token_id=self._fill,
        )

    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt: confidence 1 for an answer that was read, else the flagged default.

        Raises:
            ResourceError: one prompt alone does not fit into memory.
        """
        return [
            unread(self.source, self.template, self.taxonomy)
            if fine is None
            else Label(fine.intent, fine.id, 1.0, self.source, self.template)
            for fine in ask(prompts, self.reply, self.taxonomy)
        ]

    def reply(self, talks: Sequence[Conversation]) -> list[str]:
        """What the model writes next in each conversation, in order; batched by length.

        Raises:
            ResourceError: one conversation alone does not fit into memory.
        """
        rows = [self._begin() + self._encode(self._text(talk)) for talk in talks]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        found: dict[int, str] = {}
        for start in range(0, len(order), self._batch):
            batch = order[start : start + self._batch]
            written = self._generate([rows[index] for index in batch])
            found |= zip(batch, self._tokenizer.batch_decode(written, skip_special_tokens=True), strict=True)
        return [found[index] for index in range(len(rows))]

    def _text(self, talk: Conversation) -> str:
        """A conversation as the model reads it; control tokens come from the template alone."""
        messages = [{**message, "content": self._clean(message["content"])} for message in talk]
        if self._tokenizer.chat_template:
            return self._render(messages)
        return "".join(message["content"] + "\n" for message in messages) + "Answer:"

    @torch.inference_mode()
    def _generate(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """The new token ids after each row; rows are padded on the left."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._fill, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, width - len(row) :] = torch.tensor(row)
            mask[index, width - len(row) :] = 1
        try:
            made = self._model.generate(
                ids.to(self._device),
                attention_mask=mask.to(self._device),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                num_beams=1,
            )
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise ResourceError(
                    f"no memory on {self._device} to label one prompt of {width} tokens; {NO_MEMORY}"
                ) from error
            half = len(rows) // 2
            return [*self._generate(rows[:half]), *self._generate(rows[half:])]
        found: list[list[int]] = made[:, width:].tolist()
        return found
