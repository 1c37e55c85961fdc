"""Layer fusion inside the model: hooks on the vision encoder's blocks and on the projector."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from claspkit.profiles.errors import UsageError

from .capture import watch
from .families import Family
from .families.base import VisualInput, repeated
from .fusion import fuse
from .plan import PrunePlan


def rows_of_pictures(tokens: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Row of every picture, from tokens per picture and visual tokens per row; pictures come in row order.

    Raises:
        UsageError: they do not fit together.
    """
    rows, left = [], list(counts)
    row = 0
    for index, size in enumerate(tokens):
        while row < len(left) and left[row] == 0:
            row += 1
        if row == len(left) or left[row] < size:
            raise UsageError(
                f"picture {index} of this batch has {size} visual tokens, but the prompts have places for "
                f"{list(counts)}: every picture needs its placeholders, in the order of the prompts"
            )
        left[row] -= size
        rows.append(row)
    if any(left):
        raise UsageError(
            f"the prompts have places for {list(counts)} visual tokens, the pictures given have {sum(tokens)}"
        )
    return rows


def owned_pictures(
    model: nn.Module, family: Family, ids: Tensor, inputs: Mapping[str, Any]
) -> list[tuple[VisualInput, list[int]]]:
    """The pictures of a model call, by kind, with the row of ``ids`` (b, S) that each of them belongs to.

    Raises:
        UsageError: pictures and placeholders do not fit together.
    """
    kinds = family.visual_inputs(model, inputs)
    return [(kind, rows_of_pictures(kind.tokens, (ids == kind.token_id).sum(dim=1).tolist())) for kind in kinds]


def pictures_per_row(owned: Sequence[tuple[VisualInput, list[int]]], rows: int) -> tuple[int, ...]:
    """How many pictures every row has."""
    owners = [row for _, owner in owned for row in owner]
    return tuple(owners.count(row) for row in range(rows))


class _Running(threading.local):
    """What is under way in this thread."""

    plan: PrunePlan | None = None
    ids: Tensor | None = None
    inputs: Mapping[str, Any] | None = None
    kinds: list[tuple[VisualInput, list[int]]] | None = None  # with the row of every picture
    turn: int = 0
    seen: dict[int, dict[int, Tensor]] | None = None  # id of the blocks -> layer -> hidden state
    rows: dict[str, Tensor] | None = None  # tower -> (U, P) [CLS] attention
    states: dict[str, Tensor]  # projections of the attention that scores patches, while it runs
    applied: bool = False


class VisionFusion:
    """Callbacks for the vision encoders' and the projector's hooks.

    Args:
        model: the model.
        family: its family.
        layers: every vision layer that some plan may ask for.
        scores: whether [CLS] attention is wanted as saliency.
    """

    def __init__(self, model: nn.Module, family: Family, layers: Sequence[int], scores: bool) -> None:
        self._model, self._family = model, family
        self._layers, self._scores = tuple(layers), scores
        self._default = family.facts(model).default_layer
        self._towers = family.towers(model)  # once: a family may put a list of blocks together
        self._run = _Running()

    def attach(self) -> list[Any]:
        """Register all hooks; the caller removes the handles."""
        handles: list[Any] = []
        try:
            for blocks in {id(blocks): blocks for blocks in self._towers.values()}.values():
                handles += watch(blocks, self._layers, self._keep(id(blocks)))
            if self._scores:
                for tower in self._towers:
                    handles += self._watch_cls(tower, self._family.cls_attention(self._model, tower))
            handles.append(self._family.projector(self._model).register_forward_pre_hook(self._fuse))
        except BaseException:
            for handle in handles:
                handle.remove()
            raise
        return handles

    def begin(self, plan: PrunePlan, ids: Tensor, inputs: Mapping[str, Any]) -> None:
        """Say whose pictures come next: ``ids`` (b, S) of the prompts, ``inputs`` of the model call."""
        run = self._run
        run.kinds = owned_pictures(self._model, self._family, ids, inputs)
        run.plan, run.ids, run.inputs = plan, ids, inputs
        run.turn, run.seen, run.rows, run.states, run.applied = 0, {}, {}, {}, False

    def suspend(self) -> dict[str, Any]:
        """Put the call of this thread aside; returns what :meth:`resume` takes."""
        state = dict(vars(self._run))
        vars(self._run).clear()
        return state

    def resume(self, state: dict[str, Any]) -> None:
        """Go on with a call that was put aside, forgetting the present one."""
        vars(self._run).clear()
        vars(self._run).update(state)

    def pictures(self, rows: int) -> tuple[int, ...] | None:
        """Pictures per row of the call under way; None where none is known."""
        return pictures_per_row(self._run.kinds, rows) if self._run.kinds else None

    def check_fused(self, plan: PrunePlan) -> None:
        """Refuse features that reached the decoder without passing the projector inside this call.

        Raises:
            UsageError: they are ready-made, and some row wants another fusion than the stock model's.
        """
        if not self._run.applied and not self._stock(plan):
            raise UsageError(
                "the visual features were given ready-made (mm_encoder_outputs), so the profile's layers cannot be "
                "fused; give the pictures themselves (pixel_values)"
            )

    def scores(self) -> Tensor | None:
        """[CLS] saliency (b, N) of the prompts' visual tokens in reading order; 0 where a row has fewer than N."""
        run, ids = self._run, self._run.ids
        if ids is None or not run.kinds or not run.rows:
            return None
        placed = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
        visual = torch.zeros_like(ids, dtype=torch.bool)
        for kind, _ in run.kinds:
            tokens = self._family.cls_tokens(self._model, run.rows[kind.tower], run.inputs or {}, kind.tower)
            mine = ids == kind.token_id
            placed = placed.masked_scatter(mine, torch.cat(tokens).to(placed))
            visual = visual | mine
        width = int(visual.sum(dim=1).max())
        order = torch.sort((~visual).to(torch.uint8), dim=1, stable=True).indices[:, :width]
        return placed.gather(1, order)

    # -- hooks

    def _keep(self, blocks: int) -> Callable[[int, Tensor], None]:
        def tell(layer: int, hidden: Tensor) -> None:
            if self._run.seen is not None:
                self._run.seen.setdefault(blocks, {})[layer] = hidden

        return tell

    def _fuse(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        run = self._run
        if run.plan is None or run.kinds is None or run.seen is None:
            raise UsageError(
                "the projector was called outside of generate() and forward(): inside a pruning block it would not be "
                "known whose picture this is"
            )
        if run.turn >= len(run.kinds):
            raise UsageError("the projector was called more often than the call has kinds of pictures")
        kind, owners = run.kinds[run.turn]
        run.turn, run.applied = run.turn + 1, True
        # Also where they are not needed: they are large. There are none where cached features stand in for the encoder.
        seen = run.seen.pop(id(self._towers[kind.tower]), {})
        if self._stock(run.plan):
            return None
        if not all(layer in seen for layer in run.plan.layers):
            raise UsageError(
                "the vision encoder was not run, so its layers cannot be fused here; cached features have to be fused "
                "before they are replayed, under a plan that has the stock model's own layer alone"
            )
        model, family, plan = self._model, self._family, run.plan
        layers = [family.patch_tokens(model, seen[layer], kind.tower) for layer in plan.layers]
        units = [owners[picture] for picture in repeated(kind.units)]
        if len(units) != layers[0].shape[0]:
            raise UsageError(
                f"the vision encoder put out {layers[0].shape[0]} tiles, frames or patches where the pictures have "
                f"{len(units)}"
            )
        weights = plan.weights()[: 1 if plan.fuses_alike() else None]
        weights = weights.expand(len(units), -1) if plan.fuses_alike() else weights[torch.tensor(units)]
        fused = fuse(torch.stack(layers), weights)
        return (family.projector_input(model, fused, kind.tower), *args[1:])

    def _stock(self, plan: PrunePlan) -> bool:
        """Whether every row reads the stock model's own layer alone: then the projector's input stays what it is."""
        return all(row.layers == (self._default,) for row in plan.rows)

    def _watch_cls(self, tower: str, attention: Any) -> list[Any]:
        def note(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: object, output: Tensor) -> None:
                if self._run.rows is not None:
                    self._run.states[name] = output

            return hook

        def score(_: nn.Module, __: object, ___: object) -> None:
            if self._run.rows is not None:
                states = self._run.states
                self._run.rows[tower] = cls_attention_row(states.pop("q"), states.pop("k"), attention.num_heads)

        handles = [attention.register_forward_hook(score)]
        for name in ("q", "k"):
            source = getattr(attention, f"{name}_norm", None) or getattr(attention, f"{name}_proj")
            handles.append(source.register_forward_hook(note(name)))
        return handles


def cls_attention_row(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Attention of [CLS], position 0, to all positions, mean over heads: two (U, P, H * C) -> (U, P) float32."""
    first = query[:, :1].float().unflatten(-1, (heads, -1)).transpose(1, 2)
    keys = key.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    logits = first @ keys.transpose(-1, -2) / first.shape[-1] ** 0.5
    return torch.softmax(logits, dim=-1).mean(dim=1)[:, 0]
