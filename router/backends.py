"""Who can label prompts: the base class of all backends and the table of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import STANDARD
from claspkit.profiles.taxonomy import Taxonomy

from .endpoint import check_endpoint
from .labels import Label

MODES = ("logits", "json")
"""How a teacher answers: one letter, scored; or JSON, written."""


@dataclass(frozen=True)
class BackendOptions:
    """What a backend may be told; each takes what concerns it.

    Attributes:
        model: hub id or folder of a labelling model, its name on a server, or a student's file; None takes the
            backend's own default.
        revision: hub revision of it.
        device: torch device.
        batch_size: prompts per forward.
        mode: one of MODES.
        endpoint: address of a labelling server; kept in the form of :func:`.endpoint.check_endpoint`.
        key_variable: environment variable with the server's key; None for the usual one, "" for no key.
        concurrency: requests under way at a time.
        answers: file of recorded answers.
        taxonomy: the classes, and the fine intents to choose from.
    """

    model: str | None = None
    revision: str | None = None
    device: str = "cpu"
    batch_size: int = 16
    mode: str = "logits"
    endpoint: str | None = None
    key_variable: str | None = None
    concurrency: int = 8
    answers: Path | None = None
    taxonomy: Taxonomy = STANDARD

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"a batch of {self.batch_size} prompts is impossible; give 1 or more")
        if not 1 <= self.concurrency <= 256:
            raise UsageError(f"{self.concurrency} requests at a time are impossible; give 1 to 256")
        if self.mode not in MODES:
            raise UsageError(f"unknown mode {self.mode!r} of a router; there are: {', '.join(MODES)}")
        if self.endpoint is not None:
            object.__setattr__(self, "endpoint", check_endpoint(self.endpoint))


class Backend(ABC):
    """Turns prompts into labels. A prompt's label does not depend on the prompts beside it, up to rounding.

    Attributes:
        source: who labels, as it goes into a log: changes when labels could.
        template: digest of what it works by.
        block: prompts per call of :meth:`label` after which a run is put on disk.
        taxonomy: what it labels with.
        reject_below: the confidence below which its labels are better replaced by the default class; it does not do so
            itself.
    """

    source: str
    template: str
    block: int
    taxonomy: Taxonomy = STANDARD
    reject_below: float = 0.0

    @abstractmethod
    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt, in order; any text is a prompt, the empty one too."""


def _rules(options: BackendOptions) -> Backend:
    from .backend_rules import RulesBackend

    return RulesBackend(options.taxonomy)


def _student(options: BackendOptions) -> Backend:
    from .student import SHIPPED, read_student

    if options.model is None and options.taxonomy.labels_digest != STANDARD.labels_digest:
        raise UsageError(
            f"the student that comes with claspkit knows the standard intents, not those of {options.taxonomy.name!r}; "
            "name one of your own with --router-model, which `claspkit router distill --taxonomy FILE` trains"
        )
    return read_student(SHIPPED if options.model is None else Path(options.model), options.taxonomy)


def _transformers(options: BackendOptions) -> Backend:
    if options.mode == "json":
        from .backend_transformers_json import TransformersJsonBackend

        return TransformersJsonBackend(options)
    from .backend_transformers import TransformersBackend

    return TransformersBackend(options)


def _openai(options: BackendOptions) -> Backend:
    from .backend_openai import OpenAIBackend

    return OpenAIBackend(options)


def _replay(options: BackendOptions) -> Backend:
    from .backend_replay import ReplayBackend

    return ReplayBackend(options)


BACKENDS: dict[str, Callable[[BackendOptions], Backend]] = {
    "rules": _rules,
    "student": _student,
    "transformers": _transformers,
    "openai": _openai,
    "replay": _replay,
}


HEAVY = frozenset({"transformers"})
"""Those that load a model when they are made."""


def make_backend(name: str, options: BackendOptions | None = None) -> Backend:
    """Build a backend; heavy imports and model loading happen here.

    Raises:
        UsageError: an unknown name, or a model that cannot be loaded; the text says what there is and what to do.
    """
    if name not in BACKENDS:
        raise UsageError(f"unknown router {name!r}; there are: {', '.join(BACKENDS)}")
    return BACKENDS[name](options or BackendOptions())
