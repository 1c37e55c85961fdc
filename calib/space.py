"""The discrete space a calibration searches: layer prototypes x split ratios (method.md section 10).

A prototype is a row of the paper's score matrix W: scores on a few vision layers, turned into fusion weights by a
softmax. Layers are placed by depth, so the same five names mean the same thing for a tower of any depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from claspkit.profiles.canonical import digest
from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import DEFAULT_INTENT, INTENTS
from claspkit.profiles.profile import softmax_weights
from claspkit.runtime.plan import RowPlan

if TYPE_CHECKING:
    from .space_file import OwnSpace

DEFAULT = "default"
"""Name of the prototype that is the stock model's own layer."""

TAU = 4.0
"""Softmax temperature of the named prototypes: a score lower by 0.5 weighs e^-2 = 0.14 of the leader."""

RHO_GRID: tuple[float, ...] = tuple(step / 10 for step in range(11))
"""Split ratios tried, in tenths; 1 is attention only, 0 is similarity only."""

DEFAULT_RHO = next(intent.published_rho for intent in INTENTS if intent.id == DEFAULT_INTENT and intent.published_rho)
"""The split of the uncalibrated configuration: the paper's value for its Default class."""

_EMPHASIS: dict[str, dict[float, float]] = {
    # name -> {depth as a share of the model's own layer: score}; 1.0 is the layer the stock model reads.
    "deep": {0.75: 0.0, 0.875: 0.5, 1.0: 1.0},
    "middle": {0.25: 0.0, 0.5: 1.0, 0.75: 0.5, 1.0: 1.0},
    "shallow": {0.125: 0.5, 0.25: 1.0, 0.5: 0.5, 1.0: 1.0},
    "hybrid": {0.125: 0.5, 0.5: 0.5, 1.0: 1.0},
}


_ID = re.compile(r"(?P<name>[^][]+)(?:\[(?P<scores>[^][]+)\])?/(?P<rho>[^/@]+)(?:@(?P<nominal>[0-9]+))?")


@dataclass(frozen=True)
class Prototype:
    """One row of W.

    Attributes:
        name: how people call it.
        layers: vision layers with mass, ascending, hidden_states indexing.
        scores: one per layer.
        tau: softmax temperature, > 0.
    """

    name: str
    layers: tuple[int, ...]
    scores: tuple[float, ...]
    tau: float

    @property
    def weights(self) -> tuple[float, ...]:
        """Fusion weights, on the simplex (Eq. 8)."""
        return softmax_weights(self.scores, self.tau)

    def refined(self, scores: Sequence[float]) -> Prototype:
        """The same layers with other scores, which the name then holds: ``deep[0.2,0.55,1]``.

        Scores are moved so that the largest is 1, which changes no weight, and rounded to hundredths, so that the name
        says all there is. Scores that come out as this prototype's own give this prototype.

        Args:
            scores: one per layer.
        """
        tidy, own = _tidy(scores), _tidy(self.scores)
        if tidy == own:
            return self
        return Prototype(f"{self.name}[{','.join(f'{score:g}' for score in tidy)}]", self.layers, tidy, self.tau)


@dataclass(frozen=True)
class FurtherBudget:
    """A budget of a run beside its first: same layers, other tokens.

    Attributes:
        nominal: visual tokens, the number that people quote.
        keeps: kept tokens, one number per stage.
    """

    nominal: int
    keeps: tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """One point of the space, at the run's first budget or at a further one."""

    prototype: Prototype
    rho: float
    further: FurtherBudget | None = None

    @property
    def id(self) -> str:
        """Name within a run, for example ``deep/0.7``, or ``deep/0.7@64`` at a further budget."""
        return f"{self.prototype.name}/{self.rho:g}" + (f"@{self.further.nominal}" if self.further else "")

    @property
    def keeps(self) -> tuple[int, ...] | None:
        """Kept tokens, one number per stage; None for those of the run's first budget."""
        return self.further.keeps if self.further else None

    @property
    def row(self) -> RowPlan:
        """The candidate as the runtime takes it."""
        return RowPlan(self.prototype.layers, self.prototype.weights, self.rho, self.keeps)


@dataclass(frozen=True)
class Space:
    """All candidates of a run at one budget; the first one is the default configuration."""

    prototypes: tuple[Prototype, ...]
    rhos: tuple[float, ...]
    further: FurtherBudget | None = None

    def candidate(self, prototype: Prototype, rho: float) -> Candidate:
        """A point at this budget."""
        return Candidate(prototype, rho, self.further)

    @property
    def default(self) -> Candidate:
        """The configuration without calibration: the model's own layer at :data:`DEFAULT_RHO`."""
        return self.candidate(self.prototypes[0], DEFAULT_RHO)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Default first, then prototype by prototype in ascending rho."""
        grid = [self.candidate(prototype, rho) for prototype in self.prototypes for rho in self.rhos]
        return (self.default, *(candidate for candidate in grid if candidate != self.default))

    @property
    def layers(self) -> tuple[int, ...]:
        """Every vision layer some prototype needs, ascending."""
        return tuple(sorted({layer for prototype in self.prototypes for layer in prototype.layers}))

    @property
    def sha256(self) -> str:
        """Digest of everything that decides a candidate's meaning but the tokens it keeps."""
        return digest(
            {
                "rhos": list(self.rhos),
                "prototypes": [
                    {"name": p.name, "layers": list(p.layers), "scores": list(p.scores), "tau": p.tau}
                    for p in self.prototypes
                ],
            }
        )

    def find(self, candidate_id: str) -> Candidate:
        """Return the candidate of that id, be it one of the space or a point beside the grid that a search came to.

        Raises:
            KeyError: no prototype of the space, another budget, or no id; nothing is listed, ids come from our own
                ledger.
        """
        try:
            name, scores, rho, _ = split_id(candidate_id)
        except ValueError:
            raise KeyError(candidate_id) from None
        for prototype in self.prototypes:
            if prototype.name == name and (scores is None or len(scores) == len(prototype.layers)):
                found = self.candidate(prototype if scores is None else prototype.refined(scores), rho)
                if found.id == candidate_id:
                    return found
        raise KeyError(candidate_id)


def split_id(candidate_id: str) -> tuple[str, tuple[float, ...] | None, float, int | None]:
    """Take a candidate's id apart: name of the space's prototype, scores where they are not its own, rho, and the
    nominal of a further budget.

    Raises:
        ValueError: not an id.
    """
    match = _ID.fullmatch(candidate_id)
    if match is None:
        raise ValueError(f"{candidate_id!r} is not PROTOTYPE/RHO or PROTOTYPE[SCORE,...]/RHO, with @NOMINAL or without")
    scores = match["scores"]
    return (
        match["name"],
        None if scores is None else tuple(float(score) for score in scores.split(",")),
        float(match["rho"]),
        None if match["nominal"] is None else int(match["nominal"]),
    )


def side_by_side(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One prototype's candidates next to each other, as the evaluator needs them; else in the order given."""
    groups: dict[Prototype, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.prototype, []).append(candidate)
    return [candidate for group in groups.values() for candidate in group]


def _tidy(scores: Sequence[float]) -> tuple[float, ...]:
    top = max(scores)
    return tuple(round(score - top + 1, 2) for score in scores)


def built_in() -> tuple[str, ...]:
    """Names of the prototypes that there are without a file, :data:`DEFAULT` left out."""
    return tuple(_EMPHASIS)


def at_depths(default_layer: int, emphasis: Mapping[float, float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Turn depths into layers, ascending, with their scores.

    Two depths that round to one layer merge, the larger score wins.

    Args:
        default_layer: the layer that depth 1 is.
        emphasis: depth as a share of that layer -> score.
    """
    scores: dict[int, float] = {}
    for share, score in emphasis.items():
        layer = int(share * default_layer + 0.5)
        scores[layer] = max(score, scores.get(layer, score))
    layers = tuple(sorted(scores))
    return layers, tuple(scores[layer] for layer in layers)


def make_space(
    default_layer: int, rhos: Sequence[float] = (), own: OwnSpace | None = None, depth: int | None = None
) -> Space:
    """Build the prototypes for a tower whose stock model reads ``default_layer``.

    Depths are shares of that layer, not of the whole tower: blocks above it never shaped the projector's input.

    Args:
        default_layer: the layer of the prototype :data:`DEFAULT`, which is always there and the first.
        rhos: split ratios; empty for those of ``own``, or else :data:`RHO_GRID`.
        own: prototypes of a user's, beside the built-in ones or in their place.
        depth: the tower's last layer; None for ``default_layer``.

    Raises:
        BadDataError: ``own`` names a layer that the tower does not have.
        UsageError: a split ratio that a candidate's name cannot hold, so that two might have one name.
    """
    if odd := [rho for rho in rhos if float(f"{rho:g}") != rho]:
        raise UsageError(
            f"--rho {odd[0]!r}: a split ratio has at most six digits, which is what a configuration's name holds; take "
            f"{odd[0]:g}"
        )
    prototypes = [Prototype(DEFAULT, (default_layer,), (1.0,), 1.0)]
    if own is None or own.extends:
        for name, emphasis in _EMPHASIS.items():
            prototypes.append(Prototype(name, *at_depths(default_layer, emphasis), TAU))
    if own is not None:
        prototypes += own.placed(default_layer, default_layer if depth is None else depth)
    return Space(tuple(prototypes), tuple(rhos or (own.rhos if own is not None else ()) or RHO_GRID))
