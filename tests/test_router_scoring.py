"""A router's scores, against figures worked out by hand."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import INTENT_IDS
from claspkit.router.labels import Label, settle
from claspkit.router.scoring import (
    accuracy_at,
    calibration_error,
    class_scores,
    confusion_matrix,
    coverage_curve,
    rejection,
    score,
    threshold_for,
)

PAIRS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])), min_size=1, max_size=30)


def test_confusion_precision_recall_and_f1() -> None:
    """Three of four texts found, one taken for an object; one object taken for a text."""
    truth = ["text"] * 4 + ["object"] * 2
    given_labels = ["text", "text", "text", "object", "object", "text"]
    confusion = confusion_matrix(truth, given_labels)
    assert confusion[2][2] == 3
    assert confusion[2][0] == confusion[0][0] == confusion[0][2] == 1
    assert sum(map(sum, confusion)) == 6
    rows = {row.intent: row for row in class_scores(confusion)}
    text, thing, scene = rows["text"], rows["object"], rows["scene"]
    assert (text.prompts, text.precision, text.recall, text.f1) == (4, 0.75, 0.75, 0.75)
    assert (thing.prompts, thing.precision, thing.recall, thing.f1) == (2, 0.5, 0.5, 0.5)
    assert (scene.prompts, scene.precision, scene.recall, scene.f1) == (0, 0, 0, 0)


def test_calibration_error_by_hand() -> None:
    """Two bins of two: |0.9 - 0.5| and |0.3 - 0.5| weigh the same; borders belong to the bin below."""
    assert calibration_error([True, False, True, False], [0.9, 0.9, 0.3, 0.3], bins=2) == pytest.approx(0.3)
    assert calibration_error([True, False], [1.0, 0.0]) == 0
    assert calibration_error([True, False], [0.5, 0.5], bins=2) == 0
    assert calibration_error([True, False], [0.5, 0.51], bins=2) == pytest.approx((0.5 + 0.51) / 2)


def test_coverage_curve_by_hand() -> None:
    """Prompts of one confidence come in together."""
    right, sure = [True, True, False, True], [0.9, 0.5, 0.5, 0.1]
    assert coverage_curve(right, sure) == ((0.9, 0.25, 1.0), (0.5, 0.75, 2 / 3), (0.1, 1.0, 0.75))
    assert accuracy_at(right, sure, 0.25) == 1
    assert accuracy_at(right, sure, 0.5) == pytest.approx(0.75)
    assert accuracy_at(right, sure, 0.75) == pytest.approx(2 / 3)
    assert accuracy_at(right, sure, 1) == pytest.approx(0.75)
    assert accuracy_at([True] * 17 + [False] * 3, [1 - n / 20 for n in range(20)], 0.85) == 1


def test_the_lowest_fitting_threshold() -> None:
    """Not the first that fits from above: a lower one may fit again."""
    right, sure = [True, False, True, True, True, False], [0.9, 0.8, 0.7, 0.6, 0.5, 0.1]
    assert threshold_for(right, sure, 1.0) == 0.9
    assert threshold_for(right, sure, 0.75) == 0.5
    assert threshold_for(right, sure, 0.5) == 0.1
    assert threshold_for([False], [1.0], 0.5) is None
    assert threshold_for(right, sure, 1.0, at_least=2) is None
    assert threshold_for(right, sure, 0.75, at_least=5) == 0.5
    assert threshold_for(right, sure, 0.75, at_least=6) is None


@given(PAIRS, st.floats(0.01, 1))
def test_the_curve_ends_at_the_whole_and_ignores_order(pairs: list[tuple[bool, float]], coverage: float) -> None:
    """Accuracy at coverage 1 is the accuracy; shuffling changes nothing."""
    right, sure = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    curve = coverage_curve(right, sure)
    assert curve[-1][1:] == (1.0, sum(right) / len(right))
    shuffled = random.Random(0).sample(pairs, len(pairs))
    other_right, other_sure = [pair[0] for pair in shuffled], [pair[1] for pair in shuffled]
    assert coverage_curve(other_right, other_sure) == curve
    assert accuracy_at(other_right, other_sure, coverage) == accuracy_at(right, sure, coverage)
    assert accuracy_at(right, sure, 1) == pytest.approx(sum(right) / len(right))
    assert 0 <= calibration_error(right, sure) <= 1


def test_score_puts_it_together() -> None:
    """Two of three right; the mean F1 is that of classes which have prompts."""
    labels = [Label(intent, None, sure, "s", "t") for intent, sure in (("text", 0.8), ("scene", 0.6), ("text", 0.4))]
    found = score(["text", "scene", "scene"], labels)
    assert found.prompts == 3
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.macro_f1 == pytest.approx(2 / 3)
    assert found.calibration_error == pytest.approx((0.2 + 0.4 + 0.4) / 3)
    assert found.accuracy_at_coverage == pytest.approx(2 / 3)
    assert [row.intent for row in found.classes] == list(INTENT_IDS)
    assert found.to_dict()["confusion"][3][2] == 1


def test_scoring_needs_as_many_truths_as_labels() -> None:
    """Nothing to score, or lists of different lengths, is refused."""
    for truth in ([], ["text"]):
        with pytest.raises(UsageError, match="one true intent per label"):
            score(truth, [])


def test_rejection_by_hand() -> None:
    """Of four, one is rejected rightly, one wrongly; a rejected prompt counts if it is of the default class."""
    truth = ["text", "object", "default", "scene"]
    labels = [
        Label("text", "text_reading", 0.9, "s", "t"),
        Label("scene", None, 0.8, "s", "t"),
        Label("text", None, 0.3, "s", "t"),
        Label("scene", None, 0.2, "s", "t"),
    ]
    found = rejection(truth, labels, 0.8)
    assert (found.threshold, found.coverage, found.accepted_accuracy, found.accuracy) == (0.8, 0.5, 0.5, 0.5)
    assert rejection(truth, labels, 0).accuracy == 0.5
    nothing = rejection(truth, labels, 1)
    assert (nothing.coverage, nothing.accepted_accuracy, nothing.accuracy) == (0, None, 0.25)
    settled = settle(labels[2], 0.5, "scene")
    assert (settled.intent, settled.fine, settled.confidence, settled.source) == ("scene", None, 0.3, "s")
    assert settle(labels[0], 0.9, "default") is labels[0]
    with pytest.raises(UsageError, match="one true intent per label"):
        rejection([], [], 0.5)


@given(st.lists(st.tuples(*[st.sampled_from(INTENT_IDS)] * 2, st.sampled_from([0.0, 0.3, 0.7, 1.0])), min_size=1))
def test_rejection_agrees_with_the_curve_and_the_whole(rows: list[tuple[str, str, float]]) -> None:
    """At a confidence that occurs it is the curve's point; at 0 it is the plain accuracy."""
    truth = [true for true, _, _ in rows]
    labels = [Label(intent, None, sure, "s", "t") for _, intent, sure in rows]
    scores = score(truth, labels)
    for threshold, coverage, accuracy in scores.curve:
        found = rejection(truth, labels, threshold)
        assert found.coverage == pytest.approx(coverage)
        assert found.accepted_accuracy == pytest.approx(accuracy)
    assert rejection(truth, labels, 0).accuracy == pytest.approx(scores.accuracy)
