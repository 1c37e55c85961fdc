"""Pruning inside the decoder: hooks on decoder layers that shrink the sequence between them.

Prompt pass: the projections of a stage's layer give the saliency of the visual tokens, the stage selects, and the next
layer's hook takes the survivors. Every later layer gets hidden states, rotary embeddings and mask of the survivors
only. Later steps: the model makes its mask for the full length (it reads layer 0's cache, which no stage inside the
decoder shortens), so the mask is cut again for every segment of layers in every step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from claspkit.profiles.budget import BEFORE_DECODER
from claspkit.profiles.errors import UsageError

from .gram import repeat_rows
from .guards import check_attention, check_cache, check_continued, check_decoder, remember
from .prefill import Announcement, Prefill, StageTrace, shortened_inputs
from .saliency import merge_axes, reference_attention
from .segments import cut_later_mask, cut_later_padding, cut_prompt_mask, cut_rotary


class _Running(threading.local):
    """What is under way in this thread."""

    announced: Announcement | None = None
    now: Prefill | None = None
    prefilling: bool = False
    seen: int = 0  # tokens that layer 0 had cached before this step
    new: int = 0  # tokens of this step
    masks: dict[int, Tensor | None]  # of this step, by the segment's first layer
    turns: dict[int, tuple[Tensor, ...]]  # rotary embeddings, the same
    waiting: tuple[int, Tensor] | None = None  # a stage and its saliency, until its layer's output is there
    query: Tensor | None = None
    key: Tensor | None = None
    position_ids: Tensor | None = None


_Source = tuple[Any, tuple[Tensor, ...], Tensor | None]
"""What saliency is read from: a layer's attention, its rotary embeddings, the keys of a cached prefix."""


class DecoderStages:
    """Callbacks for the decoder's hooks; :meth:`attach` says which goes where."""

    def __init__(self, stages: Sequence[tuple[int, int]], renumber: bool) -> None:
        self._stages = tuple(stages)
        self._layers = [layer for layer, _ in stages]
        self._renumber = renumber
        self._run = _Running()
        self._decoder: Any = None
        self.last: tuple[StageTrace, ...] = ()

    def announce(self, announcement: Announcement | None) -> None:
        """Say what the next prompt of this thread is to be pruned like; None for not at all."""
        self._run.announced = announcement if self._layers else None

    def attach(self, decoder: nn.Module, layers: nn.ModuleList) -> list[Any]:
        """Register all hooks; the caller removes the handles. Without stages there is nothing to hook."""
        if not self._layers:
            return []
        check_decoder(decoder, layers, self._layers)
        self._decoder = decoder
        handles = [
            decoder.register_forward_pre_hook(self._enter, with_kwargs=True),
            decoder.register_forward_hook(self._leave, with_kwargs=True, always_call=True),
        ]
        if self._renumber:
            rotary = cast(nn.Module, decoder.rotary_emb)
            handles.append(rotary.register_forward_pre_hook(self._note_positions, with_kwargs=True))
        first = min((layer for layer in self._layers if layer != BEFORE_DECODER), default=len(layers))
        for index, layer in enumerate(layers):
            attention = cast(Any, layer).self_attn
            if index in self._layers:
                for name in ("q", "k"):
                    source = getattr(attention, f"{name}_norm", None) or getattr(attention, f"{name}_proj")
                    handles.append(source.register_forward_hook(self._note(name == "q")))
                handles.append(attention.register_forward_hook(self._observe(index), with_kwargs=True))
            if index > first:
                handles.append(layer.register_forward_pre_hook(self._shrink(index), with_kwargs=True))
        return handles

    # -- the decoder as a whole

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Tell a prompt from a later step; run the stage before the decoder."""
        run = self._run
        cache: Any = kwargs.get("past_key_values")
        announced, run.announced = run.announced, None
        past = int(cache.get_seq_length()) if cache is not None else 0
        prompt = past == (0 if announced is None else announced.prefix)
        run.now, run.prefilling, run.masks, run.turns, run.position_ids = None, prompt, {}, {}, None
        run.waiting = None
        if prompt:
            self.last = ()
            if announced is None:
                return None
            check_cache(cache)
            check_attention(self._decoder)
            run.now = now = Prefill.begin(announced, kwargs["inputs_embeds"], kwargs.get("attention_mask"))
            if self._layers[0] != BEFORE_DECODER or not now.will_drop(0):
                return None
            self._select(now, 0, None)
            return args, shortened_inputs(now, kwargs, self._renumber)
        if announced is not None:
            raise UsageError("a new picture in a conversation that is already cached is not supported; start anew")
        embeds = kwargs["inputs_embeds"]
        run.now = check_continued(cache, self._stages, embeds.shape[0])
        if run.now is None:
            return None
        run.seen, run.new = past, embeds.shape[1]
        return (args, self._lengthen(run.now, kwargs)) if run.now.entrance is not None else None

    def _lengthen(self, now: Prefill, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A later step behind a stage before the decoder: callers count the whole prompt, the decoder its survivors."""
        run, entrance, embeds = self._run, now.entrance, kwargs["inputs_embeds"]
        assert entrance is not None
        seen = run.seen + now.prompt - entrance.size
        ids = kwargs.get("position_ids")
        if ids is None:
            ids = torch.arange(seen, seen + run.new, device=embeds.device)[None]
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.shape[-1] != seen + run.new:
            raise UsageError(
                f"the attention mask is for {mask.shape[-1]} tokens, but the whole prompt and its answer have "
                f"{seen + run.new}"
            )
        return {
            **kwargs,
            "attention_mask": cut_later_padding(mask, entrance, now.prompt, seen, run.new),
            "position_ids": ids - entrance.dropped if self._renumber else ids,
        }

    def _leave(self, _: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Remember a prompt for its cache's later steps; refuse a selection made from NaN."""
        run = self._run
        now, run.now = run.now, None
        run.query = run.key = run.position_ids = run.waiting = None
        run.masks, run.turns = {}, {}
        if now is None or not run.prefilling or output is None:
            return
        now.similar = None
        self.last = tuple(now.trace)
        now.check_finite()
        cache = kwargs.get("past_key_values")
        cache = cache if cache is not None else getattr(output, "past_key_values", None)
        if cache is not None:
            check_cache(cache)
            remember(cache, now)

    # -- a stage

    def _note(self, is_query: bool) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            run = self._run
            if run.prefilling and run.now is not None:
                if is_query:
                    run.query = output
                else:
                    run.key = output

        return hook

    def _note_positions(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("position_ids", args[1] if len(args) > 1 else None)
        if ids is not None and ids.ndim == 3:
            raise UsageError("positions='renumber' is not defined for rotary positions of several axes; use 'keep'")
        if self._run.position_ids is None:  # our own turning of a segment comes through here too
            self._run.position_ids = ids

    def _observe(self, layer: int) -> Callable[..., None]:
        """Hook for the attention of stage layer ``layer``: on a prompt, select what the next layer will see."""
        stage = self._layers.index(layer)

        def hook(attention: nn.Module, _: tuple[Any, ...], kwargs: dict[str, Any], __: object) -> None:
            run = self._run
            if run.now is not None and run.prefilling and run.now.will_drop(stage):
                before = _cached(run.now, layer, kwargs)
                self._select(run.now, stage, (attention, kwargs["position_embeddings"], before))
                run.query = run.key = None

        return hook

    @torch.no_grad()
    def _select(self, now: Prefill, stage: int, source: _Source | None) -> None:
        if now.plan.saliency == "cls":
            assert now.scores is not None
            saliency = now.scores.gather(1, now.names)
        else:
            assert source is not None
            saliency = now.at_visual(self._attention(now, *source))
        if now.plan.features == "hidden" and self._layers[stage] != BEFORE_DECODER:
            self._run.waiting = stage, saliency
        else:
            now.drop(stage, self._layers[stage], saliency)

    @torch.no_grad()
    def _settle(self, now: Prefill, hidden: Tensor) -> None:
        """Run the stage that waited for the hidden states (B, s, D) its layer put out."""
        if self._run.waiting is not None:
            (stage, saliency), self._run.waiting = self._run.waiting, None
            now.drop(stage, self._layers[stage], saliency, hidden)

    def _attention(self, now: Prefill, attention: Any, rotary: tuple[Tensor, ...], before: Tensor | None) -> Tensor:
        """Saliency (b, s) of every place of the current segment, from the stage layer's own q and k."""
        run, every = self._run, now.repeats
        assert run.query is not None
        assert run.key is not None
        sections = (getattr(attention.config, "rope_parameters", None) or {}).get("mrope_section", ())
        merged = [merge_axes(part, sections) for part in rotary]
        query, key = run.query[::every], run.key[::every]
        rows = len(query)
        found = reference_attention(
            query,
            key,
            rotary=tuple(part[::every] if part.shape[0] > 1 else part for part in merged),
            reference=now.layout.reference[:rows].to(key.device),
            real=now.current.real[::every][:rows],
            width=attention.head_dim,
            scaling=attention.scaling,
            before=None if before is None else before[::every],
        )
        # A layer that was run once for several copies of the prompts (shared_start) has a row for each prompt alone.
        return repeat_rows(found, len(now.layout.reference) // rows)

    # -- the layers between stages

    def _shrink(self, layer: int) -> Callable[..., Any]:
        """Hook for a decoder layer above the first stage: give it the survivors only."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            run = self._run
            now = run.now
            if now is None:
                return None
            hidden = args[0] if args else kwargs["hidden_states"]
            self._settle(now, hidden)
            first = now.first_layer(layer)
            if first == 0:
                return None
            segment, mask = now.segments[first], kwargs.get("attention_mask")
            if not run.prefilling and mask is None and not segment.hides and not self._renumber:
                return None
            changed = dict(kwargs)
            changed["attention_mask"] = self._mask(now, first, mask, hidden.dtype)
            changed["position_embeddings"] = self._rotary(now, first, kwargs["position_embeddings"], hidden)
            # Rotary embeddings are given; flash kernels would read gaps in position ids as packed sequences.
            changed["position_ids"] = None
            if run.prefilling and layer == first:
                hidden = hidden.gather(1, segment.order[:, :, None].expand(-1, -1, hidden.shape[-1]))
            if args:
                return (hidden, *args[1:]), changed
            return args, {**changed, "hidden_states": hidden}

        return hook

    def _mask(self, now: Prefill, first: int, mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """The segment's mask, cut once per step and segment."""
        run, segment = self._run, now.segments[first]
        if first not in run.masks:
            attention: str = self._decoder.config._attn_implementation
            run.masks[first] = (
                cut_prompt_mask(mask, segment, attention, dtype)
                if run.prefilling
                else cut_later_mask(mask, segment, now.segments[0].size, run.seen, run.new, attention, dtype)
            )
        return run.masks[first]

    def _rotary(self, now: Prefill, first: int, given: tuple[Tensor, ...], hidden: Tensor) -> tuple[Tensor, ...]:
        """The segment's rotary embeddings, cut once per step and segment."""
        run, segment = self._run, now.segments[first]
        if first not in run.turns:
            if self._renumber:
                assert run.position_ids is not None
                ids = run.position_ids.expand(hidden.shape[0], -1)
                ids = ids.gather(1, segment.positions) - segment.shift if run.prefilling else ids - segment.dropped
                run.turns[first] = tuple(self._decoder.rotary_emb(hidden, position_ids=ids))
            elif run.prefilling:
                run.turns[first] = tuple(cut_rotary(part, segment) for part in given)
            else:
                run.turns[first] = given
        return run.turns[first]


def _cached(now: Prefill, layer: int, kwargs: dict[str, Any]) -> Tensor | None:
    """Keys (rows, G, p, C) of the prefix that a layer's cache holds; None where there is none."""
    prefix = now.segments[0].prefix
    if not prefix:
        return None
    keys: Tensor = kwargs["past_key_values"].layers[layer].keys
    return keys[:, :, :prefix]
