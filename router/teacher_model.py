"""A teacher's model, loaded: what both of its modes share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from claspkit.profiles.errors import ResourceError, UsageError

from .backends import Backend, BackendOptions
from .control_tokens import control_tokens, without_control
from .teacher_files import NO_MEMORY, not_loaded, teacher_source

DEFAULT_MODEL = "Qwen/Qwen3-8B"
_BLOCKS = 4  # batches per block: what a kill can lose


class TeacherModel(Backend):
    """A backend with a causal language model and its tokenizer.

    Args:
        options: ``model`` is a hub id or a folder, Qwen/Qwen3-8B if not given.

    Raises:
        UsageError: no such model or device.
        ResourceError: the model does not fit into the device's memory.
    """

    def __init__(self, options: BackendOptions) -> None:
        name = options.model or DEFAULT_MODEL
        folder = Path(name).expanduser()
        location = str(folder) if folder.is_dir() else name
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(location, revision=options.revision)
            model: Any = AutoModelForCausalLM.from_pretrained(
                location, revision=options.revision, dtype="auto", use_safetensors=True
            )
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise not_loaded(name, options, error) from error
        try:
            device = torch.device(options.device)
            self._model: Any = model.to(device).eval()
        except torch.OutOfMemoryError as error:
            raise ResourceError(f"{name} does not fit into the memory of {options.device}; {NO_MEMORY}") from error
        except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
            raise UsageError(f"device {options.device!r} cannot be used: {error}. Choose another --device.") from error
        self._device, self.taxonomy = device, options.taxonomy
        self._batch = options.batch_size
        self.block = _BLOCKS * options.batch_size
        self._control = control_tokens(self._tokenizer)
        self.source = teacher_source(name, options.revision, self._model.config)

    def _render(self, messages: Sequence[dict[str, str]]) -> str:
        """The text of a conversation in the model's chat template, up to where the model's turn begins."""
        rendered: str = self._tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # templates that know no such switch ignore it
        )
        return rendered

    def _clean(self, text: str) -> str:
        """``text`` without anything that the tokenizer would read as a control token."""
        return without_control(self._tokenizer, text, self._control)

    def _begin(self) -> list[int]:
        """The token a text starts with, where the chat template does not bring it."""
        start = self._tokenizer.bos_token_id
        return [] if self._tokenizer.chat_template or start is None else [start]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
