"""A race over the grid, then points beside it that Optuna proposes: the optional continuous refinement.

The paper refines its weights on the calibration data and finds them no better for it (Table 19).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from .halving import mean
from .optuna_quiet import quiet
from .space import Candidate, Space
from .strategies import Request, Strategy
from .strategy_race import Race

TRIALS = 20
"""Points proposed after the race."""

ROUND = 5
"""Points that TPE proposes at a time: one pass over the samples serves them. The first ones are drawn blindly."""

_STEP = 0.01  # what a candidate's name can say


class Refine(Strategy):
    """Other scores on the layers of the race's winner and any split, every point on every sample.

    A point is a candidate like any other: its id holds its scores. Optuna's study is in memory only. It is rebuilt by
    asking and telling again in the same order, and the same version of Optuna proposes the same points.
    """

    def __init__(
        self, space: Space, sizes: Sequence[int], sampler: BaseSampler, at_once: int, trials: int = TRIALS
    ) -> None:
        """Search ``space`` on blocks of these many samples.

        Args:
            space: where the race is run.
            sizes: samples per block.
            sampler: who proposes; a fresh one with a seed of its own.
            at_once: points proposed before any of them is told.
            trials: points proposed altogether.
        """
        super().__init__(space, sizes)
        self._race = Race(space, sizes)
        self._sampler, self._at_once, self._left, self._trials = sampler, at_once, trials, trials
        self._study: optuna.Study | None = None
        self._base = space.default.prototype  # whose layers the points are on; the race settles it
        self._scores: dict[str, list[float]] = {}
        self._field: list[Candidate] = []
        self._round: list[tuple[optuna.Trial, Candidate]] = []

    def ask(self) -> list[Request]:
        """What the race asks; then default and winner on all samples; then round by round what Optuna proposes."""
        if self._study is None:
            if requests := self._race.ask():
                return requests
            self._study = self._start(self._race.best())
        while not (missing := [candidate for candidate in self._field if not self._has(candidate)]):
            self._settle(self._study)
            if not self._left:
                return []
            self._propose(self._study)
        return [Request(candidate, len(self.sizes)) for candidate in missing]

    def tell(self, candidate: Candidate, scores: list[float]) -> None:
        """Keep the scores; Optuna hears of them when its whole round is there, in the order of its proposals."""
        self._scores[candidate.id] = scores
        if self._study is None:
            self._race.tell(candidate, scores)

    def best(self) -> Candidate:
        """Largest mean on all samples; on a tie the default, then the race's winner, then the earlier point."""
        if self._study is None:
            return self._race.best()
        return max(self._field, key=self._mean)

    def bound(self) -> int:
        """The race, then default, winner and every point on all samples."""
        return self._race.bound() + (2 + self._trials) * sum(self.sizes)

    def _start(self, winner: Candidate) -> optuna.Study:
        """A study that knows the race's winner as its first trial."""
        self._field = list(dict.fromkeys([self.space.default, winner]))
        self._base = winner.prototype
        with quiet():
            study = optuna.create_study(direction="maximize", sampler=self._sampler)
        top = max(self._base.scores)
        scores = {
            name: max(0.0, score - top + 1) for name, score in zip(self._names(), self._base.scores, strict=False)
        }
        study.enqueue_trial({**scores, "rho": winner.rho})
        self._round = [(study.ask(self._ranges()), winner)]
        return study

    def _propose(self, study: optuna.Study) -> None:
        """Open a round. A point that is known already is not scored again."""
        for _ in range(min(self._at_once, self._left)):
            trial = study.ask(self._ranges())
            scores = [trial.params[name] for name in self._names()]
            prototype = self._base.refined(scores) if scores else self._base
            self._round.append((trial, self.space.candidate(prototype, round(trial.params["rho"], 2))))
            self._left -= 1
        self._field = list(dict.fromkeys([*self._field, *(candidate for _, candidate in self._round)]))

    def _settle(self, study: optuna.Study) -> None:
        """Tell Optuna how the points of the round did; one without a finite mean failed."""
        for trial, candidate in self._round:
            value = self._mean(candidate)
            if isfinite(value):
                study.tell(trial, value)
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._round = []

    def _ranges(self) -> dict[str, BaseDistribution]:
        return {name: FloatDistribution(0.0, 1.0, step=_STEP) for name in (*self._names(), "rho")}

    def _names(self) -> list[str]:
        """Parameters of the scores; a single layer has none, whatever its score its weight is 1."""
        layers = self._base.layers
        return [f"score_{layer}" for layer in layers] if len(layers) > 1 else []

    def _has(self, candidate: Candidate) -> bool:
        return len(self._scores.get(candidate.id, ())) >= sum(self.sizes)

    def _mean(self, candidate: Candidate) -> float:
        """On all samples; minus infinity before they are told."""
        return mean(self._scores[candidate.id][: sum(self.sizes)]) if self._has(candidate) else float("-inf")


def random_points(space: Space, sizes: Sequence[int], seed: int) -> Refine:
    """Points drawn evenly; all of them at once, since no score changes what is drawn next."""
    return Refine(space, sizes, RandomSampler(seed=seed % 2**32), TRIALS)


def tpe_points(space: Space, sizes: Sequence[int], seed: int) -> Refine:
    """Points by Optuna's tree-structured Parzen estimator, in rounds of :data:`ROUND`."""
    return Refine(space, sizes, TPESampler(seed=seed % 2**32, n_startup_trials=ROUND), ROUND)
