"""Chat texts with placeholders for pictures, for models whose processor cannot be built without torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from claspkit.profiles.errors import UsageError
from claspkit.router.control_tokens import control_tokens, without_control


def chat_texts(tokenizer: Any, prompts: Sequence[str], taken_out: Sequence[str], kind: str = "image") -> list[str]:
    """Put prompts, with one picture or video each, into the tokenizer's chat template, ready for the answer.

    Args:
        tokenizer: the model's tokenizer.
        prompts: what users wrote.
        taken_out: tokens that are removed from it, beside the tokenizer's own control tokens.
        kind: "image" or "video", what each is about.

    Raises:
        UsageError: the tokenizer has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(
            "this tokenizer has no chat template, so how the model wants to be asked is not known; set "
            "tokenizer.chat_template to the template in chat_template.jinja or chat_template.json of the model's folder"
        )
    texts = []
    for bare in user_texts(tokenizer, prompts, taken_out):
        turn = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": bare}]}]
        texts.append(str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)))
    return texts


def user_texts(tokenizer: Any, prompts: Sequence[str], taken_out: Sequence[str]) -> list[str]:
    """What users wrote, without the tokenizer's control tokens: they would announce pictures or open turns.

    Args:
        tokenizer: the model's tokenizer.
        prompts: what users wrote.
        taken_out: further tokens that are removed.
    """
    control = control_tokens(tokenizer)
    texts = []
    for bare in prompts:
        for token in taken_out:
            bare = bare.replace(token, " ")
        texts.append(without_control(tokenizer, bare, control).strip())
    return texts


def expand(text: str, token: str, runs: Sequence[str]) -> str:
    """Replace the k-th ``token`` of a text by ``runs[k]``.

    Raises:
        UsageError: the text does not hold one placeholder per run.
    """
    pieces = text.split(token)
    if len(pieces) != len(runs) + 1:
        raise UsageError(f"a prompt has {len(pieces) - 1} {token} placeholders for {len(runs)} pictures or videos")
    return pieces[0] + "".join(run + piece for run, piece in zip(runs, pieces[1:], strict=True))


def tokenise(tokenizer: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, (B, S) int64, padded on the left.

    Raises:
        UsageError: the tokenizer has nothing to pad with.
    """
    if tokenizer.pad_token_id is None:
        raise UsageError("this tokenizer has no pad token to fill a batch with; set tokenizer.pad_token")
    batch = tokenizer(list(texts), return_tensors="pt", padding=True, padding_side="left")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def one_picture_each(pictures: Sequence[Any], prompts: Sequence[str]) -> None:
    """Check that there is one picture per prompt.

    Raises:
        UsageError: there is not, or there are no prompts.
    """
    if len(pictures) != len(prompts) or not prompts:
        raise UsageError(f"a batch needs one picture per prompt, got {len(pictures)} pictures, {len(prompts)} prompts")
