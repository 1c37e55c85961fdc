"""``with prune(model, profile): model.generate(...)`` - hooks on, hooks off, nothing left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from claspkit.profiles.errors import UsageError

from .families import Family, find_family
from .plan import PrunePlan
from .prefill import StageTrace
from .prompts import PromptReader
from .surgery import Needs, Surgery, needs_of

if TYPE_CHECKING:
    from claspkit.profiles.profile import Profile
    from claspkit.router.route import Router


class Pruned:
    """A model under a profile: a context manager, or for good with :meth:`attach` until :meth:`remove`.

    Attributes:
        intents: the intent of every prompt of the last batch, or of the next one where they were given. Like
            :attr:`last`, what the last thread to run left there.
    """

    def __init__(
        self,
        model: nn.Module,
        profile: Profile,
        *,
        intents: Sequence[str] | str | None,
        prompts: Sequence[str] | None,
        processor: Any,
        folder: Path | None,
    ) -> None:
        from claspkit.profiles.files import check_model

        from .models import describe

        family = find_family(model)
        check_model(profile, describe(model, family, profile.model.id, profile.model.revision))
        self._profile, self._folder = profile, folder
        self._made: Router | None = None
        if intents is None:
            self._route()  # what it lacks is said now, not in the forward
        self._reader = PromptReader(processor, family.placeholder_ids(model)) if processor is not None else None
        self._fixed: tuple[str, ...] | str | None = None
        self.intents: tuple[str, ...] = ()
        if [intents, prompts, processor].count(None) != 2:
            raise UsageError(
                "prune() needs one of intents=[...] (one per prompt, or one for all), prompts=[...] (routed by the "
                "profile) and processor=... (the prompts are read from every batch's tokens)"
            )
        if processor is None:
            self.use(intents=intents, prompts=prompts)
        layers = tuple(sorted({layer for spec in profile.classes for layer in spec.layers}))
        whole = PrunePlan.from_profile(profile, ())
        self._surgery = Surgery(
            model, family, self._plan, Needs(whole.stages, layers, whole.saliency, whole.positions)
        )

    def use(self, *, intents: Sequence[str] | str | None = None, prompts: Sequence[str] | None = None) -> None:
        """Say what the next batches ask for: ``intents``, one per prompt or one for all, or ``prompts`` to route.

        With neither, a pruner that was given a processor reads its batches' tokens again.

        Raises:
            UsageError: both, neither without a processor, none at all, or an unknown intent.
        """
        if intents is None and prompts is None and self._reader is not None:
            self._fixed = None
            return
        if (intents is None) == (prompts is None):
            raise UsageError("give either intents=[...] or prompts=[...]")
        if isinstance(prompts, str):
            raise UsageError("prompts takes a list, one text per prompt of the batch: prompts=[question]")
        if prompts is not None:
            intents = [label.intent for label in self._route()(prompts)]
        if not intents:
            raise UsageError("no intents were given; one per prompt of the batch is needed, or one for all")
        self._fixed = intents if isinstance(intents, str) else tuple(intents)
        self.intents = (intents,) if isinstance(intents, str) else tuple(intents)
        PrunePlan.from_profile(self._profile, self.intents)  # an unknown intent is refused here, not in the forward

    def attach(self) -> Self:
        """Prune from now on, until :meth:`remove`."""
        self._surgery.attach()
        return self

    def remove(self) -> None:
        """Take every hook off; the model is as it was."""
        self._surgery.remove()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def last(self) -> tuple[StageTrace, ...]:
        """What the stages of the last prompt that dropped something kept, and why; empty where none did."""
        return self._surgery.last

    def _route(self) -> Router:
        """The profile's router, made when it is first needed: whoever names intents needs none of its files."""
        from claspkit.router.route import make_router

        if self._made is None:
            self._made = make_router(self._profile.router, self._folder, self._profile.read_taxonomy())
        return self._made

    def _plan(self, ids: Tensor, attention: Tensor | None) -> PrunePlan:
        if self._fixed is None:
            assert self._reader is not None
            intents = tuple(label.intent for label in self._route()(self._reader.read(ids, attention)))
        else:
            intents = (self._fixed,) * ids.shape[0] if isinstance(self._fixed, str) else self._fixed
        self.intents = intents  # for people; another thread may have written its own by now
        return PrunePlan.from_profile(self._profile, intents)


def prune(
    model: nn.Module,
    profile: Profile,
    *,
    intents: Sequence[str] | str | None = None,
    prompts: Sequence[str] | None = None,
    processor: Any = None,
    folder: Path | None = None,
) -> Pruned:
    """Prune ``model`` by ``profile``: inside ``with prune(...) as pruned:``, or from ``prune(...).attach()`` on.

    Args:
        model: a transformers vision-language model of a supported family.
        profile: the calibrated profile; it must have been made for this model.
        intents: one intent id per prompt of the batches to come, or one for all.
        prompts: the users' texts instead, one per prompt; the profile's router gives each its intent.
        processor: the model's processor instead: the texts are read from every batch's tokens, then routed.
        folder: the profile's folder, where its router finds its files.

    Raises:
        MismatchError: the profile was made for another model; the text lists the differing fields.
        UsageError: not exactly one of ``intents``, ``prompts`` and ``processor`` was given, or an unknown intent.
    """
    return Pruned(model, profile, intents=intents, prompts=prompts, processor=processor, folder=folder)


@contextmanager
def apply_plan(model: nn.Module, family: Family, plan: PrunePlan) -> Iterator[Surgery]:
    """Fuse and prune by a plan inside the block: the profile-free core of :func:`prune`.

    Batches enter as the model's own ``input_ids`` and pixels. A caller that has fused features already gives
    ``inputs_embeds`` instead, after announcing the visual tokens with ``.expect(mask)``. A plan with one row serves
    batches of any size.
    """

    def planner(ids: Tensor, _: Tensor | None) -> PrunePlan:
        return replace(plan, rows=plan.rows * ids.shape[0]) if len(plan.rows) == 1 else plan

    surgery = Surgery(model, family, planner, needs_of(plan))
    surgery.attach()
    try:
        yield surgery
    finally:
        surgery.remove()
