"""Search one class, then let the holdout decide: the default stays unless it is significantly beaten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from claspkit.profiles.canonical import digest

from .evaluator import BlockResult
from .evidence import ALPHA, Paired, compare, holm
from .finite import BlockEvaluator, all_finite, count_odd
from .ledger import HOLDOUT, SEARCH, UNPRUNED, Entry, Ledger
from .samples import Sample
from .space import Candidate, Space, side_by_side
from .strategies import STRATEGIES, Strategy

MIN_SAMPLES = 10
"""Below this many samples on either split a class keeps the default without a search."""


@dataclass(frozen=True)
class ClassData:
    """One class's samples, split by picture."""

    intent: str
    search: tuple[Sample, ...]
    holdout: tuple[Sample, ...]

    def search_blocks(self, size: int) -> list[int]:
        """Samples per block of the search split, in blocks of ``size``."""
        return [len(self.search[start : start + size]) for start in range(0, len(self.search), size)]


@dataclass(frozen=True)
class Verdict:
    """What was found for one class.

    Attributes:
        intent: class id.
        winner: best candidate on the search split; None where no search was run.
        chosen: the configuration that goes into the profile.
        paired: winner against default on the holdout; None where they are the same, nothing was run, or a score is
            not finite.
        p_holm: ``paired.p_value`` corrected over the classes that were tested.
        default_score: the default on the holdout; None without holdout, or if a score is not finite.
        unpruned_score: the stock model on the holdout; None as well.
        reason: why, in words.
    """

    intent: str
    winner: Candidate | None
    chosen: Candidate
    paired: Paired | None
    p_holm: float | None
    default_score: float | None
    unpruned_score: float | None
    reason: str

    @property
    def searched(self) -> bool:
        """Whether the search's winner was taken."""
        return self.winner is not None and self.chosen == self.winner and self.paired is not None


class Search:
    """Evaluates blocks through the ledger: what it holds is never computed again."""

    def __init__(
        self,
        spaces: Sequence[Space],
        evaluator: BlockEvaluator,
        ledger: Ledger,
        block_size: int,
        advance: Callable[[int], None],
        seed: int = 0,
    ) -> None:
        """``advance(n)`` hears of every n candidate evaluations done, found in the ledger, or saved.

        ``spaces`` has one space per budget, the run's first budget first. ``seed`` is the run's, for a strategy that
        draws.
        """
        self._spaces = tuple(spaces)
        self._evaluator = evaluator
        self._ledger = ledger
        self._block_size = block_size
        self._advance = advance
        self._seed = seed

    def winners(self, data: ClassData, strategy_name: str) -> list[Candidate]:
        """Run a strategy per budget on the class's search split and return the best candidate of each.

        They go round by round together: what all of them ask about a block is evaluated at once, so that a block is
        read once for all budgets, fused once per prototype, and run once up to the first stage.
        """
        blocks = list(self._blocks(data.search))
        strategies = self._strategies(data, strategy_name)
        seen: dict[Candidate, int] = {}  # blocks of each candidate that this search has been through
        left = sum(strategy.bound() for strategy in strategies)
        while asked := [(strategy, request) for strategy in strategies for request in strategy.ask()]:
            requests = [request for _, request in asked]
            for number, block in enumerate(blocks):
                wanted = [r.candidate for r in requests if seen.get(r.candidate, 0) <= number < r.blocks]
                if wanted:
                    self._score(SEARCH, data.intent, number, block, wanted)
                    left -= len(wanted) * len(block)
            for strategy, request in asked:
                seen[request.candidate] = request.blocks
                strategy.tell(request.candidate, self._ledger.scores(SEARCH, data.intent, request.candidate.id))
        self._advance(left)  # what need not be asked any more
        return [strategy.best() for strategy in strategies]

    def bound(self, data: ClassData, strategy_name: str) -> int:
        """Candidate evaluations that :meth:`winners` takes, at most."""
        return sum(strategy.bound() for strategy in self._strategies(data, strategy_name))

    def _strategies(self, data: ClassData, name: str) -> list[Strategy]:
        sizes = [len(block) for block in self._blocks(data.search)]
        return [STRATEGIES[name](space, sizes, self._seed) for space in self._spaces]

    def holdout(self, data: ClassData, candidates: Sequence[Candidate]) -> None:
        """Score candidates and the unpruned model on the class's holdout."""
        for number, block in enumerate(self._blocks(data.holdout)):
            self._score(HOLDOUT, data.intent, number, block, candidates)
            uids = [sample.uid for sample in block]
            if self._ledger.get(HOLDOUT, data.intent, UNPRUNED, number, uids) is None:
                outcome = self._evaluator.unpruned(block)
                self._ledger.put([_entry(HOLDOUT, data.intent, UNPRUNED, number, uids, outcome)])
            self._advance(len(block))

    def _score(
        self, split: str, intent: str, number: int, block: Sequence[Sample], wanted: Sequence[Candidate]
    ) -> None:
        uids = [sample.uid for sample in block]
        known = [c for c in wanted if self._ledger.get(split, intent, c.id, number, uids) is not None]
        self._advance(len(known) * len(block))
        missing = side_by_side(candidate for candidate in wanted if candidate not in known)
        # Candidates mostly answer like the default; the ledger is asked so that a resumed run guesses the same.
        default = self._ledger.get(split, intent, self._spaces[0].default.id, number, uids)
        guesses = () if default is None else default.answers
        for outcomes in self._evaluator.evaluate(block, missing, guesses) if missing else ():
            self._ledger.put(
                [_entry(split, intent, o.candidate.id, number, uids, o) for o in outcomes if o.candidate is not None]
            )
            self._advance(len(outcomes) * len(block))

    def _blocks(self, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        for start in range(0, len(samples), self._block_size):
            yield samples[start : start + self._block_size]


def _entry(split: str, intent: str, candidate: str, number: int, uids: list[str], outcome: BlockResult) -> Entry:
    return Entry(split, intent, candidate, number, digest(uids), outcome.scores, outcome.answers, outcome.cost)


def decide(
    classes: Sequence[ClassData], winners: dict[str, Candidate], space: Space, ledger: Ledger, seed: int
) -> list[Verdict]:
    """Judge every class's winner at one budget on the holdout, with Holm's correction over the classes tested."""
    default = space.default
    paired: dict[str, Paired] = {}
    for data in classes:
        winner = winners.get(data.intent)
        if winner is not None and winner != default and _not_comparable(data.intent, winner, default, ledger) is None:
            paired[data.intent] = compare(
                ledger.scores(HOLDOUT, data.intent, winner.id),
                ledger.scores(HOLDOUT, data.intent, default.id),
                [sample.image_sha256 for sample in data.holdout],
                seed,
            )
    corrected = dict(zip(paired, holm([result.p_value for result in paired.values()]), strict=True))
    return [
        _verdict(
            data,
            winners.get(data.intent),
            default,
            paired.get(data.intent),
            corrected.get(data.intent),
            ledger,
        )
        for data in classes
    ]


def _verdict(
    data: ClassData,
    winner: Candidate | None,
    default: Candidate,
    paired: Paired | None,
    p_holm: float | None,
    ledger: Ledger,
) -> Verdict:
    default_scores = ledger.scores(HOLDOUT, data.intent, default.id)
    unpruned = ledger.scores(HOLDOUT, data.intent, UNPRUNED)
    chosen = default
    if winner is None:
        reason = (
            f"{len(data.search)} search and {len(data.holdout)} holdout samples; "
            f"a search needs {MIN_SAMPLES} of each, so the default stays"
        )
    elif odd := _not_comparable(data.intent, winner, default, ledger):
        reason = odd
    elif paired is None or p_holm is None:
        reason = "the default was the best on the search split"
    elif p_holm < ALPHA and paired.difference > 0:
        chosen = winner
        reason = f"{winner.id} beats the default on the holdout (Holm-corrected p = {p_holm:.3g})"
    else:
        reason = f"{winner.id} won the search but not the holdout (Holm-corrected p = {p_holm:.3g})"
    return Verdict(
        intent=data.intent,
        winner=winner,
        chosen=chosen,
        paired=paired,
        p_holm=p_holm,
        default_score=_mean(default_scores),
        unpruned_score=_mean(unpruned),
        reason=reason,
    )


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if all_finite(scores) else None


def _not_comparable(intent: str, winner: Candidate, default: Candidate, ledger: Ledger) -> str | None:
    """Why a class's winner and default cannot be compared: scores that are not finite; None where they can."""
    search, ours, theirs = (
        ledger.scores(split, intent, candidate.id)
        for split, candidate in ((SEARCH, default), (HOLDOUT, winner), (HOLDOUT, default))
    )
    if count_odd(search) or count_odd(theirs):
        return (
            f"the default gave NaN or infinity on {count_odd(search)} of {len(search)} search and {count_odd(theirs)} "
            f"of {len(theirs)} holdout samples: nothing could be compared, so it stays"
        )
    if count_odd(ours):
        return (
            f"{winner.id} won the search but gave NaN or infinity on {count_odd(ours)} of {len(ours)} holdout samples, "
            "so the default stays"
        )
    return None
