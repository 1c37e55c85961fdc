"""Cached vision features in the encoder's place: the model's own code does everything behind it.

A record is what ``claspkit.cache`` holds of one picture or clip: the patch tokens of its units, one after the other,
and a grid. :func:`inputs_from_grids` makes a batch without the pictures, :func:`replay` answers it without the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchEncoding

from claspkit.profiles.errors import MismatchError, UsageError

from .families import Family, VisualInput
from .guards import check_not_compiled
from .inputs import chat_texts
from .models import LoadedModel
from .placeholders import expand, tokenise

Grid = Sequence[int]


def inputs_from_grids(loaded: LoadedModel, grids: Sequence[Grid], prompts: Sequence[str]) -> BatchEncoding:
    """Build a left-padded batch with one picture or clip per prompt, of which only the record's grid is needed.

    Args:
        loaded: the model.
        grids: one per prompt.
        prompts: the users' texts, without placeholders or roles.

    Returns:
        What ``batch_inputs`` or ``clip_inputs`` would give for the pictures, but for the pixels: those are blank.

    Raises:
        UsageError: not as many grids as prompts, or clips of different lengths for a model that takes none.
        MismatchError: a grid that this family's records do not have.
    """
    if len(grids) != len(prompts) or not prompts:
        raise UsageError(f"a batch needs one record per prompt, got {len(grids)} records, {len(prompts)} prompts")
    family, model, tokenizer = loaded.family, loaded.model, loaded.processor.tokenizer
    texts = [""] * len(prompts)
    stand_ins: dict[str, Tensor] = {}
    for tower, rows in rows_of_towers(family, model, grids).items():
        chats = chat_texts(loaded, [prompts[row] for row in rows], tower)
        for row, chat in zip(rows, chats, strict=True):
            visual = _visual(family, model, tower, grids[row])
            token: str = tokenizer.convert_ids_to_tokens(visual.token_id)
            texts[row] = expand(chat, token, [family.placeholder_run(model, tokenizer, token, sum(visual.tokens))])
        stand_ins |= family.stand_ins(model, tower, [grids[row] for row in rows])
    words = {name: value.to(model.device) for name, value in tokenise(tokenizer, texts).items()}
    return BatchEncoding({**words, **family.text_extras(model, words["input_ids"]), **stand_ins})


@contextmanager
def replay(model: Any, family: Family, records: Sequence[Tensor], grids: Sequence[Grid]) -> Iterator[None]:
    """Inside the block, the encoders of this model are not run: the records come out of them instead.

    The call must bring the stand-ins of these grids, :func:`inputs_from_grids`, and ask for one sequence per prompt.
    Forwards of a few modules of this instance are shadowed until the block ends, so nobody else can use it meanwhile.
    Any call inside the block replays the same records. A plan that prunes it has the stock model's layer in every row:
    what is to be fused has been.

    Args:
        model: the model.
        family: its family.
        records: (tokens, D) patch tokens of every picture or clip of the batch, in order: one layer, or fused.
        grids: theirs.

    Raises:
        UsageError: not one grid per record, or a compiled model.
        MismatchError: a record and its grid do not fit, or the grid is none of this family's.
    """
    if len(records) != len(grids) or not grids:
        raise UsageError(f"one grid per record is needed, got {len(records)} records, {len(grids)} grids")
    check_not_compiled(model)
    patches = {}
    for tower, rows in rows_of_towers(family, model, grids).items():
        for row in rows:
            _check_size(model, family, tower, records[row], grids[row])
        together = torch.cat([records[row] for row in rows])
        patches[tower] = together.to(model.device, dtype=model.dtype)
    with _shadowed(family.replayed(model, patches)):
        yield


def rows_of_towers(family: Family, model: nn.Module, grids: Sequence[Grid]) -> dict[str, list[int]]:
    """Encoder -> the records of its layers, encoders in the order in which the model runs them.

    Raises:
        MismatchError: a grid that this family's records do not have.
    """
    owners = [family.record_tower(grid) for grid in grids]
    found = {tower: [row for row, owner in enumerate(owners) if owner == tower] for tower in family.towers(model)}
    return {tower: rows for tower, rows in found.items() if rows}


def _visual(family: Family, model: nn.Module, tower: str, grid: Grid) -> VisualInput:
    """Tokens and units of one record; a family may count each of its tiles as a picture."""
    (visual,) = family.visual_inputs(model, family.stand_ins(model, tower, [grid]))
    return visual


def _check_size(model: nn.Module, family: Family, tower: str, record: Tensor, grid: Grid) -> None:
    wanted = sum(_visual(family, model, tower, grid).units) * family.unit_patches(model, tower)
    if record.ndim != 2 or len(record) != wanted:
        raise MismatchError(
            f"a cached record of shape {tuple(record.shape)} does not fit its grid {list(grid)}, which has {wanted} "
            "patch tokens: the features were made for another model; extract them again"
        )


@contextmanager
def _shadowed(forwards: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Give modules other forwards, as attributes of these instances, and take them off again."""
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        for module, forward in forwards.items():
            own = vars(module)
            before.append((own, {name: value for name, value in own.items() if name == "forward"}))
            own["forward"] = forward
        yield
    finally:
        for own, earlier in reversed(before):
            own.pop("forward", None)
            own.update(earlier)
