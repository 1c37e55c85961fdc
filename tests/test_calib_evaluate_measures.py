"""What benchmarks report of many answers: hand-worked values, another way to the same number, intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from claspkit.calib.evaluate_measures import ACCURACY, CIRCULAR, F1, MEASURES, TOTAL, interval, measure_of, tally
from claspkit.calib.evidence import interval_of
from claspkit.calib.metrics import yes_no_measures
from claspkit.calib.samples import Sample, Source, make_sample
from claspkit.calib.scorers import score_answer
from claspkit.calib.sources import Mark
from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import BadDataError


def row(number: int, picture: int, right: str, scorer: str, choices: Sequence[str] | None = None) -> Sample:
    """A question about a picture."""
    return make_sample(
        image=f"{picture}.png",
        image_sha256=sha256_hex(str(picture).encode()),
        prompt=f"Question {number}?",
        answers=[right],
        choices=list(choices) if choices else None,
        scorer=scorer,
        source=Source("made up", None, None, number),
    )


def drawn(count: int, scorer: str, seed: int, categories: int) -> tuple[list[Sample], dict[str, Mark], list[str]]:
    """Two questions about each of ``count`` pictures, in categories, and answers that are mostly right."""
    random = np.random.default_rng(seed)
    samples, marks, answers = [], {}, []
    for number in range(2 * count):
        sample = row(number, number // 2, str(random.choice(["yes", "no"])), scorer)
        samples.append(sample)
        marks[sample.uid] = Mark(f"part {number // 2 % categories}", f"q{number // 2}")
        wrong = {"yes": "no", "no": "yes"}[sample.answers[0]]
        answers.append(str(random.choice([sample.answers[0], wrong, "a cat"], p=[0.7, 0.2, 0.1])))
    return samples, marks, answers


def scored(samples: Sequence[Sample], answers: Sequence[str]) -> list[float]:
    """The rows' scores."""
    return [score_answer(sample, answer) for sample, answer in zip(samples, answers, strict=True)]


def test_mme_is_accuracy_and_accuracy_of_pairs_over_the_categories() -> None:
    """By hand: one category of two pictures, three of four questions right, one pair; another all right."""
    samples = [row(n, n // 2, "yes", "mme@1") for n in range(6)]
    marks = {sample.uid: Mark("ocr" if n < 4 else "count") for n, sample in enumerate(samples)}
    answers = ["Yes", "yes.", "no", "Yes, it is", "yes", "yes"]
    assert measure_of(samples, marks) == TOTAL
    found = tally(TOTAL, samples, marks, scored(samples, answers), answers)
    assert found.score == pytest.approx((75 + 50) + (100 + 100))


@pytest.mark.parametrize("seed", range(5))
def test_mme_is_what_counting_question_by_question_gives(seed: int) -> None:
    """Per picture 100 times the share right, and 100 where both are; mean over pictures, sum over categories."""
    samples, marks, answers = drawn(40, "mme@1", seed, 3)
    by_picture: dict[tuple[str | None, str | None], list[float]] = defaultdict(list)
    for sample, score in zip(samples, scored(samples, answers), strict=True):
        by_picture[marks[sample.uid].category, marks[sample.uid].question].append(score)
    parts: dict[str | None, list[float]] = defaultdict(list)
    for (category, _), scores in by_picture.items():
        parts[category].append(100 * sum(scores) / 2 + 100 * (sum(scores) == 2))
    expected = sum(sum(values) / len(values) for values in parts.values())
    assert tally(TOTAL, samples, marks, scored(samples, answers), answers).score == pytest.approx(expected)


def test_mme_without_a_pair_is_refused() -> None:
    """Where a cut took every second question of a category there is no total."""
    samples = [row(n, n, "yes", "mme@1") for n in range(3)]
    marks = {sample.uid: Mark("ocr") for sample in samples}
    with pytest.raises(BadDataError, match="the category 'ocr' has none"):
        tally(TOTAL, samples, marks, [1.0] * 3, ["yes"] * 3)


@pytest.mark.parametrize("seed", range(5))
def test_pope_is_the_mean_of_the_categories_f1(seed: int) -> None:
    """Each is what the measures of a calibration's summary say."""
    samples, marks, answers = drawn(45, "pope@1", seed, 3)
    assert measure_of(samples, marks) == F1
    parts = []
    for part in range(3):
        rows = [i for i, sample in enumerate(samples) if marks[sample.uid].category == f"part {part}"]
        said = ["yes" if answers[i] != "no" else "no" for i in rows]  # POPE takes whatever is not a no for a yes
        mine = yes_no_measures(said, [samples[i].answers[0] for i in rows], [samples[i].image_sha256 for i in rows])
        assert mine.f1 is not None
        parts.append(mine.f1)
    found = tally(F1, samples, marks, scored(samples, answers), answers)
    assert found.score == pytest.approx(sum(parts) / 3)


def test_a_question_with_turned_copies_is_right_in_all_or_wrong() -> None:
    """MMBench: four rows are two questions, and one of them fails in one copy."""
    samples = [row(n, n // 2, "cat", "multiple_choice@1", ["cat", "dog"]) for n in range(4)]
    marks = {sample.uid: Mark(question=str(n // 2)) for n, sample in enumerate(samples)}
    assert measure_of(samples, marks) == CIRCULAR
    assert tally(CIRCULAR, samples, marks, [1.0, 1.0, 1.0, 0.0], ["A", "A", "A", "B"]).score == 0.5
    assert measure_of(samples, {}) == ACCURACY
    assert measure_of(samples, {sample.uid: Mark(question=sample.uid) for sample in samples}) == ACCURACY


def test_rows_with_several_scorers_have_their_mean_score() -> None:
    """A file may hold anything."""
    samples = [row(0, 0, "yes", "mme@1"), row(1, 1, "yes", "pope@1")]
    assert measure_of(samples, {}) == ACCURACY
    assert tally(ACCURACY, samples, {}, [1.0, 0.0], ["yes", "no"]).score == 0.5


@pytest.mark.parametrize(("measure", "scorer"), [(ACCURACY, "yes_no@1"), (F1, "pope@1"), (TOTAL, "mme@1")])
def test_a_way_does_not_differ_from_itself(measure: str, scorer: str) -> None:
    """And a worse one is worse, also at the interval's upper end."""
    samples, marks, answers = drawn(60, scorer, 1, 3)
    same = tally(measure, samples, marks, scored(samples, answers), answers)
    assert interval(same, same, 0) == (0.0, 0.0)
    worse = ["no" if sample.answers[0] == "yes" else "yes" for sample in samples]
    other = tally(measure, samples, marks, scored(samples, worse), worse)
    found = interval(other, same, 0)
    assert found is not None
    low, high = found
    assert low < other.score - same.score < high < 0
    assert interval(other, same, 0) == (low, high)


def test_one_picture_has_no_interval() -> None:
    """All its draws are alike: an interval of no width would say that other pictures do as it does."""
    samples = [row(number, 0, "yes", "yes_no@1") for number in range(9)]
    good, bad = (tally(ACCURACY, samples, {}, [score] * 9, [""] * 9) for score in (1.0, 0.5))
    assert interval(bad, good, 0) is None
    samples = [row(number, number // 2, "yes", "mme@1") for number in range(4)]
    marks = {sample.uid: Mark(f"category {number // 2}") for number, sample in enumerate(samples)}
    good, bad = (tally(TOTAL, samples, marks, [score] * 4, [""] * 4) for score in (1.0, 0.0))
    assert interval(bad, good, 0) is None
    assert bad.score - good.score == -400.0


def test_the_interval_of_a_mean_is_the_bootstrap_of_the_calibrations_evidence() -> None:
    """Drawn otherwise, so equal up to the noise of 10,000 draws: a hundredth."""
    samples, marks, answers = drawn(80, "yes_no@1", 2, 1)
    _, _, others = drawn(80, "yes_no@1", 2, 1)
    others = ["yes"] * len(others)
    ours, theirs = scored(samples, answers), scored(samples, others)
    pair = [tally(ACCURACY, samples, marks, scores, said) for scores, said in ((ours, answers), (theirs, others))]
    expected = interval_of(np.array(ours) - np.array(theirs), [sample.image_sha256 for sample in samples], 0)
    assert interval(pair[0], pair[1], 0) == pytest.approx(expected, abs=0.01)


def test_every_measure_has_words() -> None:
    """The terminal says what a score is."""
    assert set(MEASURES) == {ACCURACY, CIRCULAR, F1, TOTAL}
