"""The router of a profile, as the runtime calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from claspkit.profiles.errors import MismatchError, UsageError
from claspkit.profiles.intents import STANDARD
from claspkit.profiles.taxonomy import Taxonomy

from .backend_rules import RulesBackend
from .backends import Backend
from .labels import Label, settle
from .rules import RULES_VERSION

if TYPE_CHECKING:  # reading a profile needs pydantic, labelling a prompt does not
    from claspkit.profiles.profile import RouterSpec

Router = Callable[[Sequence[str]], list[Label]]


def make_router(spec: RouterSpec, folder: Path | None, taxonomy: Taxonomy = STANDARD) -> Router:
    """Build the router that a profile names.

    The result takes prompts and returns one label each; of one less sure than ``spec.min_confidence``, the class is
    ``spec.fallback`` (:func:`.labels.settle`).

    Args:
        spec: the profile's router.
        folder: the profile's folder, where a student's weights lie; rules need none.
        taxonomy: the profile's, :meth:`~claspkit.profiles.profile.ProfileBody.read_taxonomy`.

    Raises:
        MismatchError: the profile was made under rules that this version no longer has.
        UsageError: a student, but no folder was given.
        ProfileError: the student's weights are missing, changed or damaged.
    """
    backend = router_backend(spec, folder, taxonomy)

    def route(prompts: Sequence[str]) -> list[Label]:
        return [settle(label, spec.min_confidence, spec.fallback) for label in backend.label(prompts)]

    return route


def router_backend(spec: RouterSpec, folder: Path | None, taxonomy: Taxonomy = STANDARD) -> Backend:
    """Who labels for :func:`make_router`, before anything is rejected; same arguments and errors."""
    if spec.kind == "rules":
        if str(spec.rules_version).partition(".")[0] != RULES_VERSION.partition(".")[0]:
            raise MismatchError(
                f"the profile routes by rules {spec.rules_version}, this version of claspkit has {RULES_VERSION}: some "
                "prompts would get another class than they had in calibration. Calibrate again, or give intents "
                "instead of prompts."
            )
        return RulesBackend()
    if folder is None:
        raise UsageError(f"the profile's router needs its weights {spec.file!r}: say in which folder the profile lies")
    from claspkit.profiles.files import read_router_file

    from .student import StudentBackend

    return StudentBackend.from_bytes(read_router_file(spec, folder), taxonomy)
