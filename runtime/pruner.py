"""``with prune(model, profile): model.generate(...)`` - hooks on, hooks off, nothing left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from claspkit.profiles.errors import UsageError
from claspkit.profiles.files import check_model
from claspkit.profiles.profile import Profile
from claspkit.router.route import make_router

from .families import Family, find_family
from .fusion import fuse
from .models import describe
from .plan import PrunePlan
from .stages import DecoderStages, StageTrace


class Pruned:
    """What a person may ask a pruned model.

    Attributes:
        intents: the intent of every row of the batch.
    """

    def __init__(self, intents: Sequence[str], stages: DecoderStages) -> None:
        self.intents = tuple(intents)
        self._stages = stages

    @property
    def trace(self) -> list[StageTrace]:
        """What every stage of the last prefill kept."""
        return self._stages.trace


@contextmanager
def prune(
    model: nn.Module,
    profile: Profile,
    *,
    intents: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    folder: Path | None = None,
) -> Iterator[Pruned]:
    """Prune ``model`` by ``profile`` inside the block; afterwards the model is as it was.

    Args:
        model: a transformers vision-language model of a supported family.
        profile: the calibrated profile; it must have been made for this model.
        intents: one intent id per row of the batches run inside the block.
        prompts: the users' texts instead, one per row; the profile's router gives each its intent.
        folder: the profile's folder, where its router finds its files.

    Yields:
        :class:`Pruned`, with the intents used and, after a forward, what every stage kept.

    Raises:
        MismatchError: the profile was made for another model; the text lists the differing fields.
        UsageError: not exactly one of ``intents`` and ``prompts`` was given, or an unknown intent.
    """
    if (intents is None) == (prompts is None):
        raise UsageError("prune() needs either intents=[...] (one per row) or prompts=[...] (routed by the profile)")
    family = find_family(model)
    check_model(profile, describe(model, family, profile.model.id, profile.model.revision))
    if intents is None:
        assert prompts is not None
        intents = [label.intent for label in make_router(profile.router, folder)(prompts)]
    with apply_plan(model, family, PrunePlan.from_profile(profile, intents)) as stages:
        yield Pruned(intents, stages)


@contextmanager
def apply_plan(model: nn.Module, family: Family, plan: PrunePlan) -> Iterator[DecoderStages]:
    """Fuse and prune by a plan inside the block: the profile-free core of :func:`prune`.

    Batches enter as the model's own ``input_ids`` and ``pixel_values``. A caller that has fused features already
    gives ``inputs_embeds`` instead, after announcing the visual tokens with ``stages.expect(mask)``.
    """
    stages = DecoderStages(plan, family.decoder_layers(model))
    image_token = family.image_token_id(model)

    def find_visual(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is not None and bool((ids == image_token).any()):
            stages.expect(ids == image_token)

    with family.capture(model, plan.layers) as seen:

        def fuse_layers(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            pictures = args[0].shape[0]
            if pictures != len(plan.rows):
                raise UsageError(
                    f"{pictures} pictures for {len(plan.rows)} prompts: a pruned batch takes one picture per prompt"
                )
            layers = torch.stack([family.patch_tokens(model, seen[layer]) for layer in plan.layers])
            return (fuse(layers, plan.weights()),)

        handles = [
            family.trunk(model).register_forward_pre_hook(find_visual, with_kwargs=True),
            family.projector(model).register_forward_pre_hook(fuse_layers),
            *stages.attach(family.decoder(model)),
        ]
        try:
            yield stages
        finally:
            for handle in handles:
                handle.remove()
