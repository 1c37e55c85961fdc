"""Who can label prompts: the base class of all backends and the table of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from claspkit.profiles.errors import UsageError

from .labels import Label


@dataclass(frozen=True)
class BackendOptions:
    """What a backend may be told; each takes what concerns it.

    Attributes:
        model: hub id or folder of a labelling model; None takes the backend's own default.
        revision: hub revision of it.
        device: torch device.
        batch_size: prompts per forward.
    """

    model: str | None = None
    revision: str | None = None
    device: str = "cpu"
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"a batch of {self.batch_size} prompts is impossible; give 1 or more")


class Backend(ABC):
    """Turns prompts into labels. A prompt's label does not depend on the prompts beside it, up to rounding.

    Attributes:
        source: who labels, as it goes into a log: changes when labels could.
        template: digest of what it works by.
        block: prompts per call of :meth:`label` after which a run is put on disk.
    """

    source: str
    template: str
    block: int

    @abstractmethod
    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt, in order; any text is a prompt, the empty one too."""


def _rules(options: BackendOptions) -> Backend:
    from .backend_rules import RulesBackend

    return RulesBackend()


def _transformers(options: BackendOptions) -> Backend:
    from .backend_transformers import TransformersBackend

    return TransformersBackend(options)


BACKENDS: dict[str, Callable[[BackendOptions], Backend]] = {
    "rules": _rules,
    "transformers": _transformers,
}


def make_backend(name: str, options: BackendOptions | None = None) -> Backend:
    """Build a backend; heavy imports and model loading happen here.

    Raises:
        UsageError: an unknown name, or a model that cannot be loaded; the text says what there is and what to do.
    """
    if name not in BACKENDS:
        raise UsageError(f"unknown router {name!r}; there are: {', '.join(BACKENDS)}")
    return BACKENDS[name](options or BackendOptions())
