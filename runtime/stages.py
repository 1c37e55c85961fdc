"""Pruning inside the decoder: hooks on decoder layers that shrink the sequence between them.

Prefill: at the attention of a stage's layer the saliency of the visual tokens is read from that layer's own
queries and keys, the stage selects, and the next layer's hook gathers the surviving positions. Every later layer
gets hidden states, rotary embeddings, position ids and mask of the survivors only. Decode: the mask is built for
the full length (cache lengths are read from layer 0, which is never pruned), so its key columns are gathered again
for every layer in every step. Kept tokens keep their original position ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from claspkit.profiles.errors import BadDataError, UsageError

from .plan import PrunePlan
from .saliency import mean_attention, rotate
from .selection import Selection, cosine_gram, select


@dataclass(frozen=True)
class StageTrace:
    """What one stage kept, for people: indices are into the picture's N visual tokens, raster order.

    Attributes:
        after_layer: the decoder layer whose output was pruned.
        kept: (B, R) int64, ascending.
        pivot: (B, R) bool, True for attention pivots.
    """

    after_layer: int
    kept: Tensor
    pivot: Tensor


@dataclass
class _Prefill:
    """State of the current generation, from one prefill to the next."""

    length: int
    visual: Tensor  # (B, N) positions of all visual tokens in the sequence
    reference: Tensor  # (B, S) bool, rows whose attention counts as saliency
    real: Tensor  # (B, S) bool, False for padding
    gram: Tensor  # (B, n, n) cosines of the visual tokens alive
    alive: Tensor  # (B, n) which of the N visual tokens are alive
    kept: dict[int, Tensor] = field(default_factory=dict)  # after_layer -> (B, S') surviving positions
    trace: list[StageTrace] = field(default_factory=list)


class DecoderStages:
    """Callbacks for the decoder's hooks; :meth:`attach` says which goes where."""

    def __init__(self, plan: PrunePlan, layers: nn.ModuleList) -> None:
        self._plan = plan
        self._layers = layers
        self._keep = dict(plan.stages)
        self._mask: Tensor | None = None
        self._now: _Prefill | None = None
        self._prefilling = False

    @property
    def trace(self) -> list[StageTrace]:
        """What every stage of the last prefill kept; empty before the first one."""
        return list(self._now.trace) if self._now else []

    def expect(self, visual_mask: Tensor) -> None:
        """Announce where the next prefill has its visual tokens: (B, S) bool, equally many in every row."""
        rows, counts = visual_mask.shape[0], visual_mask.sum(dim=1)
        if rows != len(self._plan.rows):
            raise UsageError(
                f"this batch has {rows} rows but {len(self._plan.rows)} intents were given; give one intent per "
                "prompt. Beam search and num_return_sequences > 1 repeat rows and are not supported."
            )
        if int(counts.min()) != int(counts.max()):
            raise UsageError(
                "every prompt of a pruned batch needs the same number of visual tokens, got "
                f"{sorted(set(counts.tolist()))}; run prompts with other picture counts in a batch of their own"
            )
        self._mask = visual_mask

    def attach(self, decoder: nn.Module) -> list[Any]:
        """Register all hooks; the caller removes the handles. Without stages there is nothing to hook."""
        if not self._keep:
            return []
        handles = [decoder.register_forward_pre_hook(self._enter, with_kwargs=True)]
        for index, layer in enumerate(self._layers):
            if index in self._keep:
                attention = cast(nn.Module, layer.self_attn)
                handles.append(attention.register_forward_pre_hook(self._observe(index), with_kwargs=True))
            if index > min(self._keep):
                handles.append(layer.register_forward_pre_hook(self._shrink(index), with_kwargs=True))
        return handles

    def _enter(self, _: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell a prefill from a decode step, and take the aligned features of a prefill."""
        cache = kwargs.get("past_key_values")
        if getattr(cache, "is_compileable", False):
            raise UsageError(
                "a static cache has one length for all layers; pruning needs the dynamic cache (the default)"
            )
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask, self._mask = self._mask, None
        self._prefilling = past == 0
        if past:
            if mask is not None:
                raise UsageError("a new picture in a conversation that is already cached is not supported; start anew")
            return
        self._now = None
        if mask is None or not bool(mask.any()):
            return
        embeds = kwargs["inputs_embeds"]
        rows, length = mask.shape
        mask = mask.to(embeds.device)
        visual = mask.nonzero()[:, 1].view(rows, -1)
        features = embeds.gather(1, visual[:, :, None].expand(-1, -1, embeds.shape[-1]))
        if not bool(torch.isfinite(features).all()):
            raise BadDataError(
                "the visual features of this batch hold NaN or infinity; nothing can be selected from them"
            )
        attention = kwargs.get("attention_mask")
        if attention is not None and attention.shape != mask.shape:
            raise UsageError(
                f"pruning needs a two-dimensional attention mask {tuple(mask.shape)}, got {tuple(attention.shape)}"
            )
        real = attention.bool() if attention is not None else torch.ones_like(mask)
        places = torch.arange(length, device=embeds.device)
        after = (places > visual[:, -1:]) & real
        if not bool(after.any(dim=1).all()):
            raise UsageError("every prompt needs text after its picture: its attention rows say what matters")
        if self._plan.saliency == "last":
            last = (places * after).amax(dim=1, keepdim=True)
            after = places == last
        self._now = _Prefill(
            length=length,
            visual=visual,
            reference=after,
            real=real,
            gram=cosine_gram(features),
            alive=torch.arange(visual.shape[1], device=embeds.device).expand_as(visual),
        )

    def _observe(self, index: int) -> Callable[..., None]:
        """Hook for the attention of stage layer ``index``: in prefill, select what the next layer will see."""

        def hook(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            now = self._now
            if now is None or not self._prefilling:
                return
            hidden = args[0] if args else kwargs["hidden_states"]
            positions = self._positions(now, index)
            saliency = self._saliency(attention, hidden, kwargs["position_embeddings"], positions, now)
            self._select(now, index, positions, saliency)

        return hook

    def _saliency(
        self, attention: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], positions: Tensor, now: _Prefill
    ) -> Tensor:
        """Saliency (B, n) of the visual tokens alive, from the layer's own q and k."""
        reference = now.reference.gather(1, positions)
        rows = int(reference.shape[1] - reference.int().argmax(dim=1).min())  # the tail that holds every reference row
        tail = slice(hidden.shape[1] - rows, None)
        width = attention.head_dim
        query = attention.q_proj(hidden[:, tail]).unflatten(-1, (-1, width)).transpose(1, 2)
        key = attention.k_proj(hidden).unflatten(-1, (-1, width)).transpose(1, 2)
        cos, sin = rotary
        query, key = rotate(query, cos[:, tail], sin[:, tail]), rotate(key, cos, sin)
        visible = (positions[:, None, :] <= positions[:, tail, None]) & now.real.gather(1, positions)[:, None, :]
        scores = mean_attention(query, key, visible, reference[:, tail], attention.scaling)
        return scores.gather(1, _places_of(positions, now.visual.gather(1, now.alive)))

    def _select(self, now: _Prefill, index: int, positions: Tensor, saliency: Tensor) -> None:
        if not bool(torch.isfinite(saliency).all()):
            raise BadDataError(
                f"the attention of decoder layer {index} holds NaN or infinity; nothing can be selected from it"
            )
        plan, keep = self._plan, self._keep[index]
        chosen: Selection = select(
            saliency,
            now.gram,
            keep,
            plan.pivots(keep),
            iterations=plan.iterations,
            tie_tolerance=plan.tie_tolerance,
        )
        kept = chosen.kept
        size = kept.shape[1]
        survivors = now.alive.gather(1, kept)
        dropped = torch.ones_like(now.alive, dtype=torch.bool).scatter(1, kept, False)
        gone = torch.zeros_like(now.real).scatter(1, now.visual.gather(1, now.alive), dropped)
        stays = ~gone.gather(1, positions)
        order = torch.sort((~stays).to(torch.uint8), dim=1, stable=True).indices
        now.kept[index] = positions.gather(1, order[:, : positions.shape[1] - dropped.shape[1] + size])
        now.gram = now.gram.gather(1, kept[:, :, None].expand(-1, -1, now.gram.shape[2]))
        now.gram = now.gram.gather(2, kept[:, None, :].expand(-1, size, -1))
        now.alive = survivors
        now.trace.append(StageTrace(index, survivors, chosen.pivot))

    def _shrink(self, index: int) -> Callable[..., Any]:
        """Hook for decoder layer ``index``, above the first stage: give it the survivors only."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            now = self._now
            if now is None:
                return None
            positions = self._positions(now, index)
            hidden = args[0] if args else kwargs["hidden_states"]
            mask = kwargs.get("attention_mask")
            if not self._prefilling:
                if mask is not None:
                    new = torch.arange(now.length, mask.shape[-1], device=mask.device)
                    columns = torch.cat((positions, new.expand(positions.shape[0], -1)), dim=1)
                    kwargs["attention_mask"] = _columns(mask, columns)
                return args, kwargs
            if index - 1 in self._keep:
                before = self._positions(now, index - 1)
                places = _places_of(before, positions)
                hidden = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))
            kwargs["position_embeddings"] = tuple(_rotary(part, positions) for part in kwargs["position_embeddings"])
            ids = kwargs.get("position_ids")
            if ids is not None:
                kwargs["position_ids"] = ids.expand(positions.shape[0], -1).gather(1, positions)
            if mask is not None:
                mask = mask.expand(positions.shape[0], -1, -1, -1)
                mask = mask.gather(2, positions[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
                kwargs["attention_mask"] = _columns(mask, positions)
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    @staticmethod
    def _positions(now: _Prefill, index: int) -> Tensor:
        """Positions (B, S') of the prefill's tokens that decoder layer ``index`` sees."""
        earlier = [layer for layer in now.kept if layer < index]
        if earlier:
            return now.kept[max(earlier)]
        return torch.arange(now.length, device=now.visual.device).expand(now.visual.shape[0], -1)


def _places_of(positions: Tensor, wanted: Tensor) -> Tensor:
    """Index of every wanted position in its ascending row: (B, S), (B, n) -> (B, n)."""
    return torch.searchsorted(positions.contiguous(), wanted.contiguous())


def _rotary(part: Tensor, positions: Tensor) -> Tensor:
    """Gather rotary cos or sin (B or 1, S, C) at positions (B, S') -> (B, S', C)."""
    part = part.expand(positions.shape[0], -1, -1)
    return part.gather(1, positions[:, :, None].expand(-1, -1, part.shape[-1]))


def _columns(mask: Tensor, columns: Tensor) -> Tensor:
    """Gather key columns of a 4-D mask (B or 1, h, Q, K) at (B, k) -> (B, h, Q, k)."""
    mask = mask.expand(columns.shape[0], -1, -1, -1)
    return mask.gather(3, columns[:, None, None, :].expand(-1, mask.shape[1], mask.shape[2], -1))
