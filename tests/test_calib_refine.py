"""Points beside the grid: what they are called, what Optuna's strategies propose, and that they can be killed."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import calibrate
from test_calib_search import DATA, Made
from test_calib_strategies import SMALL, SPACE, blocks, drive, made, resume

from claspkit.calib.evaluator import Evaluator
from claspkit.calib.finished import read_finished
from claspkit.calib.ledger import SEARCH, Ledger
from claspkit.calib.search import Search
from claspkit.calib.space import Candidate, side_by_side, split_id
from claspkit.calib.strategies import STRATEGIES, Strategy, strategy_facts
from claspkit.calib.strategy_refine import ROUND, TRIALS, Refine
from claspkit.profiles.errors import MismatchError
from claspkit.profiles.profile import softmax_weights

by_optuna = pytest.mark.parametrize("name", ["random", "tpe"])
SIZES = blocks(200)
RIGHT = {"middle/0.3": 0.7, "middle/0.4": 0.7}


def points(strategy: Strategy) -> list[str]:
    """Ids that a strategy asked for beside the grid, in order, driven on the same made-up scores."""
    seen = drive(strategy, made(strategy.space, SIZES, RIGHT, 0.4))
    grid = {candidate.id for candidate in strategy.space.candidates}
    return [name for name in seen if name not in grid]


@given(st.sampled_from(SPACE.prototypes), st.data(), st.integers(0, 100))
def test_a_name_says_all_there_is(prototype: object, data: st.DataObject, hundredths: int) -> None:
    """A point is found again by its id alone; a common shift of the scores changes nothing."""
    base = next(each for each in SPACE.prototypes if each == prototype)
    size = len(base.layers)
    scores = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    point = Candidate(base.refined(scores), hundredths / 100)
    assert SPACE.find(point.id) == point
    assert point.prototype.layers == base.layers
    assert max(point.prototype.scores) == 1
    assert point.prototype.weights == pytest.approx(softmax_weights(scores, base.tau), rel=0.05)
    assert base.refined([score - 3 for score in point.prototype.scores]) == point.prototype
    assert base.refined(base.scores) is base


@pytest.mark.parametrize(
    "name", ["deep", "deep/", "deep/x", "nobody/0.1", "deep[0.1]/0.3", "deep[0.10,0.5,1]/0.3", "deep[a,b,c]/0.3", "/1"]
)
def test_what_is_no_id_is_not_found(name: str) -> None:
    """Not even one that means a candidate, but is not how it is called."""
    with pytest.raises(KeyError):
        SPACE.find(name)


def test_prototypes_are_put_side_by_side() -> None:
    """In the order of their first candidate, those beside the grid like all others."""
    deep, other = SPACE.prototypes[1], SPACE.prototypes[1].refined([0.3, 1, 0])
    mixed = [Candidate(deep, 0.1), Candidate(other, 0.2), SPACE.default, Candidate(deep, 0.7)]
    assert side_by_side(mixed) == [mixed[0], mixed[3], mixed[1], mixed[2]]


@by_optuna
def test_points_are_on_the_winners_layers(name: str) -> None:
    """At most as many as announced, no two the same, every one a candidate that the profile can hold."""
    found = points(STRATEGIES[name](SPACE, SIZES, 5))
    assert 0 < len(found) <= TRIALS
    for candidate in map(SPACE.find, found):
        assert candidate.prototype.name.startswith("middle[")
        assert candidate.prototype.layers == (2, 4, 5, 7)
        assert min(candidate.prototype.scores) >= 0
        assert 0 <= candidate.rho <= 1
    assert len({split_id(each)[1] for each in found}) > TRIALS / 2


@by_optuna
def test_the_seed_decides_the_points(name: str) -> None:
    """The same ones for the same seed, others for another, however large."""
    here = points(STRATEGIES[name](SPACE, SIZES, 2**40 + 1))
    assert here == points(STRATEGIES[name](SPACE, SIZES, 2**40 + 1))
    assert here != points(STRATEGIES[name](SPACE, SIZES, 2**40 + 2))


@pytest.mark.long
def test_another_process_proposes_the_same_points() -> None:
    """Nothing of a process, such as its hash seed, gets into them; Optuna says nothing meanwhile."""
    code = (
        "from test_calib_refine import *\n"
        "for name in ('random', 'tpe'): print(' '.join(points(STRATEGIES[name](SPACE, SIZES, 7))))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    here = [points(STRATEGIES[name](SPACE, SIZES, 7)) for name in ("random", "tpe")]
    assert [line.split() for line in there.stdout.splitlines()] == here
    assert there.stderr == ""


def test_a_point_is_scored_once() -> None:
    """A single layer has one parameter of 101 values: of 150 proposals a third at least is known."""
    strategy = Refine(SPACE, [40], optuna.samplers.RandomSampler(seed=1), ROUND, trials=150)
    seen = drive(strategy, lambda candidate: [float(candidate.prototype.name == "default")] * 40)
    beside = [name for name in seen if SPACE.find(name) not in SPACE.candidates]
    assert 50 < len(beside) < 101
    assert all(name.startswith("default/") for name in beside)


@by_optuna
def test_the_default_is_measured_as_far_as_the_points(name: str) -> None:
    """A race that ends on its first rung, whose winner then fails: default and winner go on to the last sample."""
    sizes = [32] * 8
    early = {"deep/0.1": [1.0, 1.0, 1.0, 0.0] * 8 + [0.0] * 224, SMALL.default.id: [1.0, 0.0] * 16 + [1.0] * 224}

    def scores(candidate: Candidate) -> list[float]:
        return early.get(candidate.id, [0.0] * 256)

    race = STRATEGIES["race"](SMALL, sizes)
    assert drive(race, scores)["deep/0.1"] == 32
    assert race.best().id == "deep/0.1"
    strategy = STRATEGIES[name](SMALL, sizes)
    seen = drive(strategy, scores)
    assert seen["deep/0.1"] == seen[SMALL.default.id] == 256
    assert strategy.best() == SMALL.default


class Heard(optuna.samplers.RandomSampler):
    """Remembers what it is told."""

    def after_trial(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        state: optuna.trial.TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Keep the trial's number and what became of it."""
        study.set_user_attr("heard", [*study.user_attrs.get("heard", []), (trial.number, state.name, values)])
        self.heard = study.user_attrs["heard"]


def test_optuna_hears_of_every_point_in_order() -> None:
    """The race's winner first, then the proposals as they were made; a point whose score is broken failed."""

    def scores(candidate: Candidate) -> list[float]:
        if candidate in SMALL.candidates:
            return [0.75 if candidate.id == "deep/0.5" else 0.25] * 40
        return [math.nan if candidate.rho < 0.5 else 0.5] * 40

    sampler = Heard(seed=2)
    strategy = Refine(SMALL, [40], sampler, 5, trials=12)
    seen = drive(strategy, scores)
    proposed = [SMALL.find(name).rho for name in list(seen)[len(SMALL.candidates) :]]
    told = [("FAIL", None) if rho < 0.5 else ("COMPLETE", [0.5]) for rho in proposed]
    assert len(told) == 12
    assert len(set(map(str, told))) == 2
    assert [tuple(each) for each in sampler.heard] == [
        (number, *each) for number, each in enumerate([("COMPLETE", [0.75]), *told])
    ]
    assert strategy.best().id == "deep/0.5"


@by_optuna
def test_finds_a_split_between_the_tenths(name: str) -> None:
    """Best at 0.35 and the better the nearer, on one prototype: the grid is 0.05 off, the refinement less."""
    nearer = 0
    for seed in range(10):
        strategy = STRATEGIES[name](SPACE, [40], seed)

        def scores(candidate: Candidate) -> list[float]:
            return [0.5 + 0.3 * candidate.prototype.name.startswith("middle") - abs(candidate.rho - 0.35)] * 40

        drive(strategy, scores)
        off = abs(strategy.best().rho - 0.35)
        assert strategy.best().prototype.name.startswith("middle")
        assert off < 0.051
        nearer += off < 0.049
    assert nearer >= 7


@by_optuna
@pytest.mark.parametrize("cut", [1, 20, 21, 22, 25, 31, 34])
def test_a_killed_refinement_goes_on_where_it_was(name: str, cut: int) -> None:
    """Killed in the race, before the first point, inside a round and between two: only what is missing is computed."""
    scores = made(SMALL, SIZES, {"deep/0.1": 0.7}, 0.5, 3)
    whole, killed, again = (STRATEGIES[name](SMALL, SIZES, 9) for _ in range(3))
    wanted = drive(whole, scores)
    known = drive(killed, scores, cut)
    assert resume(again, scores, known) == sum(wanted.values()) - sum(known.values()) > 0
    assert again.best() == whole.best()


def test_a_search_by_tpe_resumes_from_its_ledger(tmp_path: Path) -> None:
    """Cut in the middle of the proposed points: the same ledger, nothing that was there is asked for."""

    def run(path: Path) -> tuple[Candidate, str, list[tuple[str, int]]]:
        evaluator, ledger = Made({"middle/0.1": 6}, 4), Ledger.open(path)
        told: list[int] = []
        search = Search((SMALL,), cast(Evaluator, evaluator), ledger, 16, told.append, 4)
        winner = search.winners(DATA, "tpe")[0]
        assert sum(told) == search.bound(DATA, "tpe")
        ledger.close()
        return winner, ledger.sha256, evaluator.asked

    path = tmp_path / "ledger.jsonl"
    winner, digest, asked = run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-20]) + lines[-20][:15])
    again, same, more = run(path)
    assert (again, same) == (winner, digest)
    assert len(more) == 20
    assert set(more) <= set(asked)
    assert any("[" in name for name, _ in more)


def test_the_version_of_optuna_is_part_of_the_run() -> None:
    """Another version may propose other points; the strategies on the grid do not depend on it."""
    assert {name: strategy_facts(name) for name in STRATEGIES} == {
        "race": {},
        "two-pass": {},
        "exhaustive": {},
        "random": {"optuna": optuna.__version__},
        "tpe": {"optuna": optuna.__version__},
    }


@pytest.mark.long
def test_a_calibration_by_tpe_is_resumed_and_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mini, its ledger cut: the same profile id. Another Optuna is refused. The winners beside the grid are found."""
    folder = tmp_path / "run"
    first = calibrate(folder, strategy="tpe").profile
    assert first.calibration.environment["optuna"] == optuna.__version__
    ledger = folder / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[: len(lines) // 2]))
    assert calibrate(folder, strategy="tpe").profile.profile_id == first.profile_id
    run = read_finished(folder)
    beside = {intent: each for intent, each in run.winners().items() if each not in run.space.candidates}
    assert beside
    for intent, winner in beside.items():
        scores = {name: run.ledger.scores(SEARCH, intent, name) for name in run.ledger.candidates(SEARCH, intent)}
        most = max(map(len, scores.values()))
        assert sum(scores[winner.id]) == max(sum(values) for values in scores.values() if len(values) == most)
        _opened_with(run, intent, winner)
    monkeypatch.setattr("claspkit.calib.strategies.version", lambda _: "4.0.0")
    with pytest.raises(MismatchError, match=r'optuna: ".*" in the run, "4\.0\.0" asked for now'):
        calibrate(folder, strategy="tpe")


def _opened_with(run: object, intent: str, winner: Candidate) -> None:
    """A profile that has ``winner`` is understood; the same with other scores, or for a class without it, is not."""
    from claspkit.calib.finished import FinishedRun

    assert isinstance(run, FinishedRun)

    def taken(candidate: Candidate, scores: tuple[float, ...]) -> FinishedRun:
        change = {
            "prototype": candidate.prototype.name,
            "layers": candidate.prototype.layers,
            "scores": scores,
            "rho": candidate.rho,
        }
        specs = [s.model_copy(update=change) if s.intent == intent else s for s in run.profile.classes]
        return replace(run, profile=run.profile.model_copy(update={"classes": tuple(specs)}))

    assert taken(winner, winner.prototype.scores).decided()[intent] == winner
    with pytest.raises(MismatchError, match="does not search"):
        taken(winner, tuple(score / 2 for score in winner.prototype.scores)).decided()
    with pytest.raises(MismatchError, match="does not search"):
        taken(Candidate(winner.prototype, 0.123), winner.prototype.scores).decided()
