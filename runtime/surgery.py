"""All hooks of one pruned model: on, off, and what a call looks like from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from claspkit.profiles.errors import UsageError

from .families import Family
from .guards import check_not_compiled
from .plan import PrunePlan
from .prefill import Announcement, StageTrace
from .stages import DecoderStages
from .vision import VisionFusion

Planner = Callable[[Tensor, "Tensor | None"], PrunePlan]
"""From a batch's ``input_ids`` (b, S) and attention mask (b, S) to how it is pruned."""

_FEATURES = "mm_encoder_outputs"
"""Where ``generate`` hands over features it computed before the prompt's pass (transformers 5.18 and newer)."""


@dataclass(frozen=True)
class Needs:
    """What any plan of this pruner may ask for, so that hooks sit where they are needed and nowhere else.

    Attributes:
        stages: (after_layer, keep) of the schedule.
        layers: every vision layer.
        saliency: see :class:`PrunePlan`.
        positions: see :class:`PrunePlan`.
    """

    stages: tuple[tuple[int, int], ...]
    layers: tuple[int, ...]
    saliency: str
    positions: str


@dataclass(frozen=True)
class _Call:
    """A ``generate`` under way."""

    plan: PrunePlan
    rows: int
    length: int


class Surgery:
    """Hooks of one model; :meth:`attach` puts them on, :meth:`remove` takes every one off.

    Args:
        model: the model.
        family: its family.
        planner: asked once per prompt.
        needs: what the planner's plans have in common.
    """

    def __init__(self, model: nn.Module, family: Family, planner: Planner, needs: Needs) -> None:
        self._model, self._family, self._planner = model, family, planner
        self._stages = DecoderStages(needs.stages, needs.positions == "renumber")
        self._fusion = VisionFusion(model, family, needs.layers, needs.saliency == "cls")
        self._placeholders = family.placeholder_ids(model)
        self._calls: dict[int, _Call] = {}  # by thread
        self._handles: list[Any] = []
        self._shadowed: Any = None

    @property
    def last(self) -> tuple[StageTrace, ...]:
        """What every stage of the last prompt kept; empty before the first one."""
        return self._stages.last

    @property
    def attached(self) -> bool:
        """Whether the hooks are on."""
        return bool(self._handles)

    def attach(self) -> None:
        """Put the hooks on.

        Raises:
            UsageError: the model is pruned already, compiled, or has a part that cannot be pruned.
        """
        check_not_compiled(self._model)
        trunk = self._family.trunk(self._model)
        for hook in trunk._forward_pre_hooks.values():
            if isinstance(getattr(hook, "__self__", None), Surgery):
                raise UsageError("this model is being pruned already; leave that block, or call .remove(), first")
        try:
            self._handles += self._fusion.attach()
            self._handles.append(trunk.register_forward_pre_hook(self._enter, with_kwargs=True))
            self._handles.append(trunk.register_forward_hook(self._leave, always_call=True))
            self._handles += self._stages.attach(
                self._family.decoder(self._model), self._family.decoder_layers(self._model)
            )
            self._shadow_generate()
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take every hook off; the model is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._shadowed is not None:
            had_own, own = self._shadowed
            if had_own:
                vars(self._model)["generate"] = own
            else:
                vars(self._model).pop("generate", None)
            self._shadowed = None

    def expect(self, visual: Tensor, *, drafts: int = 0) -> None:
        """Announce a prompt given as ``inputs_embeds``: its visual tokens (B, S) bool, features fused already.

        Args:
            visual: where they are.
            drafts: trailing tokens that are an answer and no prompt: their attention says nothing about the picture.
        """
        plan = self._planner(visual, None)
        self._stages.announce(Announcement(plan, visual, drafts=drafts))

    # -- calls

    def _shadow_generate(self) -> None:
        """Hear of ``generate`` before it encodes the pictures: an attribute of this instance, taken off again.

        It encodes them before any module sees ``input_ids``, and only those tell whose picture is whose.
        """
        model: Any = self._model
        if not hasattr(model, "generate"):
            return
        original = model.generate
        self._shadowed = ("generate" in vars(model), vars(model).get("generate"))

        @wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
            if not isinstance(ids, Tensor) or ids.is_floating_point():
                return original(*args, **kwargs)
            self._begin(ids, kwargs)
            try:
                return original(*args, **kwargs)
            finally:
                self._calls.pop(get_ident(), None)
                self._fusion.end()

        vars(model)["generate"] = generate

    def _begin(self, ids: Tensor, inputs: Mapping[str, Any]) -> None:
        plan = self._planner(ids, inputs.get("attention_mask"))
        _check_rows(plan, ids.shape[0])
        self._calls[get_ident()] = _Call(plan, ids.shape[0], ids.shape[1])
        self._fusion.begin(plan, ids, inputs)

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pass of the whole model: if it brings pictures, say how they are to be pruned."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            return
        cache = kwargs.get("past_key_values")
        features = kwargs.get(_FEATURES) or {}
        encodes = bool(self._family.visual_inputs(self._model, kwargs))
        if cache is not None and int(cache.get_seq_length()) and not encodes and not features:
            return
        visual = torch.isin(ids, torch.tensor(self._placeholders, device=ids.device))
        if not bool(visual.any()):
            return
        call, repeats = self._calls.get(get_ident()), 1
        if call is None:
            plan = self._planner(ids, kwargs.get("attention_mask"))
            _check_rows(plan, ids.shape[0])
        else:
            plan, repeats = call.plan, ids.shape[0] // call.rows
            if ids.shape[1] < call.length and not cache_holds(cache):
                raise UsageError("the prompt comes in chunks; leave prefill_chunk_size out, pruning needs it whole")
        if encodes:
            rows = tuple(row for row in plan.rows for _ in range(repeats))
            self._fusion.begin(replace(plan, rows=rows), ids, kwargs)
        else:
            if call is None:
                self._fusion.end()
            self._fusion.check_fused(plan)
        pictures = self._fusion.pictures(ids.shape[0] if encodes else ids.shape[0] // repeats)
        self._stages.announce(
            Announcement(
                plan,
                visual,
                pictures=pictures[::repeats] if pictures and encodes else pictures,
                repeats=repeats,
                drafts=0 if call is None else max(0, ids.shape[1] - call.length),
                scores=self._fusion.scores,
            )
        )

    def _leave(self, *_: object) -> None:
        if get_ident() not in self._calls:
            self._fusion.end()


def cache_holds(cache: Any) -> bool:
    """Whether a cache has tokens."""
    return cache is not None and bool(cache.get_seq_length())


def _check_rows(plan: PrunePlan, rows: int) -> None:
    if len(plan.rows) != rows:
        raise UsageError(
            f"this batch has {rows} rows but {len(plan.rows)} intents were given; give one intent per prompt, or one "
            "for all (intents='counting')"
        )


def needs_of(plan: PrunePlan) -> Needs:
    """What one plan needs."""
    return Needs(plan.stages, plan.layers, plan.saliency, plan.positions)


