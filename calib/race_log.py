"""A race told again from its scores: rung by rung who was in it, who was dropped, and by what margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from .halving import behind, mean, trails
from .space import Candidate, Space
from .strategies import Request
from .strategy_race import Race

WON, STAYED, DEFAULT, TRAILED, CUT, FAILED, WAITING = (
    "won",
    "stayed",
    "default",
    "trailed",
    "cut",
    "failed",
    "waiting",
)
"""What became of a candidate on a rung: it is the race's winner; goes on to the next rung; is the default, which is
never dropped; was dropped because it clearly trails the leader; was dropped because too many were better, or on the
last rung did not win; was dropped for a score that is not finite; is not decided about, because the rung is not
complete."""

DROPPED = (TRAILED, CUT, FAILED)
"""Those of them after which a candidate is out."""


@dataclass(frozen=True)
class Standing:
    """One candidate on one rung.

    Attributes:
        candidate: its id.
        mean: score on the rung's samples, 0..1; None where it has not seen them all, or a score is not finite.
        behind: mean paired difference to the leader on these samples, -1..1; 0 for the leader. The leader is the best
            that is not the default, on the last rung the winner. None where ``mean`` is, or on a rung that is not
            complete.
        error: standard error of ``behind``, as the race itself takes it; None where that is.
        fate: one of the words above.
    """

    candidate: str
    mean: float | None
    behind: float | None
    error: float | None
    fate: str


@dataclass(frozen=True)
class Rung:
    """One rung of a race.

    Attributes:
        samples: search samples that its candidates are compared on, counted from the front.
        standings: everyone who was in it, the best first.
        complete: whether all of them have been scored on all of these samples.
    """

    samples: int
    standings: tuple[Standing, ...]
    complete: bool

    @property
    def dropped(self) -> tuple[Standing, ...]:
        """Those that went no further, the best first."""
        return tuple(each for each in self.standings if each.fate in DROPPED)


def race_log(space: Space, sizes: Sequence[int], scores: Mapping[str, Sequence[float]]) -> list[Rung]:
    """Run a class's race again on scores that are known already.

    The race itself is asked, so that what is told is what was done.

    Args:
        space: its candidates.
        sizes: samples per block of the class's search split.
        scores: candidate id -> scores in sample order, of as many samples as it was scored on.

    Returns:
        the rungs from the first on; the last one is not complete where scores are missing. Empty where no candidate has
        a score.
    """
    if not sizes or not any(scores.get(candidate.id) for candidate in space.candidates):
        return []
    race, rungs = Race(space, sizes), []
    requests = race.ask()
    while requests:
        samples = sum(sizes[: requests[0].blocks])
        field, seen = _field(requests, scores, samples)
        if len(seen) < len(field):
            rungs.append(Rung(samples, _undecided(field, seen), complete=False))
            break
        for candidate in field:
            race.tell(candidate, list(seen[candidate.id]))
        requests = race.ask()
        left = {request.candidate.id for request in requests}
        winner = None if requests else race.best().id
        rungs.append(Rung(samples, _decided(seen, space.default.id, left, winner), complete=True))
    return rungs


def _field(
    requests: Sequence[Request], scores: Mapping[str, Sequence[float]], samples: int
) -> tuple[list[Candidate], dict[str, Sequence[float]]]:
    """Who is on the rung, and the scores of those that have seen all of its samples."""
    field = [request.candidate for request in requests]
    seen = {c.id: scores[c.id][:samples] for c in field if len(scores.get(c.id, ())) >= samples}
    return field, seen


def _undecided(field: Sequence[Candidate], seen: Mapping[str, Sequence[float]]) -> tuple[Standing, ...]:
    means = {candidate.id: _finite(mean(seen.get(candidate.id, ()))) for candidate in field}
    return tuple(Standing(name, means[name], None, None, WAITING) for name in _best_first(means))


def _decided(
    seen: Mapping[str, Sequence[float]], default: str, left: set[str], winner: str | None
) -> tuple[Standing, ...]:
    """The standings of a complete rung; ``left`` goes on, unless there is a ``winner``."""
    means = {name: _finite(mean(values)) for name, values in seen.items()}
    order = _best_first(means)
    finite = [name for name in order if means[name] is not None]
    leader = winner if winner in finite else next((name for name in finite if name != default), None)

    def standing(name: str) -> Standing:
        if means[name] is None or leader is None:
            return Standing(name, means[name], None, None, DEFAULT if name == default else FAILED)
        lead, error = behind(seen[name], seen[leader])
        if name == winner:
            fate = WON
        elif name == default:
            fate = DEFAULT
        elif name in left:
            fate = STAYED
        else:
            fate = TRAILED if trails(seen[name], seen[leader]) else CUT
        return Standing(name, means[name], lead, error, fate)

    return tuple(map(standing, order))


def _best_first(means: Mapping[str, float | None]) -> list[str]:
    """Ties in the order of the field; without a mean last."""
    return sorted(means, key=lambda name: (means[name] is None, -(means[name] or 0.0)))


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
