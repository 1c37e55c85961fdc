"""Search, ledger and decision on a made-up evaluator whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from made_samples import made_samples

from claspkit.calib.evaluator import BlockResult, Evaluator
from claspkit.calib.ledger import HOLDOUT, SEARCH, Cost, Ledger
from claspkit.calib.samples import Sample
from claspkit.calib.search import MIN_SAMPLES, ClassData, Search, decide
from claspkit.calib.space import Candidate, Space, make_space
from claspkit.calib.strategies import STRATEGIES
from claspkit.calib.strategy_refine import TRIALS
from claspkit.profiles.errors import CorruptError

SPACE = make_space(7, (0.1, 0.5, 0.9))


def samples(count: int, split: str) -> tuple[Sample, ...]:
    """Samples of as many pictures."""
    return made_samples(count, f"made-{split}")


class Made:
    """Answers rightly on the first ``right[candidate id]`` of ten samples, by sample index."""

    def __init__(self, right: dict[str, int], default: int) -> None:
        self.right, self.default = right, default
        self.asked: list[tuple[str, int]] = []

    def evaluate(
        self, block: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        """One outcome list per candidate."""
        for candidate in candidates:
            self.asked.append((candidate.id, len(block)))
            yield [self._outcome(candidate, block, self.right.get(candidate.id, self.default))]

    def unpruned(self, block: Sequence[Sample]) -> BlockResult:
        """Always right."""
        return self._outcome(None, block, 10)

    @staticmethod
    def _outcome(candidate: Candidate | None, block: Sequence[Sample], right: int) -> BlockResult:
        scores = tuple(float(sample.source.index % 10 < right) for sample in block)
        return BlockResult(candidate, tuple("1" if score else "2" for score in scores), scores, Cost())


def run(path: Path, made: Made, data: ClassData, space: Space = SPACE) -> tuple[Candidate, Ledger, int]:
    """Search one class and its holdout; returns winner, ledger and the evaluations announced."""
    told = 0

    def advance(count: int) -> None:
        nonlocal told
        told += count

    ledger = Ledger.open(path)
    search = Search((space,), cast(Evaluator, made), ledger, 16, advance)
    winner = search.winners(data, "exhaustive")[0]
    search.holdout(data, list(dict.fromkeys([space.default, winner])))
    return winner, ledger, told


DATA = ClassData("counting", samples(40, "s"), samples(40, "h"))


def test_finds_the_best_and_the_holdout_confirms_it(tmp_path: Path) -> None:
    """One candidate is right nine times of ten, all others four times: it wins and is taken."""
    winner, ledger, told = run(tmp_path / "ledger.jsonl", Made({"middle/0.1": 9}, 4), DATA)
    assert winner.id == "middle/0.1"
    (verdict,) = decide([DATA], {"counting": winner}, SPACE, ledger, seed=0)
    assert verdict.searched
    assert verdict.chosen == winner
    assert verdict.paired is not None
    assert verdict.paired.difference == pytest.approx(0.5)
    assert verdict.default_score == pytest.approx(0.4)
    assert verdict.unpruned_score == 1.0
    assert told == 15 * 40 + 3 * 40
    assert ledger.evaluations == told
    assert len(ledger.scores(SEARCH, "counting", winner.id)) == 40
    ledger.close()


def test_a_lucky_winner_is_not_taken(tmp_path: Path) -> None:
    """Better on the search split only: the default stays and the reason says so."""
    made = Made({"deep/0.5": 6}, 4)
    winner, ledger, _ = run(tmp_path / "ledger.jsonl", made, DATA)
    entries = [e for e in ledger.entries() if e.split == HOLDOUT and e.candidate == winner.id]
    default = {e.block: e for e in ledger.entries() if e.split == HOLDOUT and e.candidate == SPACE.default.id}
    # the same results as the default on the holdout
    same = [replace(e, scores=default[e.block].scores, answers=default[e.block].answers) for e in entries]
    ledger.put(same)
    (verdict,) = decide([DATA], {"counting": winner}, SPACE, ledger, seed=0)
    assert not verdict.searched
    assert verdict.chosen == SPACE.default
    assert "won the search but not the holdout" in verdict.reason
    ledger.close()


def test_ties_keep_the_default(tmp_path: Path) -> None:
    """Nothing is better than anything: the default wins its own search."""
    winner, ledger, _ = run(tmp_path / "ledger.jsonl", Made({}, 5), DATA)
    assert winner == SPACE.default
    (verdict,) = decide([DATA], {"counting": winner}, SPACE, ledger, seed=0)
    assert verdict.paired is None
    assert verdict.reason == "the default was the best on the search split"
    ledger.close()


def test_a_class_with_too_few_samples_keeps_the_default(tmp_path: Path) -> None:
    """No search, a score of the default where there is a holdout, and the numbers in the reason."""
    small = ClassData("scene", samples(MIN_SAMPLES - 1, "s"), samples(3, "h"))
    ledger = Ledger.open(tmp_path / "ledger.jsonl")
    Search((SPACE,), cast(Evaluator, Made({}, 5)), ledger, 16, lambda _: None).holdout(small, [SPACE.default])
    empty = ClassData("text", (), ())
    scene, text = decide([small, empty], {}, SPACE, ledger, seed=0)
    assert scene.default_score == 1.0
    assert text.default_score is None
    assert scene.chosen == text.chosen == SPACE.default
    assert f"{MIN_SAMPLES - 1} search and 3 holdout" in scene.reason
    ledger.close()


def test_what_the_ledger_holds_is_not_computed_again(tmp_path: Path) -> None:
    """A second run asks for nothing; a ledger cut in half asks for exactly the missing half."""
    path = tmp_path / "ledger.jsonl"
    _, ledger, _ = run(path, Made({"middle/0.1": 9}, 4), DATA)
    digest, lines = ledger.sha256, path.read_bytes().splitlines(keepends=True)
    ledger.close()
    again = Made({"middle/0.1": 9}, 4)
    _, ledger, _ = run(path, again, DATA)
    assert again.asked == []
    ledger.close()
    path.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:20])  # and a torn tail
    half = Made({"middle/0.1": 9}, 4)
    _, ledger, _ = run(path, half, DATA)
    assert 0 < len(half.asked) < len(lines)
    assert ledger.sha256 == digest
    ledger.close()


def test_a_ledger_of_other_samples_is_refused(tmp_path: Path) -> None:
    """Scores never move to samples they were not made on."""
    path = tmp_path / "ledger.jsonl"
    _, ledger, _ = run(path, Made({}, 4), DATA)
    ledger.close()
    with pytest.raises(CorruptError, match="other samples"):
        run(path, Made({}, 4), ClassData("counting", samples(40, "other"), DATA.holdout))


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_finds_the_optimum_of_a_small_space(name: str) -> None:
    """The contract of a strategy: asked until it stops, told the truth, it names the best candidate."""
    strategy = STRATEGIES[name](SPACE, [16, 16, 8])
    beside = 2 + TRIALS if name in ("random", "tpe") else 0
    asked = 0

    def truth(candidate: Candidate) -> float:
        return 0.1 + 0.4 * (candidate.prototype.name == "shallow") + 0.3 * (candidate.rho == 0.5)

    while requests := strategy.ask():
        asked += sum(request.blocks for request in requests)
        assert all(1 <= request.blocks <= 3 for request in requests)
        for request in requests:
            strategy.tell(request.candidate, [truth(request.candidate)] * (16 * request.blocks))
    assert strategy.best().id == "shallow/0.5"
    assert asked <= (len(SPACE.candidates) + beside) * 3
