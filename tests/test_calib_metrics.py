"""Measures over many answers: known groups, and a run whose data asks yes-or-no questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import calibrate

from claspkit.calib.ledger import HOLDOUT, UNPRUNED, Entry, Ledger
from claspkit.calib.metrics import YesNoMeasures, holdout_measures, yes_no_measures
from claspkit.calib.report_measures import measures_table
from claspkit.calib.samples import Sample, Source, make_sample
from claspkit.calib.search import ClassData, Verdict
from claspkit.calib.space import Candidate, make_space
from claspkit.profiles.canonical import digest

SPACE = make_space(7)
OTHER = SPACE.candidates[5]


def test_known_measures() -> None:
    """Eight questions on four pictures, counted by hand: 3 true yes, 1 false yes, 2 true no, 1 false no, 1 neither."""
    said = ["yes", "yes", "yes", "no", "no", "no", None, "yes"]
    right = ["yes", "yes", "no", "no", "no", "yes", "yes", "yes"]
    pictures = ["a", "a", "b", "b", "c", "c", "d", "e"]
    assert yes_no_measures(said, right, pictures) == YesNoMeasures(
        questions=8,
        accuracy=5 / 8,
        precision=3 / 4,
        recall=3 / 5,
        f1=2 * 3 / (4 + 5),
        yes_share=4 / 8,
        unread=1 / 8,
        pairs=3,
        accuracy_plus=1 / 3,
    )


def test_what_has_no_value_is_none() -> None:
    """No yes at all leaves no precision, recall and F1; no picture with two questions no accuracy+."""
    none = yes_no_measures(["no", "no"], ["no", "no"], ["a", "b"])
    assert (none.accuracy, none.precision, none.recall, none.f1, none.pairs, none.accuracy_plus) == (
        1.0,
        *(None, None, None),
        *(0, None),
    )
    missed = yes_no_measures([None], ["yes"], ["a"])
    assert (missed.accuracy, missed.precision, missed.recall, missed.f1, missed.unread) == (0.0, None, 0.0, 0.0, 1.0)
    three = yes_no_measures(["yes"] * 3, ["yes"] * 3, ["a"] * 3)
    assert (three.pairs, three.accuracy_plus) == (0, None)  # MME's pictures have two


@pytest.mark.parametrize("lists", [([], [], []), (["yes"], [], ["a"]), (["yes"], ["no"], ["a", "b"])])
def test_lists_that_do_not_fit_are_refused(lists: tuple[list[str], list[str], list[str]]) -> None:
    """The error counts them."""
    with pytest.raises(ValueError, match="equal, non-empty lists, got"):
        yes_no_measures(*lists)


SAID = st.sampled_from(["yes", "no", None])


@given(st.lists(st.tuples(SAID, st.sampled_from(["yes", "no"]), st.sampled_from("abcdef")), min_size=1, max_size=30))
def test_measures_hang_together(rows: list[tuple[str | None, str, str]]) -> None:
    """Shares are shares; F1 is the harmonic mean; order does not matter."""
    said, right, pictures = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    found = yes_no_measures(said, right, pictures)
    shares = (found.accuracy, found.precision, found.recall, found.f1, found.yes_share, found.accuracy_plus)
    assert all(0 <= share <= 1 for share in shares if share is not None)
    if found.precision and found.recall:
        assert found.f1 == pytest.approx(2 * found.precision * found.recall / (found.precision + found.recall))
    mirrored = yes_no_measures(said[::-1], right[::-1], pictures[::-1])
    assert mirrored == found
    assert found.accuracy <= 1 - found.unread + 1e-12


def question(index: int, answers: Sequence[str], scorer: str, dataset: str = "set") -> Sample:
    """A question about picture ``index`` // 2."""
    return make_sample(
        image=f"{index // 2}.png",
        image_sha256=digest(f"picture {index // 2}"),
        prompt=f"Is it so ({index})?",
        answers=list(answers),
        scorer=scorer,
        source=Source(dataset, None, None, index),
    )


def ledger_of(path: Path, answers: dict[tuple[str, str], list[str]]) -> Ledger:
    """A ledger with holdout answers of (class, candidate), in blocks of two."""
    ledger = Ledger.open(path)
    for (intent, candidate), said in answers.items():
        blocks = [tuple(said[start : start + 2]) for start in range(0, len(said), 2)]
        ledger.put(
            Entry(HOLDOUT, intent, candidate, number, digest(number), (0.0,) * len(block), block)
            for number, block in enumerate(blocks)
        )
    return ledger


def verdict(intent: str, chosen: Candidate) -> Verdict:
    """A verdict of which only the chosen configuration matters."""
    return Verdict(intent, chosen, chosen, None, None, None, None, "")


def test_a_runs_measures_go_by_class_and_by_data_set(tmp_path: Path) -> None:
    """Each class is measured with its own chosen configuration; other questions are left out."""
    first = [question(i, [right], "pope@1", "A") for i, right in enumerate(("yes", "no", "yes", "no"))]
    second = [
        question(10, ["yes"], "mme@1", "A"),
        question(11, ["blue"], "exact_match@1", "A"),
        question(12, ["no"], "yes_no@1", "B"),
        question(14, ["yes", "no"], "yes_no@1", "B"),  # its references contradict each other
    ]
    third = [question(20, ["blue"], "exact_match@1", "B")]
    classes = [
        ClassData(name, (), tuple(samples)) for name, samples in (("one", first), ("two", second), ("three", third))
    ]
    verdicts = [verdict("one", OTHER), verdict("two", SPACE.default), verdict("three", SPACE.default)]
    said = {
        ("one", UNPRUNED): ["Yes", "No", "It is there.", "There is not."],
        ("one", SPACE.default.id): ["Yes", "Yes", "No", "No"],
        ("one", OTHER.id): ["Yes", "No", "Yes", "Yes"],
        ("two", UNPRUNED): ["yes", "blue", "no", "no"],
        ("two", SPACE.default.id): ["The answer is yes", "red", "No.", "no"],
        ("three", SPACE.default.id): ["blue"],
    }
    ledger = ledger_of(tmp_path / "ledger.jsonl", said)
    rows = {(row["over"], row["name"]): row for row in holdout_measures(classes, verdicts, SPACE, ledger)}
    assert list(rows) == [("class", "one"), ("class", "two"), ("dataset", "A"), ("dataset", "B")]
    one = rows["class", "one"]
    assert [one[name]["accuracy"] for name in ("unpruned", "default", "chosen")] == [1.0, 0.5, 0.75]
    assert (one["chosen"]["pairs"], one["chosen"]["accuracy_plus"], one["default"]["accuracy_plus"]) == (2, 0.5, 0.0)
    two = rows["class", "two"]
    assert (two["scorers"], two["default"]["questions"]) == (["mme@1", "yes_no@1"], 2)
    assert (two["default"]["accuracy"], two["default"]["unread"]) == (0.5, 0.5)  # MME reads four letters
    assert two["default"] == two["chosen"]
    assert [rows["dataset", "A"][name]["questions"] for name in ("unpruned", "chosen")] == [5, 5]
    assert rows["dataset", "A"]["chosen"]["accuracy"] == 3 / 5
    assert rows["dataset", "B"]["unpruned"]["accuracy"] == 1.0
    table = measures_table({"measures": list(rows.values())})
    assert table.count("<tr>") == 1 + 4 * 3
    assert "data set A" in table
    assert measures_table({"measures": []}) == measures_table({}) == ""
    ledger.close()


def test_answers_that_are_not_there_are_not_made_up(tmp_path: Path) -> None:
    """A configuration without an answer to every question has no measures, and the report no row for it."""
    data = ClassData("one", (), (question(0, ["yes"], "yes_no@1"), question(1, ["no"], "yes_no@1")))
    said = {("one", SPACE.default.id): ["yes", "no"], ("one", UNPRUNED): ["yes"]}
    ledger = ledger_of(tmp_path / "ledger.jsonl", said)
    (row, _) = holdout_measures([data], [verdict("one", SPACE.default)], SPACE, ledger)
    assert row["unpruned"] is None
    assert row["default"] == row["chosen"] is not None
    assert measures_table({"measures": [row]}).count("<tr>") == 1 + 2
    ledger.close()


def test_a_run_over_yes_or_no_questions_reports_their_measures(tmp_path: Path) -> None:
    """The pipeline's summary has what can be counted again from its ledger; the report shows it."""
    summary = calibrate(tmp_path / "run", scorer="yes_no@1").summary
    by_class, by_dataset = summary["measures"]
    (row,) = (row for row in summary["classes"] if row["intent"] == "default")
    assert (by_class["over"], by_class["name"], by_dataset["over"]) == ("class", "default", "dataset")
    for name, score in (("unpruned", row["unpruned"]), ("default", row["default"])):
        assert by_class[name]["accuracy"] == pytest.approx(score)
        assert by_class[name]["questions"] == row["n_holdout"]
        assert by_class[name] == by_dataset[name]
    assert "Yes-or-no questions" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
