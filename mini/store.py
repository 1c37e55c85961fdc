"""The model folder: where it is, how it is written, how it is read."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from .paths import MODEL_DIR

__all__ = ["MODEL_DIR", "load_model", "save_model"]


def save_model(folder: Path, model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> None:
    """Write configuration, float32 safetensors, tokenizer and processor to ``folder``, creating it."""
    folder.mkdir(parents=True, exist_ok=True)
    model.set_attn_implementation("sdpa")
    # Through nn.Module: the library's own `to` is wrapped in a form that type checkers misread.
    torch.nn.Module.to(model, device="cpu", dtype=torch.float32)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def load_model(folder: Path = MODEL_DIR) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Return the model, in evaluation mode on the CPU, and its processor, read from ``folder`` alone.

    Raises ``OSError`` where the folder holds no model.
    """
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    return model.eval(), AutoProcessor.from_pretrained(folder, local_files_only=True)
