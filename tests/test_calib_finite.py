"""NaN and infinity in a search: marked where they are, never chosen, and no end of the run unless nothing is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from test_calib_search import DATA, SPACE, samples
from torch import Tensor, nn

from claspkit.calib.evaluator import BlockResult
from claspkit.calib.finite import FiniteEvaluator
from claspkit.calib.ledger import HOLDOUT, SEARCH, UNPRUNED, Cost, Entry, Ledger
from claspkit.calib.logits import finite_logits
from claspkit.calib.not_finite import check_default, not_finite
from claspkit.calib.pooled import choose_pooled
from claspkit.calib.samples import Sample
from claspkit.calib.search import ClassData, Search, decide
from claspkit.calib.space import Candidate, FurtherBudget
from claspkit.calib.strategies import STRATEGIES
from claspkit.calib.table import not_finite_words
from claspkit.profiles.errors import BadDataError, CorruptError, NotFiniteError
from claspkit.profiles.records import RecordLog


def entry(scores: Sequence[float], candidate: str = "deep/0.5", split: str = SEARCH, intent: str = "counting") -> Entry:
    """A ledger entry of one block."""
    return Entry(split, intent, candidate, 0, "0" * 64, tuple(scores), ("",) * len(scores))


# -- the ledger


def test_the_ledger_holds_nan_as_null(tmp_path: Path) -> None:
    """NaN and infinities come back as NaN, next to unchanged numbers; the digest is that of the file read again."""
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger.open(path)
    ledger.put([entry([0.3, math.nan, math.inf, -math.inf, 1.0])])
    assert b'"scores":[0.3,null,null,null,1.0]' in path.read_bytes()
    again = Ledger.read(path)
    scores = again.scores(SEARCH, "counting", "deep/0.5")
    assert (scores[0], scores[4]) == (0.3, 1.0)
    assert all(map(math.isnan, scores[1:4]))
    assert again.sha256 == ledger.sha256
    ledger.close()


@pytest.mark.parametrize("odd", ["nan", True, [1.0], "0.5"])
def test_a_score_that_is_no_number_is_refused(odd: object, tmp_path: Path) -> None:
    """Words that Python would take for numbers are none."""
    with RecordLog(tmp_path / "ledger.jsonl") as log:
        log.append([{**entry([1.0]).to_dict(), "scores": [1.0, odd]}])
    with pytest.raises(CorruptError, match="a score is a number or null"):
        Ledger.read(tmp_path / "ledger.jsonl")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scores": [7]}, "a score is from 0 to 1"),
        ({"scores": [-0.5]}, "a score is from 0 to 1"),
        ({"cost": {"flops": "many"}}, r"cost\.flops is a number from 0"),
        ({"cost": {"flops": None}}, r"cost\.flops"),
        ({"cost": {"flops": 1e300}}, r"cost\.flops"),
        ({"cost": {"bytes_read": -1}}, r"cost\.bytes_read"),
        ({"cost": {"drafted": True}}, r"cost\.drafted"),
        ({"cost": {"joules": 1.0}}, "joules"),
        ({"cost": [1.0]}, "not a ledger entry"),
        ({"cost": None}, "not a ledger entry"),
    ],
)
def test_a_line_that_cannot_be_added_up_is_refused(change: dict[str, object], says: str, tmp_path: Path) -> None:
    """When the file is read, and not when the summary is made of it."""
    with RecordLog(tmp_path / "ledger.jsonl") as log:
        log.append([{**entry([1.0]).to_dict(), **change}])
    with pytest.raises(CorruptError, match=says):
        Ledger.read(tmp_path / "ledger.jsonl")


# -- one block


class Head(nn.Module):
    """A model that is all head: gives what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()

    def get_output_embeddings(self) -> nn.Module:
        """What is watched."""
        return self.head

    def forward(self, logits: Tensor) -> Tensor:
        """Logits as they are."""
        return cast(Tensor, self.head(logits))


class Fragile:
    """Scores a candidate by its rho; a batch with a guilty one fails as the model's passes do."""

    def __init__(self, guilty: Sequence[str], how: str, model: Head) -> None:
        self.guilty, self.how, self.model = guilty, how, model
        self.calls: list[list[str]] = []

    def evaluate(
        self, block: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        """One list per prototype."""
        self.calls.append([candidate.id for candidate in candidates])
        for name in dict.fromkeys(candidate.prototype.name for candidate in candidates):
            mine = [candidate for candidate in candidates if candidate.prototype.name == name]
            self._run(bool({candidate.id for candidate in mine} & set(self.guilty)), len(block))
            yield [BlockResult(c, ("x",) * len(block), (c.rho,) * len(block), Cost()) for c in mine]

    def unpruned(self, block: Sequence[Sample]) -> BlockResult:
        """Scores 1, unless it is guilty."""
        self._run(UNPRUNED in self.guilty, len(block))
        return BlockResult(None, ("x",) * len(block), (1.0,) * len(block), Cost())

    def _run(self, broken: bool, rows: int) -> None:
        if broken and self.how == "check":
            raise NotFiniteError("the features of prompts [0] hold NaN")
        if broken and self.how == "data":
            raise BadDataError("no such picture")
        with finite_logits(self.model):
            for step in range(3):
                logits = torch.zeros(rows, 2, 5)
                logits[:, -1, 0] = -math.inf  # forbids a token
                logits[:, 0] = math.nan  # padding
                if broken and step == 1:
                    logits[rows - 1, -1, 3] = math.inf if self.how == "infinity" else math.nan
                self.model(logits)


def asked(names: Sequence[str]) -> list[Candidate]:
    """Candidates of the small space."""
    return [SPACE.find(name) for name in names]


NAMES = ("deep/0.1", "deep/0.5", "middle/0.1", "middle/0.5", "middle/0.9", "hybrid/0.1")
BLOCK = samples(4, "s")


@pytest.mark.parametrize("how", ["check", "nan", "infinity"])
@pytest.mark.parametrize("guilty", [("middle/0.5",), ("deep/0.1", "hybrid/0.1"), NAMES])
def test_only_the_guilty_are_marked(how: str, guilty: tuple[str, ...]) -> None:
    """Whether the stages or the logits show it: all others have their scores, prototype by prototype, each once."""
    model = Head()
    fragile = Fragile(guilty, how, model)
    found = list(FiniteEvaluator(fragile).evaluate(BLOCK, asked(NAMES)))
    assert [[result.candidate.id for result in group if result.candidate] for group in found] == [
        ["deep/0.1", "deep/0.5"],
        ["middle/0.1", "middle/0.5", "middle/0.9"],
        ["hybrid/0.1"],
    ]
    for result in (result for group in found for result in group):
        assert result.candidate is not None
        odd = result.candidate.id in guilty
        assert result.answers == (("",) if odd else ("x",)) * 4
        assert all(math.isnan(score) if odd else score == result.candidate.rho for score in result.scores)
    assert not model.head._forward_hooks


def test_nothing_is_run_twice_where_all_is_well() -> None:
    """One call with all candidates, as without the guard."""
    model = Head()
    fragile = Fragile((), "check", model)
    assert len(list(FiniteEvaluator(fragile).evaluate(BLOCK, asked(NAMES)))) == 3
    assert fragile.calls == [list(NAMES)]


def test_other_errors_are_not_swallowed() -> None:
    """Neither from candidates nor from the stock model; and the hook is off again."""
    model = Head()
    guard = FiniteEvaluator(Fragile(("deep/0.5", UNPRUNED), "data", model))
    with pytest.raises(BadDataError, match="no such picture"):
        list(guard.evaluate(BLOCK, asked(NAMES)))
    with pytest.raises(BadDataError, match="no such picture"):
        guard.unpruned(BLOCK)
    assert not model.head._forward_hooks


@pytest.mark.parametrize("how", ["check", "nan"])
def test_the_stock_model_may_be_broken_too(how: str) -> None:
    """NaN for the block; no candidate is named."""
    model = Head()
    found = FiniteEvaluator(Fragile((UNPRUNED,), how, model)).unpruned(BLOCK)
    assert found.candidate is None
    assert all(map(math.isnan, found.scores))


# -- the decision


class Made:
    """Right on every tenth sample but the first few; NaN where ``odd`` says so."""

    def __init__(self, right: dict[str, int], odd: Callable[[str, Sample], bool]) -> None:
        self.right, self.odd = right, odd

    def evaluate(
        self, block: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        """One list per candidate."""
        for candidate in candidates:
            yield [self._result(candidate, candidate.id, self.right.get(candidate.id, 3), block)]

    def unpruned(self, block: Sequence[Sample]) -> BlockResult:
        """Always right, where it is finite."""
        return self._result(None, UNPRUNED, 10, block)

    def _result(self, candidate: Candidate | None, name: str, right: int, block: Sequence[Sample]) -> BlockResult:
        scores = [math.nan if self.odd(name, s) else float(s.source.index % 10 < right) for s in block]
        return BlockResult(candidate, ("",) * len(block), tuple(scores), Cost())


def judged(
    path: Path, right: dict[str, int], odd: Callable[[str, Sample], bool], strategy: str = "exhaustive"
) -> tuple[Candidate, Any, Ledger]:
    """Search and judge one class."""
    ledger = Ledger.open(path)
    search = Search([SPACE], Made(right, odd), ledger, 16, lambda _: None)
    (winner,) = search.winners(DATA, strategy)
    search.holdout(DATA, list(dict.fromkeys([SPACE.default, winner])))
    (verdict,) = decide([DATA], {"counting": winner}, SPACE, ledger, seed=0)
    return winner, verdict, ledger


def in_split(split: str, name: str) -> Callable[[str, Sample], bool]:
    """NaN for one candidate on one sample of a split."""
    return lambda asked, s: asked == name and s.source.dataset == f"made-{split}" and s.source.index == 17


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_no_strategy_takes_a_candidate_with_a_nan(strategy: str, tmp_path: Path) -> None:
    """The best of all but for one sample: the second best wins, and is taken."""
    right = {"middle/0.9": 10, "deep/0.9": 8}
    winner, verdict, ledger = judged(tmp_path / "l", right, in_split("s", "middle/0.9"), strategy)
    assert winner.id == "deep/0.9"
    assert verdict.searched
    pooled = choose_pooled(SPACE, ledger, ["counting"])
    assert pooled is not None
    assert pooled.candidate.id != "middle/0.9"
    assert {"candidate": "middle/0.9", "split": SEARCH, "samples": 1} in not_finite(ledger, "counting")
    ledger.close()


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_all_but_the_default_may_be_nan(strategy: str, tmp_path: Path) -> None:
    """Nothing to choose from: the default."""
    winner, verdict, ledger = judged(tmp_path / "l", {}, lambda name, _: name != SPACE.default.id, strategy)
    assert winner == verdict.chosen == SPACE.default
    assert verdict.reason == "the default was the best on the search split"
    assert (verdict.default_score, verdict.unpruned_score) == (pytest.approx(0.3), None)
    ledger.close()


@pytest.mark.parametrize("split", ["s", "h"])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_without_a_default_nothing_is_compared(strategy: str, split: str, tmp_path: Path) -> None:
    """One NaN of the default, on either split: it stays, and the reason counts the samples."""
    winner, verdict, ledger = judged(tmp_path / "l", {"deep/0.9": 8}, in_split(split, SPACE.default.id), strategy)
    assert winner.id == "deep/0.9"
    assert (verdict.chosen, verdict.paired, verdict.searched) == (SPACE.default, None, False)
    seen, odd = len(ledger.scores(SEARCH, "counting", SPACE.default.id)), int(split == "s")
    assert f"on {odd} of {seen} search and {1 - odd} of 40 holdout samples" in verdict.reason
    assert "nothing could be compared" in verdict.reason
    assert (verdict.default_score is None) == (split == "h")
    with pytest.raises(NotFiniteError, match=rf"in every class, on 1 of {seen + 40} samples.*--dtype float32"):
        check_default([DATA], [SPACE.default], ledger)
    ledger.close()


def test_a_winner_with_a_nan_on_the_holdout_is_not_taken(tmp_path: Path) -> None:
    """The class keeps the default, and it is not among those that Holm counts."""
    _, verdict, ledger = judged(tmp_path / "l", {"deep/0.9": 8}, in_split("h", "deep/0.9"))
    assert (verdict.chosen, verdict.paired, verdict.p_holm) == (SPACE.default, None, None)
    assert verdict.reason.startswith("deep/0.9 won the search but gave NaN or infinity on 1 of 40 holdout samples")
    assert verdict.default_score == pytest.approx(0.3)
    ledger.close()


def test_one_class_with_a_default_is_enough(tmp_path: Path) -> None:
    """The run is stopped only where no class can be compared; classes without samples do not count."""
    ledger = Ledger.open(tmp_path / "l")
    classes = [ClassData(name, (), ()) for name in ("counting", "scene", "text")]
    ledger.put([entry([1.0, math.nan], SPACE.default.id, split) for split in (SEARCH, HOLDOUT)])
    with pytest.raises(NotFiniteError, match="on 2 of 4 samples"):
        check_default(classes, [SPACE.default], ledger)
    ledger.put([entry([1.0, 0.0], SPACE.default.id, intent="scene")])
    check_default(classes, [SPACE.default], ledger)
    ledger.close()


def test_every_budget_needs_a_default(tmp_path: Path) -> None:
    """The first budget's is finite and the second's nowhere: the run stops and names the second's."""
    ledger = Ledger.open(tmp_path / "l")
    classes = [ClassData(name, (), ()) for name in ("counting", "scene", "text")]
    first, second = SPACE.default, replace(SPACE, further=FurtherBudget(16, (20, 10))).default
    assert second.id == f"{first.id}@16"
    for intent in ("counting", "scene"):
        ledger.put([entry([1.0, 0.0], first.id, intent=intent), entry([1.0, math.nan], second.id, intent=intent)])
    check_default(classes, [first], ledger)
    with pytest.raises(NotFiniteError, match=rf"{second.id}, gave NaN.*on 2 of 4 samples.*leave this --budget out"):
        check_default(classes, [first, second], ledger)
    ledger.put([entry([1.0, 0.0], second.id, intent="text")])
    check_default(classes, [first, second], ledger)
    ledger.close()


def test_many_marks_make_one_line() -> None:
    """Three are named, the others counted; a summary without marks, or of an earlier version, says nothing."""
    marks = [{"candidate": f"deep/0.{n}", "split": SEARCH, "samples": n} for n in range(1, 6)]
    told = not_finite_words([{"intent": "counting", "not_finite": marks}, {"intent": "scene"}])
    assert told is not None
    assert "counting deep/0.1 (1 search samples)" in told
    assert "and 2 more in summary.json" in told
    assert not_finite_words([{"intent": "scene", "not_finite": []}, {"intent": "text"}]) is None
