"""What the stages of a profile must be: those of its budget, and those that a class has of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .budget import Convention, Stage, check_stages, mean_tokens, prunes_before_decoder
from .errors import ProfileError, UsageError

if TYPE_CHECKING:
    from .profile import BudgetSpec, ModelSpec, SelectionSpec, StageSpec

MEAN_TOLERANCE = 0.01  # of a token: a stated mean may be rounded for people, not invented


def check_budget(budget: BudgetSpec, model: ModelSpec, selection: SelectionSpec) -> None:
    """Refuse a budget that the model cannot have, or whose stated means are not those of its stages.

    Raises:
        ProfileError: names the field.
    """
    stages = [Stage(stage.after_layer, stage.keep) for stage in budget.stages]
    try:
        check_stages(stages, model.visual_tokens, model.decoder_depth)
    except UsageError as error:
        raise ProfileError("budget.stages", str(error)) from None
    if prunes_before_decoder(stages) and selection.saliency != "cls":
        raise ProfileError(
            "selection.saliency",
            f"{selection.saliency!r} is attention inside the decoder, and the first stage prunes before it: only "
            "'cls', the vision encoder's own attention, can be had there",
        )
    if budget.nominal > model.visual_tokens:
        raise ProfileError("budget.nominal", f"{budget.nominal} of {model.visual_tokens} tokens")
    conventions: tuple[Convention, ...] = ("leaving", "entering")
    for convention in conventions:
        name = f"mean_tokens_{convention}"
        stated: float = getattr(budget, name)
        computed = mean_tokens(stages, model.visual_tokens, model.decoder_depth, convention)
        if abs(stated - computed) > MEAN_TOLERANCE:
            raise ProfileError(f"budget.{name}", f"it says {stated}, the stages average to {computed:.4f}")


def check_own_stages(field: str, stages: tuple[StageSpec, ...], budget: BudgetSpec, model: ModelSpec) -> None:
    """Refuse a class's own stages that stand at other layers than the budget's, or that the model cannot have.

    Raises:
        ProfileError: names the field, ``classes[2].stages``.
    """
    layers, wanted = ([stage.after_layer for stage in found] for found in (stages, budget.stages))
    if layers != wanted:
        raise ProfileError(f"{field}.stages", f"they stand after layers {layers}, those of the budget after {wanted}")
    try:
        check_stages(
            [Stage(stage.after_layer, stage.keep) for stage in stages], model.visual_tokens, model.decoder_depth
        )
    except UsageError as error:
        raise ProfileError(f"{field}.stages", str(error)) from None
