"""Every scorer against answers whose worth is known."""

import json
import re
import string
from dataclasses import dataclass

import pytest
from house import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.calib.answers import (
    answer_key,
    as_number,
    chosen_option,
    edit_distance,
    named_option,
    yes_or_no,
)
from claspkit.calib.published import gqa_key, mme_reading, pope_reading, vqa_key
from claspkit.calib.scorers import READINGS, SCORERS, default_scorer, get_scorer, score_answer
from claspkit.profiles.errors import UsageError

DOCS = (ROOT / "docs" / "scorers.md").read_text(encoding="utf-8")
PETS = ["dog", "cat", "red fox", "fox"]
MANY = 15  # golden rows of every scorer, at least


@dataclass(frozen=True)
class Golden:
    """An answer, and what it is worth: here by a published rule or worked out by hand, there as lmms-eval's code says.

    ``task`` is the task of lmms-eval that is compared with, None where it has none for such a row.
    """

    scorer: str
    prediction: str
    answers: list[str]
    choices: list[str] | None
    score: float
    source: str
    task: str | None
    theirs: float | None


GOLDEN = [
    Golden(**json.loads(line))
    for line in (ROOT / "tests" / "golden" / "scorers.jsonl").read_text(encoding="utf-8").splitlines()
]

# scorer -> (a reference, options) that the reference itself must fully score on
PERFECT: dict[str, tuple[str, list[str] | None]] = {
    "exact_match@1": ("a red fox", None),
    "vqa_accuracy@1": ("red", None),
    "anls@1": ("Invoice No. 7", None),
    "relaxed_accuracy@1": ("12.5%", None),
    "multiple_choice@1": ("cat", PETS),
    "vqa_accuracy@2": ("the girl's t-shirt", None),
    "yes_no@1": ("yes", None),
    "gqa@1": ("a red fox", None),
    "pope@1": ("yes", None),
    "mme@1": ("yes", None),
    "contains@1": ("red fox", None),
}


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row.scorer} {row.prediction[:20]!r} {row.task}")
def test_known_worth(row: Golden) -> None:
    assert SCORERS[row.scorer](row.prediction, row.answers, row.choices) == pytest.approx(row.score)


@pytest.mark.parametrize("name", SCORERS)
class TestContract:
    """What every row of SCORERS keeps."""

    def test_has_golden_rows_and_documentation(self, name: str) -> None:
        mine = [(row.prediction, row.answers, row.choices, row.task) for row in GOLDEN if row.scorer == name]
        assert all(mine.count(row) == 1 for row in mine)
        assert len(mine) >= MANY
        assert f"| `{name}` |" in DOCS

    def test_the_reference_itself_is_worth_one(self, name: str) -> None:
        answer, choices = PERFECT[name]
        for count in (1, 3, 10):
            assert SCORERS[name](answer, [answer] * count, choices) == 1.0

    def test_case_and_outer_space_do_not_matter(self, name: str) -> None:
        answer, choices = PERFECT[name]
        assert SCORERS[name](f"\n {answer.upper()} ", [answer], choices) == 1.0

    @pytest.mark.parametrize("nothing", ["", " ", "\n\t", "\u200b", ".", "?!"])
    def test_nothing_said_is_worth_nothing(self, name: str, nothing: str) -> None:
        answer, choices = PERFECT[name]
        assert SCORERS[name](nothing, [answer], choices) == 0.0

    @settings(max_examples=40, deadline=None)
    @given(prediction=st.text(max_size=40), answers=st.lists(st.text(max_size=20), max_size=5))
    def test_any_text_is_worth_between_zero_and_one(
        self, name: str, prediction: str, answers: list[str]
    ) -> None:
        for choices in (None, ["x", "y"], answers):
            score = SCORERS[name](prediction, answers, choices)
            assert 0.0 <= score <= 1.0
            assert score == SCORERS[name](prediction, answers, choices)


def test_every_golden_row_belongs_to_a_scorer() -> None:
    assert {row.scorer for row in GOLDEN} == SCORERS.keys() == PERFECT.keys()
    assert {row.source for row in GOLDEN} == {"published rule", "by hand"}
    assert all((row.task is None) == (row.theirs is None) for row in GOLDEN)


def test_every_measure_of_the_field_is_compared_with() -> None:
    """Each scorer has rows whose worth in lmms-eval is known, both equal to ours and not."""
    tasks = {"vqav2_val", "textvqa_val", "docvqa_val", "chartqa", "pope", "mme", "gqa", "scienceqa_img", "seedbench"}
    assert {row.task for row in GOLDEN} >= tasks
    for name in SCORERS:
        same = {row.theirs == pytest.approx(row.score) for row in GOLDEN if row.scorer == name and row.task}
        assert same == ({True} if name == "mme@1" else {True, False}), name


def test_the_documented_differences_are_those_of_the_golden_rows() -> None:
    """The table names every golden row that lmms-eval scores otherwise, and nothing else."""
    line = re.compile(
        r"^\| `(?P<scorer>[a-z_]+@\d)` \| `(?P<task>[a-z0-9_]+)` \| `(?P<prediction>.+?)` \| `(?P<answers>\[.+?\])`"
        r"(?: x (?P<count>\d+))? \| (?P<ours>[\d.]+) \| (?P<theirs>[\d.]+) \| (?P<why>.+) \|$",
        flags=re.MULTILINE,
    )
    documented = [
        (
            *(found["scorer"], found["task"], json.loads(found["prediction"])),
            json.loads(found["answers"]) * int(found["count"] or 1),
            *(float(found["ours"]), float(found["theirs"])),
        )
        for found in line.finditer(DOCS)
    ]
    differing = [
        (row.scorer, row.task, row.prediction, row.answers, round(row.score, 3), round(row.theirs, 3))
        for row in GOLDEN
        if row.theirs is not None and row.theirs != pytest.approx(row.score)
    ]
    assert documented == differing
    assert len(documented) > 50


def test_an_unknown_scorer_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no scorer 'bleu'.*exact_match@1, vqa_accuracy@1"):
        get_scorer("bleu")
    assert default_scorer(["a", "b"]) == "multiple_choice@1"
    assert default_scorer(None) == "exact_match@1"


def test_a_sample_names_its_own_scorer() -> None:
    class Asked:
        answers = ("cat",)
        choices = ("dog", "cat")
        scorer = "multiple_choice@1"

    assert score_answer(Asked(), "B") == 1.0
    assert score_answer(Asked(), "A") == 0.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12.0),
        ("-1.5", -1.5),
        ("−1.5", -1.5),
        ("+3", 3.0),
        (".5", 0.5),
        ("7.", 7.0),
        ("12%", 0.12),
        ("1,234,567", 1234567.0),
        ("12,34", None),
        ("€ 3", 3.0),
        ("1e3", 1000.0),
        ("seven", 7.0),
        ("12 dogs", None),
        ("nan", None),
        ("inf", None),
        ("٣", 3.0),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_numbers(text: str, value: float | None) -> None:
    assert as_number(text) == value


def test_the_order_in_which_an_option_is_understood() -> None:
    assert chosen_option("A", ["B", "A"]) == 0  # a bare letter is what the prompt asked for
    assert named_option("A", ["B", "A"]) == 1  # a reference is the text where it can be
    assert named_option("B.", ["x", "y"]) == 1
    assert named_option("neither", ["x", "y"]) is None
    assert named_option("x", ["x", "x"]) is None
    assert chosen_option("E. fox", ["dog", "fox"]) == 1  # a letter too far says nothing, the text does


@given(st.text(alphabet=string.ascii_letters + string.digits + " .,-%'$", max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_key_of_a_key_is_itself(text: str) -> None:
    key = answer_key(text)
    assert answer_key(answer_key(key)) == answer_key(key)


@given(st.text(alphabet="abc", max_size=8), st.text(alphabet="abc", max_size=8))
@settings(max_examples=50, deadline=None)
def test_edit_distance_is_a_distance(left: str, right: str) -> None:
    distance = edit_distance(left, right)
    assert distance == edit_distance(right, left)
    assert (distance == 0) == (left == right)
    assert abs(len(left) - len(right)) <= distance <= max(len(left), len(right))


def test_yes_or_no_reads_the_first_sentence() -> None:
    assert yes_or_no("Hmm. Yes") is None
    assert yes_or_no("No. Yes.") == "no"
    assert yes_or_no("\n\nyes\nno") == "yes"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("The Dog.", "dog"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldn't've"),
        ("its", "its"),
        ("were", "were"),
        ("2:50 PM", "2:50 pm"),
        ("1,234,567.5", "1234567.5"),
        ("1, 234", "1 234"),
        ("$5 & 50%", "$5 & 50%"),
        ("a/b (c) [d] {e}", "b c d e"),
        ("U.S.A.", "usa"),
        ("the", "the"),
        ("twenty one", "20 1"),
        ("...", ""),
    ],
)
def test_the_key_of_the_vqa_evaluation(text: str, key: str) -> None:
    assert vqa_key(text) == key
    assert vqa_key(vqa_key(text)) == key


def test_an_old_version_scores_as_it_did() -> None:
    """What the second version changed is unchanged in the first."""
    for said, reference in (("girls", "girl's"), ("50 percent", "50%"), ("vitamin A", "vitamin a")):
        assert SCORERS["vqa_accuracy@1"](said, [reference] * 10, None) == 1.0
    assert SCORERS["vqa_accuracy@2"]("girls", ["girl's"] * 10, None) == 0.0


def test_readings_belong_to_scorers_of_yes_and_no() -> None:
    """A reading says what its scorer scores by."""
    assert READINGS.keys() == {"yes_no@1", "pope@1", "mme@1"} < SCORERS.keys()
    for name, read in READINGS.items():
        for said in ("Yes", "no", "Not at all", "Nothing", "It is so", "", "Maybe, no", "y"):
            right = [answer for answer in ("yes", "no") if SCORERS[name](said, [answer], None)]
            assert right == ([] if read(said) is None else [read(said)]), (name, said)
    assert [pope_reading("Is it? No"), mme_reading("Is it? No"), yes_or_no("Is it? No")] == ["no", None, None]
    assert gqa_key("A t-shirt!") == "a tshirt"
