"""All hooks of one pruned model: on, off, and what a call looks like from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from claspkit.profiles.errors import UsageError

from .families import Family
from .guards import check_not_compiled, check_resumable
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
    """A ``generate`` under way: its prompts, before rows were repeated, and how they are pruned."""

    plan: PrunePlan
    ids: Tensor

    def repeats(self, ids: Tensor) -> int:
        """Rows of ``ids`` per prompt, 0 where these are other prompts."""
        rows, length = self.ids.shape
        if ids.shape[0] % rows or ids.shape[1] < length:
            return 0
        repeats = ids.shape[0] // rows
        same = torch.equal(ids[::repeats, :length], self.ids.to(ids.device))
        return repeats if same else 0


class _Running(threading.local):
    """What is under way in this thread."""

    call: _Call | None = None
    aside: dict[str, Any] | None = None  # the call's fusion, while a pass of other prompts runs inside it


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
        self._run = _Running()
        self._handles: list[Any] = []
        self._shadow: Any = None
        self._shadowed: Any = None

    @property
    def last(self) -> tuple[StageTrace, ...]:
        """What the stages of the last prompt that dropped something kept; empty where none did."""
        return self._stages.last

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
            self._handles.append(self._model.register_forward_pre_hook(_check_pass, with_kwargs=True))
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
        mine = vars(self._model).get("generate")
        if mine is not None and mine is self._shadow:  # somebody else's stays
            vars(self._model).pop("generate")
            vars(self._model).update(self._shadowed)
        self._shadow = None

    def expect(
        self,
        visual: Tensor,
        *,
        pictures: tuple[int, ...] | None = None,
        drafts: int = 0,
        prefix: int = 0,
        copies: int = 1,
        scores: Tensor | None = None,
    ) -> None:
        """Announce a prompt given as ``inputs_embeds``: its visual tokens (B, S) bool, features fused already.

        Args:
            visual: where they are.
            pictures: per row; runs of visual tokens are counted if not given.
            drafts: trailing tokens that are an answer and no prompt: their attention says nothing about the picture.
            prefix: tokens that the cache will hold before the prompt, the same for all rows.
            copies: how often the batch repeats its first prompts and their features, copy after copy.
            scores: (B, N) saliency of every visual token, for a plan with saliency "cls": no encoder runs here that
                could give it. N is that of the row with most; other rows are padded at their end.
        """
        plan = self._planner(visual, None)
        given = None if scores is None else lambda: scores
        self._stages.announce(
            Announcement(plan, visual, pictures, drafts=drafts, prefix=prefix, copies=copies, scores=given)
        )

    # -- calls

    def _shadow_generate(self) -> None:
        """Hear of ``generate`` before it encodes the pictures: an attribute of this instance, taken off again.

        It encodes them before any module sees ``input_ids``, and only those tell whose picture is whose.
        """
        model: Any = self._model
        if not hasattr(model, "generate"):
            return
        original = model.generate
        self._shadowed = {name: value for name, value in vars(model).items() if name == "generate"}

        @wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
            outer, fusion = self._run.call, self._fusion.suspend()
            try:
                check_resumable(kwargs.get("past_key_values"))
                self._run.call = None
                if isinstance(ids, Tensor) and not ids.is_floating_point() and self._sees(kwargs):
                    _check_whole(kwargs.get("generation_config") or model.generation_config, kwargs)
                    self._begin(ids, kwargs)
                return original(*args, **kwargs)
            finally:
                self._run.call = outer
                self._fusion.resume(fusion)

        self._shadow = vars(model)["generate"] = generate

    def _sees(self, inputs: Mapping[str, Any]) -> bool:
        """Whether a call brings pictures, or features of some."""
        return bool(inputs.get(_FEATURES)) or bool(self._family.visual_inputs(self._model, inputs))

    def _begin(self, ids: Tensor, inputs: Mapping[str, Any]) -> None:
        plan = self._planner(ids, inputs.get("attention_mask"))
        _check_rows(plan, ids.shape[0])
        self._fusion.begin(plan, ids, inputs)
        self._run.call = _Call(plan, ids)

    def _enter(self, trunk: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """A pass of the whole model: if it brings pictures, say how they are to be pruned."""
        kwargs = {**dict(zip(signature(trunk.forward).parameters, args, strict=False)), **given} if args else given
        run, ids = self._run, kwargs.get("input_ids")
        run.aside = None
        if ids is None:  # whoever gives embeddings has announced them
            return
        self._stages.announce(None)
        encodes = bool(self._family.visual_inputs(self._model, kwargs))
        if not encodes and not kwargs.get(_FEATURES):
            return
        visual = torch.isin(ids, torch.tensor(self._placeholders, device=ids.device))
        if not bool(visual.any()):
            return
        call, repeats = run.call, run.call.repeats(ids) if run.call is not None else 0
        if call is None or not repeats:
            run.aside = self._fusion.suspend()
            call, repeats = _Call(self._planner(ids, kwargs.get("attention_mask")), ids), 1
            _check_rows(call.plan, ids.shape[0])
        plan = call.plan
        if encodes:
            rows = tuple(row for row in plan.rows for _ in range(repeats))
            self._fusion.begin(replace(plan, rows=rows), ids, kwargs)
        else:
            self._fusion.check_fused(plan)
        pictures = self._fusion.pictures(ids.shape[0] if encodes else len(plan.rows))
        if pictures is not None and encodes:
            if repeats > 1 and max(pictures) > 1:
                raise UsageError(
                    "this release of transformers mixes up the pictures of repeated prompts that have several (beams, "
                    "num_return_sequences); generate one sequence per prompt, or use a newer release"
                )
            pictures = pictures[::repeats]
        self._stages.announce(
            Announcement(
                plan,
                visual,
                pictures=pictures,
                repeats=repeats,
                drafts=ids.shape[1] - call.ids.shape[1],
                scores=self._fusion.scores,
            )
        )

    def _leave(self, *_: object) -> None:
        self._stages.announce(None)
        if self._run.aside is not None:
            self._fusion.resume(self._run.aside)
            self._run.aside = None


def _check_whole(config: Any, kwargs: Mapping[str, Any]) -> None:
    if kwargs.get("prefill_chunk_size", getattr(config, "prefill_chunk_size", None)) is not None:
        raise UsageError("the prompt would come in chunks; leave prefill_chunk_size out, pruning needs it whole")


def _check_pass(model: Any, _: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what a shorter sequence of logits, or a layer run twice, would make wrong."""
    if kwargs.get("labels") is not None:
        raise UsageError(
            "labels were given, but the logits of a pruned prompt have fewer places than its tokens; compute the loss "
            "on the last places yourself"
        )
    if model.training and getattr(model, "is_gradient_checkpointing", False):
        raise UsageError("gradient checkpointing runs layers twice, which pruning cannot follow; call model.eval()")


def _check_rows(plan: PrunePlan, rows: int) -> None:
    if len(plan.rows) != rows:
        raise UsageError(
            f"this batch has {rows} rows but {len(plan.rows)} intents were given; give one intent per prompt, or one "
            "for all (intents='counting')"
        )


def needs_of(plan: PrunePlan) -> Needs:
    """What one plan needs."""
    return Needs(plan.stages, plan.layers, plan.saliency, plan.positions)


