"""How often an injection changes the class that a router gives a prompt, and how long it takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import is_standard
from claspkit.profiles.taxonomy import Taxonomy

from .backends import Backend
from .injections import INJECTIONS, KINDS, Injection

LIMIT: Final = 10_000
"""Attacked prompts, if no other number is asked for."""


@dataclass(frozen=True)
class Attacked:
    """What a group of injections did.

    Attributes:
        name: the kind, or "all", "tuned", "held out".
        prompts: attacked prompts.
        changed: how many have another class than the prompt without the injection.
        to_default: how many of these have the default class, where an error costs little.
        aimed: how many injections were aimed at a class that the prompt did not have; they know the standard ones.
        reached: how many of these got it.
        slowest: seconds per prompt of the slowest call.
    """

    name: str
    prompts: int
    changed: int
    to_default: int
    aimed: int
    reached: int
    slowest: float

    @property
    def share(self) -> float:
        """Share of the prompts whose class changed; 0 of none."""
        return self.changed / self.prompts if self.prompts else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        return {**asdict(self), "share": self.share}


@dataclass(frozen=True)
class Attack:
    """What :func:`attack` finds.

    Attributes:
        source: who was attacked.
        carriers: prompts that were attacked, with no injection.
        kinds: one row per kind, in the order of KINDS.
        tuned: injections whose text played a part in making the routers withstand them.
        held_out: the others.
        total: all.
    """

    source: str
    carriers: int
    kinds: tuple[Attacked, ...]
    tuned: Attacked
    held_out: Attacked
    total: Attacked

    def to_dict(self) -> dict[str, Any]:
        """The rows as plain JSON values."""
        rows = {"tuned": self.tuned, "held_out": self.held_out, "total": self.total}
        return {
            "router": self.source,
            "carriers": self.carriers,
            "kinds": [row.to_dict() for row in self.kinds],
            **{name: row.to_dict() for name, row in rows.items()},
        }


@dataclass(frozen=True)
class _Outcome:
    injection: Injection
    before: str
    after: str
    seconds: float


def attack(
    backend: Backend,
    carriers: Sequence[str],
    *,
    injections: Sequence[Injection] = INJECTIONS,
    limit: int = LIMIT,
    batch: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Attack:
    """Attack every carrier with every injection, or with ``limit`` pairs in which injections are equally frequent.

    Args:
        backend: any router; rules that overrule a teacher take no part.
        carriers: ordinary prompts.
        injections: what they are attacked with.
        limit: attacked prompts at most.
        batch: prompts per call of the backend, whose time they share.
        clock: seconds since some moment.

    Raises:
        UsageError: no carriers or injections, or a limit or batch below 1.
    """
    if not carriers or not injections or limit < 1 or batch < 1:
        raise UsageError(
            f"an attack needs prompts, injections, and a limit and a batch of at least 1; there are {len(carriers)} "
            f"prompts, {len(injections)} injections, limit {limit}, batch {batch}"
        )
    pairs = _pairs(carriers, injections, limit)
    used = list(dict.fromkeys(carrier for carrier, _ in pairs))
    own = dict(zip(used, (label.intent for label in backend.label(used)), strict=True))
    outcomes: list[_Outcome] = []
    for start in range(0, len(pairs), batch):
        some = pairs[start : start + batch]
        prompts = [injection.into(carrier) for carrier, injection in some]
        began = clock()
        labels = backend.label(prompts)
        seconds = (clock() - began) / len(some)
        outcomes += [
            _Outcome(injection, own[carrier], label.intent, seconds)
            for (carrier, injection), label in zip(some, labels, strict=True)
        ]
    names = [kind for kind in KINDS if any(item.injection.kind == kind for item in outcomes)]
    return Attack(
        source=backend.source,
        carriers=len(used),
        kinds=tuple(_row(kind, [o for o in outcomes if o.injection.kind == kind], backend.taxonomy) for kind in names),
        tuned=_row("tuned", [item for item in outcomes if not item.injection.held_out], backend.taxonomy),
        held_out=_row("held out", [item for item in outcomes if item.injection.held_out], backend.taxonomy),
        total=_row("all", outcomes, backend.taxonomy),
    )


def _pairs(carriers: Sequence[str], injections: Sequence[Injection], limit: int) -> list[tuple[str, Injection]]:
    """Injection after injection, each with every carrier; where these are too many, with as many of them in turn."""
    total = len(carriers) * len(injections)
    count = min(limit, total)
    return [
        (carriers[number % len(carriers)], injections[number * len(injections) // count]) for number in range(count)
    ]


def _row(name: str, outcomes: Sequence[_Outcome], taxonomy: Taxonomy) -> Attacked:
    default, targets = taxonomy.default, set(taxonomy.ids) if is_standard(taxonomy) else set()
    changed = [item for item in outcomes if item.after != item.before]
    aimed = [item for item in outcomes if item.injection.target in targets - {item.before}]
    return Attacked(
        name=name,
        prompts=len(outcomes),
        changed=len(changed),
        to_default=sum(item.after == default for item in changed),
        aimed=len(aimed),
        reached=sum(item.after == item.injection.target for item in aimed),
        slowest=max((item.seconds for item in outcomes), default=0.0),
    )
