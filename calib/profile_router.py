"""The router that goes into a profile: who labelled the run if that can go, else what agrees best with the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from claspkit.profiles.canonical import sha256_hex, write_atomic
from claspkit.profiles.errors import MismatchError, UsageError
from claspkit.profiles.intents import STANDARD, is_standard
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.backends import Backend, BackendOptions, make_backend
from claspkit.router.labels import Label
from claspkit.router.prompts import prompt_digest
from claspkit.router.rules import RULES_VERSION
from claspkit.router.scoring import rejection
from claspkit.router.student import SHIPPED, StudentBackend, read_student
from claspkit.router.student_training import train_student

from .config import RunConfig
from .samples import Sample

CHOICES: Final = ("auto", "rules", "student")
"""Values of ``--profile-router``."""
FILE: Final = "router.safetensors"
"""Name of a student's weights, beside profile.json."""
FEWEST: Final = 500
"""With fewer different prompts no student is distilled: so many leave 50 to compare on."""
HELD_OUT: Final = 10
"""One prompt in this many is kept for the comparison."""
RULES_SURE: Final = 0.5
"""Between the two confidences that rules have."""

OWN_SURE: Final = 0.5

LABELLER, DISTILLED, SHIPPED_STUDENT, RULES = "labeller", "distilled", "shipped", "rules"
"""Where a router comes from. Of those that agree equally, the first in the order distilled, shipped, rules wins."""


@dataclass(frozen=True)
class ProfileRouter:
    """The router of a profile.

    Attributes:
        spec: fields of :class:`claspkit.profiles.profile.RouterSpec`.
        weights: content of the file that ``spec`` names; None for rules.
        facts: how it was chosen, as it stands under ``router`` in summary.json.
    """

    spec: dict[str, Any]
    weights: bytes | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Taught:
    """Different prompts with the labels that the run gave them, in the order of their digests."""

    prompts: tuple[str, ...]
    labels: tuple[Label, ...]
    taxonomy: Taxonomy

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, places: Sequence[int]) -> _Taught:
        return _Taught(tuple(self.prompts[k] for k in places), tuple(self.labels[k] for k in places), self.taxonomy)

    def student(self, seed: int) -> StudentBackend:
        kinds = [str(label.fine) for label in self.labels]
        return train_student(self.prompts, kinds, seed=seed, taxonomy=self.taxonomy).student

    def agreement(self, backend: Backend, alone: bool = False) -> dict[str, Any]:
        """How often a router that rejects below its threshold says what the labels say; None without labels."""
        threshold = _threshold(backend, alone)
        if not self.prompts:
            return {"min_confidence": threshold, "agreement": None, "coverage": None, "accepted_agreement": None}
        truth = [label.intent for label in self.labels]
        found = rejection(truth, backend.label(self.prompts), threshold, self.taxonomy.default)
        return {
            "min_confidence": threshold,
            "agreement": found.accuracy,
            "coverage": found.coverage,
            "accepted_agreement": found.accepted_accuracy,
        }


def choose_router(
    config: RunConfig, samples: Sequence[Sample], labels: Mapping[str, Label], taxonomy: Taxonomy = STANDARD
) -> ProfileRouter:
    """Choose the router for a run's profile; the same labels and seed give the same bytes on the same machine.

    Rules that labelled go as rules, a student goes as itself. A teacher is too large to go: a student is distilled from
    its labels and compared with the shipped one and with the rules on one prompt in HELD_OUT, without which it was
    trained. The router that agrees with most labels when each rejects below its own threshold wins; if that is the
    distilled one, it is trained again on all prompts. Prompts without a fine intent are left out.

    Classes of a user's own go with a student in any case: one that labelled, or else the distilled one.

    Args:
        config: what the run was asked; its ``profile_router`` may want the rules, or no rules.
        samples: all that were read.
        labels: sample uid -> label, of as many as were labelled.
        taxonomy: their classes.

    Raises:
        UsageError: the student that labelled cannot be read any more.
        MismatchError: another student has taken its place.
    """
    if not is_standard(taxonomy) and config.router != "student":
        return _own(config, samples, labels, taxonomy)
    taught, asked = _taught(samples, labels, taxonomy), config.profile_router
    options = BackendOptions(taxonomy=taxonomy)
    if asked == "rules" or (asked == "auto" and config.router == "rules"):
        why = "asked for" if asked == "rules" else "they labelled the run"
        return _only(RULES, make_backend("rules", options), why, taught)
    if config.router == "student":
        return _only(LABELLER, _labeller(config, labels, taxonomy), "it labelled the run", taught)
    shipped = read_student(SHIPPED, taxonomy)
    if len(taught) < FEWEST:
        why = f"only {len(taught)} different prompts have a fine intent; distilling takes {FEWEST}"
        return _only(SHIPPED_STUDENT, shipped, why, taught)
    held, rest = _split(taught)
    rivals: dict[str, Backend] = {DISTILLED: rest.student(config.seed), SHIPPED_STUDENT: shipped}
    if asked == "auto":
        rivals[RULES] = make_backend("rules", options)
    rows = [{"name": name, **held.agreement(backend)} for name, backend in rivals.items()]
    # One that accepts nothing is of use to nobody, and if none accepts anything the smallest is good enough.
    useful = [row for row in rows if row["coverage"]] or rows[::-1]
    best = max(useful, key=lambda row: (float(row["agreement"]), float(row["coverage"])))  # of equals the first
    winner = str(best["name"])
    backend = taught.student(config.seed) if winner == DISTILLED else rivals[winner]
    why = f"agrees with most labels of {len(held)} prompts that the distilled student was trained without"
    return _made(backend, why, len(taught), len(held), best, rows)


def check_choice(name: str, taxonomy: Taxonomy) -> None:
    """Refuse a value of ``--profile-router`` that cannot be.

    Raises:
        UsageError: it is none of CHOICES, or rules for classes of a user's own.
    """
    if name not in CHOICES:
        raise UsageError(f"--profile-router {name!r} does not exist; there are: {', '.join(CHOICES)}")
    if name == "rules" and not is_standard(taxonomy):
        raise UsageError(
            f"--profile-router rules: no rules of {taxonomy.name!r} go into a profile, it takes a student; leave the "
            "option out"
        )


def put_weights(router: ProfileRouter, profile: Path) -> None:
    """Put the router's weights beside ``profile``, before that is written.

    A profile that is there and names other weights goes first: who looks in between finds none rather than a wrong one.
    """
    path = profile.with_name(FILE)
    if router.weights is None or (path.is_file() and path.read_bytes() == router.weights):
        return
    profile.unlink(missing_ok=True)
    write_atomic(path, router.weights)


def drop_weights(router: ProfileRouter, profile: Path) -> None:
    """Delete weights that ``profile``, just written, does not name."""
    if router.weights is None:
        profile.with_name(FILE).unlink(missing_ok=True)


def _own(
    config: RunConfig, samples: Sequence[Sample], labels: Mapping[str, Label], taxonomy: Taxonomy
) -> ProfileRouter:
    """The student for classes of a user's own, however many prompts there are.

    Where rules labelled, what none of them decided is taught as the first fine intent of the default class: a student
    that never saw such prompts would put them anywhere.

    Raises:
        UsageError: there are no prompts.
    """
    if config.router == "rules":
        rest_of_all = next(fine.id for fine in taxonomy.fine_intents if fine.intent == taxonomy.default)
        labels = {uid: replace(label, fine=label.fine or rest_of_all) for uid, label in labels.items()}
    taught = _taught(samples, labels, taxonomy)
    if not len(taught):
        raise UsageError("no prompt has a fine intent, so no student can be made for the profile: label more samples")
    why = "only a student distilled from the labels knows classes of your own"
    held, rest = _split(taught)
    row = {"name": DISTILLED, **held.agreement((rest if len(rest) else taught).student(config.seed), alone=True)}
    return _made(taught.student(config.seed), why, len(taught), len(held), row, [row], alone=True)


def _taught(samples: Sequence[Sample], labels: Mapping[str, Label], taxonomy: Taxonomy) -> _Taught:
    """The prompts with a fine intent, each once."""
    known = {
        prompt_digest(sample.prompt): (sample.prompt, labels[sample.uid])
        for sample in samples
        if sample.uid in labels and labels[sample.uid].fine is not None
    }
    pairs = [known[key] for key in sorted(known)]
    return _Taught(tuple(prompt for prompt, _ in pairs), tuple(label for _, label in pairs), taxonomy)


def _split(taught: _Taught) -> tuple[_Taught, _Taught]:
    """One prompt in HELD_OUT, and the others.

    Training holds prompts out too, by the beginning of their digest; the order of its end has nothing to do with that.
    """
    order = sorted(range(len(taught)), key=lambda place: prompt_digest(taught.prompts[place])[::-1])
    count = len(taught) // HELD_OUT
    return taught.take(sorted(order[:count])), taught.take(sorted(order[count:]))


def _labeller(config: RunConfig, labels: Mapping[str, Label], taxonomy: Taxonomy) -> StudentBackend:
    """The student that labelled the run.

    Raises:
        MismatchError: the file holds another one by now.
    """
    student = read_student(Path(config.router_model) if config.router_model is not None else SHIPPED, taxonomy)
    others = {label.source for label in labels.values() if label.source.startswith("student:")} - {student.source}
    if others:
        raise MismatchError(
            f"the run was labelled by {', '.join(sorted(others))}, {config.router_model} holds {student.source} by "
            "now; put the first one back"
        )
    return student


def _threshold(backend: Backend, alone: bool) -> float:
    """Below which a profile rejects.

    A student without rivals (``alone``) has nobody to step back for: where no threshold made it right often enough, it
    must be surer than not.
    """
    if not isinstance(backend, StudentBackend):
        return RULES_SURE
    return OWN_SURE if alone and backend.reject_below == 1 else backend.reject_below


def _only(name: str, backend: Backend, why: str, taught: _Taught) -> ProfileRouter:
    """A router that has no rival; compared on all prompts, none of which it learned from the run."""
    row = {"name": name, **taught.agreement(backend, alone=True)}
    return _made(backend, why, len(taught), len(taught), row, [row], alone=True)


def _made(
    backend: Backend,
    why: str,
    prompts: int,
    compared: int,
    best: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    alone: bool = False,
) -> ProfileRouter:
    """The router with the facts about it; ``best`` is its row."""
    weights = backend.to_bytes() if isinstance(backend, StudentBackend) else None
    spec = {
        "kind": "rules" if weights is None else "student",
        "rules_version": RULES_VERSION if weights is None else None,
        "file": None if weights is None else FILE,
        "sha256": None if weights is None else sha256_hex(weights),
        "min_confidence": _threshold(backend, alone),
        "fallback": backend.taxonomy.default,
    }
    facts = {
        "kind": spec["kind"],
        "chosen": best["name"],
        "why": why,
        "source": backend.source,
        "min_confidence": spec["min_confidence"],
        "compared_at": best["min_confidence"],
        "agreement": best["agreement"],
        "coverage": best["coverage"],
        "prompts": prompts,
        "compared": compared,
        "candidates": list(rows),
    }
    return ProfileRouter(spec, weights, facts)
