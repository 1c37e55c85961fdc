"""One class's fusion as an ordinary model: the convex combination moves into the projector's first layer.

Where a projector starts with a linear map (weight W, bias b), fusing layers before it (CLASP Eq. 9) is the same as
one wider linear map over their channels side by side, since the shares sum to one:

    W (sum_l w_l V^(l)) + b  =  [w_1 W, ..., w_k W] [V^(1); ...; V^(k)] + b

and a list in ``vision_feature_layer`` makes transformers concatenate just so. Fusion only: tokens are not pruned, and
prompts of all classes get the one class.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from claspkit.profiles.errors import UsageError

from .families import Family, find_family

_SHARE_TOLERANCE = 1e-6  # the same as a profile's
_STEPS = ["linear_1", "act", "linear_2"]  # LLaVA, LLaVA-NeXT, Video-LLaVA: nothing may stand before the linear layer
_HOOKS = [
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
]


def fold_class(model: nn.Module, family: Family | None, layers: Sequence[int], weights: Sequence[float]) -> nn.Module:
    """Return a model that fuses ``layers`` by itself, without hooks; ``model`` stays as it is.

    The result is a new outer module, trunk, projector and config around the vision encoder, the decoder and every
    tensor but one of ``model``: what is done to those (a hook, an attention backend, a training step) shows in both.
    Hooks on the outer module and the trunk are not taken along.

    Args:
        model: a model whose projector is linear, activation, linear.
        family: its family; None looks it up.
        layers: vision layers in hidden_states indexing (0 = embeddings), ascending. A single layer with a share of 1
            leaves the weights as they are.
        weights: their shares, on the simplex. A layer whose share is 0 is left out.

    Returns:
        A model of the same class and dtype. The shares are multiplied in float64 and rounded once to that dtype.

    Raises:
        UsageError: layers or shares that do not fit, a projector that does not start with a plain linear layer, a
            model that fuses several layers already, or one whose ``forward`` was replaced.
    """
    family = family or find_family(model)
    projector = family.projector(model)
    _check_projector(projector)
    config: Any = model.config
    if not isinstance(config.vision_feature_layer, int):
        raise UsageError(
            f"this model reads several vision layers already (vision_feature_layer = {config.vision_feature_layer}), "
            "as a folded one does; fold the model that it was made from"
        )
    facts = family.facts(model)
    terms = _check_terms(layers, weights, facts.vision_depth)

    folded, path = _along(model, projector)
    folded_config: Any = copy.copy(config)  # shallow: encoder and decoder keep sharing their part of it
    folded_config.vision_feature_layer = _feature_layer(list(terms), config.vision_feature_layer, facts.vision_depth)
    for module in path:
        if getattr(module, "config", None) is config:
            module.config = folded_config
    if hasattr(folded, "generation_config"):
        folded.generation_config = copy.deepcopy(folded.generation_config)
    if len(terms) > 1:
        path[-1].linear_1 = _widened(path[-1].linear_1, list(terms.values()))
    return cast(nn.Module, folded)


def _check_projector(projector: nn.Module) -> None:
    steps = [name for name, _ in projector.named_children()]
    if steps != _STEPS:
        raise UsageError(
            f"the fusion cannot be folded into {type(projector).__name__}, whose steps are "
            f"{', '.join(steps) or 'unknown'}: only a projector of {', '.join(_STEPS)} can take it, since a step "
            "before the linear layer (a norm, say) does not commute with a weighted sum. Keep the hooks of "
            "claspkit.runtime.prune for this model"
        )
    first = projector.linear_1
    if type(first) is not nn.Linear:
        raise UsageError(
            f"the projector's first layer is of type {type(first).__name__}, not a plain Linear; merge adapters and "
            "load the weights unquantized before folding"
        )


def _check_terms(layers: Sequence[int], weights: Sequence[float], depth: int) -> dict[int, float]:
    """Layer -> share, without the layers that contribute nothing."""
    asked = f"fold_class: layers {list(layers)} with shares {list(weights)}"
    if not layers or len(layers) != len(weights):
        raise UsageError(f"{asked}: one share per layer is needed, and at least one layer")
    if list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] <= depth:
        raise UsageError(f"{asked}: layers must ascend within 0 (embeddings) and {depth} (the last block)")
    total = math.fsum(weights)
    if not (min(weights) >= 0 and abs(total - 1) <= _SHARE_TOLERANCE):
        raise UsageError(f"{asked}: shares must be non-negative and sum to 1, their sum is {total}")
    return {layer: share for layer, share in zip(layers, weights, strict=True) if share > 0}


def _feature_layer(layers: list[int], stock: int, depth: int) -> int | list[int]:
    """The config's value: one layer stays an integer, and the model's own layer keeps the sign it had."""
    if len(layers) > 1:
        return layers
    if layers[0] == stock % (depth + 1):
        return stock
    # transformers 5.23 takes a plain 0 for "no hidden states asked for" and then finds none.
    return layers[0] or -(depth + 1)


def _along(model: nn.Module, inner: nn.Module) -> tuple[Any, list[Any]]:
    """Copy the modules from ``model`` down to ``inner``, sharing all others; returns the first copy, and all."""
    name = next(name for name, module in model.named_modules() if module is inner)
    copies: list[Any] = [_shell(model)]
    for step in name.split("."):
        child = _shell(getattr(copies[-1], step))
        setattr(copies[-1], step, child)
        copies.append(child)
    return copies[0], copies


def _shell(module: nn.Module) -> nn.Module:
    """The same module again: its own dictionaries around the same tensors and children, and no hooks."""
    state = vars(module)
    if "forward" in state:  # a bound forward would go on calling the module it was bound to
        raise UsageError(
            f"the forward of {type(module).__name__} was replaced (by device_map, torch.compile or a patch); load the "
            "model whole, onto one device and uncompiled, before folding"
        )
    shell = copy.copy(module)
    vars(shell).update({name: value.copy() for name, value in state.items() if isinstance(value, dict | set)})
    for name in _HOOKS:
        vars(shell)[name].clear()
    return shell


def _widened(first: nn.Linear, shares: Sequence[float]) -> nn.Linear:
    """``[w_1 W, ..., w_k W]`` with the same bias."""
    weight = first.weight.detach()
    wide = torch.cat([share * weight.to("cpu", torch.float64) for share in shares], dim=1)
    with torch.device("meta"):  # no memory for values that are replaced at once
        linear = nn.Linear(wide.shape[1], wide.shape[0], bias=first.bias is not None)
    linear.weight = nn.Parameter(wide.to(weight.device, weight.dtype), requires_grad=first.weight.requires_grad)
    if first.bias is not None:
        linear.bias = first.bias
    return linear.train(first.training)
