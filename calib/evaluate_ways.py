"""Ways of asking a model in an evaluation: unpruned, by a profile, and by a profile with one part of it replaced."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claspkit.profiles.errors import UsageError, shorten
from claspkit.profiles.files import read_profile
from claspkit.profiles.profile import Profile, seal

from .ledger import UNPRUNED
from .space import DEFAULT_RHO, TAU

Class = dict[str, Any]
"""A class of a profile as its fields."""


@dataclass(frozen=True)
class Way:
    """One way of asking.

    Attributes:
        name: how people call it: "unpruned", a profile's nominal budget such as "192", or "192 ratio".
        variant: "" for the profile as it is, else what was replaced, as asked for with ``--way``.
        profile: what prunes; None for the stock model.
        origin: the profile's own id, also where a part was replaced; None for the stock model.
        folder: where the profile's router lies.
        path: what ``--profile`` said.
    """

    name: str
    variant: str = ""
    profile: Profile | None = None
    origin: str | None = None
    folder: Path | None = None
    path: str | None = None

    @property
    def key(self) -> str:
        """What its answers are recorded under; equal ways have equal keys."""
        return UNPRUNED if self.profile is None else self.profile.profile_id

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        budget = None if self.profile is None else self.profile.budget.nominal
        tokens = None if self.profile is None else self.profile.model.visual_tokens
        return {
            "name": self.name,
            "way": self.variant or None,
            "profile": self.path,
            "profile_id": self.origin,
            "nominal": budget,
            "visual_tokens": tokens,
        }


def _stock(profile: Profile, spec: Class) -> Class:
    return {**spec, **_layers_of((profile.model.default_layer,)), "prototype": "default"}


def _layers_of(layers: Sequence[int]) -> Class:
    """Equal shares of some layers."""
    count = len(layers)
    return {"layers": layers, "scores": (1.0,) * count, "tau": TAU, "weights": (1 / count,) * count}


def _default(profile: Profile, _: str) -> Profile:
    return _reclassed(profile, lambda spec: {**_stock(profile, spec), "rho": DEFAULT_RHO, "stages": None})


def _fusion(profile: Profile, _: str) -> Profile:
    return _reclassed(profile, lambda spec: {**spec, "rho": DEFAULT_RHO})


def _ratio(profile: Profile, _: str) -> Profile:
    return _reclassed(profile, lambda spec: _stock(profile, spec))


def _rho(profile: Profile, value: str) -> Profile:
    intent, text = _of_class(profile, value)
    try:
        rho = float(text) if re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", text, re.ASCII) else math.nan
    except ValueError:
        rho = math.nan
    if not 0 <= rho <= 1:
        raise UsageError(f"--way rho={shorten(value)[1:-1]}: a split ratio is a number from 0 to 1, such as rho=0.3")
    return _reclassed(profile, lambda spec: {**spec, "rho": rho}, intent)


def _layers(profile: Profile, value: str) -> Profile:
    intent, text = _of_class(profile, value)
    last = profile.model.vision_depth
    words = text.split(",")
    layers = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 4]
    if len(layers) != len(words) or layers != sorted(set(layers)) or layers[-1] > last:
        raise UsageError(
            f"--way layers={shorten(value)[1:-1]}: vision layers are numbers from 0 (the embeddings) to {last}, "
            "ascending, such as layers=3,18,24"
        )
    made = {**_layers_of(tuple(layers)), "prototype": f"layers {text}"}
    return _reclassed(profile, lambda spec: {**spec, **made}, intent)


def _iterations(profile: Profile, value: str) -> Profile:
    if not (value.isascii() and value.isdigit() and len(value) < 3):
        raise UsageError(f"--way iterations={shorten(value)[1:-1]}: rounds of k-means are a number from 0 to 99")
    fields = profile.model_dump()
    return seal({**fields, "selection": {**fields["selection"], "kmeans_iterations": int(value)}})


# name -> what makes the profile, and what it is for people; those that end in = take a value.
WAYS: Mapping[str, tuple[Callable[[Profile, str], Profile], str]] = {
    "default": (_default, "the uncalibrated configuration for every class, at the profile's budget"),
    "fusion": (_fusion, "the profile's layers, with the default's split ratio"),
    "ratio": (_ratio, "the profile's split ratios, with the default's layer"),
    "rho=": (_rho, "rho=0.3 or rho=CLASS:0.3, that split ratio for all classes or for one"),
    "layers=": (_layers, "layers=3,18,24 or layers=CLASS:3,18,24, equal shares of these for all classes or for one"),
    "iterations=": (_iterations, "iterations=7, that many rounds of k-means"),
}


def read_ways(profiles: Sequence[Path], variants: Sequence[str]) -> list[Way]:
    """The unpruned model, then every profile, each with its variants.

    Args:
        profiles: profile files or their folders, at least one.
        variants: what ``--way`` said.

    Raises:
        ProfileError, UsageError: a profile cannot be read, or is given twice; an unknown variant.
    """
    known = list(dict.fromkeys(variants))
    found = [(path, read_profile(path)) for path in profiles]
    ids = [profile.profile_id for _, profile in found]
    if twice := [str(path) for (path, _), mine in zip(found, ids, strict=True) if ids.count(mine) > 1]:
        raise UsageError(f"the same profile is given more than once: {', '.join(twice)}")
    nominals = [profile.budget.nominal for _, profile in found]
    ways = [Way(UNPRUNED)]
    for path, profile in found:
        nominal, folder = profile.budget.nominal, path if path.is_dir() else path.parent
        name = str(nominal) if nominals.count(nominal) == 1 else f"{nominal} {path}"
        whole = Way(name, "", profile, profile.profile_id, folder, str(path))
        ways += [whole, *(varied(whole, variant) for variant in known)]
    return ways


def varied(way: Way, variant: str) -> Way:
    """A profile's way with the part replaced that ``variant`` names, a row of :data:`WAYS`.

    Raises:
        UsageError: there is no such variant, or its value is refused.
    """
    assert way.profile is not None
    name, equals, value = variant.partition("=")
    row = WAYS.get(name + equals)
    if row is None:
        listed = "\n".join(f"  {known:<12} {what}" for known, (_, what) in WAYS.items())
        raise UsageError(f"--way {shorten(variant)[1:-1]} does not exist; there are:\n{listed}")
    return Way(f"{way.name} {variant}", variant, row[0](way.profile, value), way.origin, way.folder, way.path)


def _of_class(profile: Profile, value: str) -> tuple[str | None, str]:
    """``CLASS:REST`` in two, or None and the value."""
    intent, colon, rest = value.partition(":")
    if not colon:
        return None, value
    return profile.for_intent(intent).intent, rest


def _reclassed(profile: Profile, change: Callable[[Class], Class], only: str | None = None) -> Profile:
    """The profile with every class changed, or ``only`` one, sealed anew."""
    fields = profile.model_dump()
    classes = [change(spec) if only in (None, spec["intent"]) else spec for spec in fields["classes"]]
    return seal({**fields, "classes": classes})
