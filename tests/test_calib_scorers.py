"""Every scorer against answers whose worth is known."""

import string

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
from claspkit.calib.scorers import SCORERS, default_scorer, get_scorer, score_answer
from claspkit.profiles.errors import UsageError

PETS = ["dog", "cat", "red fox", "fox"]
SIX_OF_TEN = ["red"] * 6 + ["dark red"] * 3 + ["maroon"]

# scorer -> (prediction, references, options, score)
Golden = tuple[str, list[str], list[str] | None, float]
GOLDEN: dict[str, list[Golden]] = {
    "exact_match@1": [
        ("cat", ["cat"], None, 1.0),
        ("The Cat.", ["cat"], None, 1.0),
        ("  a  CAT!\n", ["the cat"], None, 1.0),
        ("two", ["2"], None, 1.0),
        ("1,200", ["1200"], None, 1.0),
        ("1, 200", ["1200"], None, 0.0),
        ("−5", ["-5"], None, 1.0),
        ("5", ["-5"], None, 0.0),
        ("50 percent", ["50 %"], None, 1.0),
        ("3.5.", ["3.5"], None, 1.0),
        ("don't", ["dont"], None, 1.0),
        ("t-shirt", ["T shirt"], None, 1.0),
        ("U.S.", ["us"], None, 1.0),
        ("cats", ["cat"], None, 0.0),
        ("cat", ["dog", "cat"], None, 1.0),
        ("A", ["a"], None, 1.0),
        ("K", ["A K"], None, 0.0),
        ("A K", ["K A"], None, 0.0),
        ("vitamin A", ["the vitamin"], None, 0.0),
        ("an 8", ["8"], None, 1.0),
        ("a", ["the"], None, 0.0),
        ("", ["cat"], None, 0.0),
        ("the", ["cat"], None, 0.0),
        ("__import__('os').getcwd()", ["__import__('os').getcwd()"], None, 1.0),
    ],
    "vqa_accuracy@1": [
        ("red", ["red"] * 10, None, 1.0),
        ("Red.", SIX_OF_TEN, None, 1.0),
        ("dark red", SIX_OF_TEN, None, (3 * 2 / 3 + 7 * 1) / 10),
        ("maroon", SIX_OF_TEN, None, 9 * (1 / 3) / 10),
        ("two", ["2"] * 2 + ["3"] * 8, None, (2 * (1 / 3) + 8 * (2 / 3)) / 10),
        ("blue", SIX_OF_TEN, None, 0.0),
        ("red", ["red"], None, 1.0),
        ("red", ["red", "blue"], None, 0.5),
        ("a red", ["red"] * 4, None, 1.0),
        ("none", ["0"] * 10, None, 1.0),
        ("", ["red"] * 10, None, 0.0),
        ("red", [], None, 0.0),
    ],
    "anls@1": [
        ("invoice", ["invoice"], None, 1.0),
        ("INVOICE ", ["invoice"], None, 1.0),
        ("invoise", ["invoice"], None, 1 - 1 / 7),
        ("ab", ["abcd"], None, 0.5),
        ("a", ["abcd"], None, 0.0),
        ("hello world", ["hello  world"], None, 1.0),
        ("1234", ["1235", "9999"], None, 0.75),
        ("kitten", ["sitting"], None, 1 - 3 / 7),
        ("x" * 100_000, ["short"], None, 0.0),
        ("", ["invoice"], None, 0.0),
        ("the total", ["total"], None, 1 - 4 / 9),
    ],
    "relaxed_accuracy@1": [
        ("100", ["100"], None, 1.0),
        ("105", ["100"], None, 1.0),
        ("95", ["100"], None, 1.0),
        ("105.1", ["100"], None, 0.0),
        ("1.05", ["1"], None, 1.0),
        ("1,040", ["1000"], None, 1.0),
        ("-0.51", ["−0.5"], None, 1.0),
        ("0.51", ["-0.5"], None, 0.0),
        ("50%", ["0.5"], None, 1.0),
        ("50%", ["50"], None, 0.0),
        ("0.0", ["0"], None, 1.0),
        ("0.01", ["0"], None, 0.0),
        ("$42", ["42"], None, 1.0),
        ("two", ["2"], None, 1.0),
        ("Blue", ["the blue"], None, 1.0),
        ("blue", ["green"], None, 0.0),
        ("1e999", ["1"], None, 0.0),
        ("", ["0"], None, 0.0),
    ],
    "multiple_choice@1": [
        ("B", ["cat"], PETS, 1.0),
        ("b", ["B"], PETS, 1.0),
        ("B. cat", ["cat"], PETS, 1.0),
        ("(C)", ["red fox"], PETS, 1.0),
        ("[d]", ["fox"], PETS, 1.0),
        ("B. dog", ["cat"], PETS, 1.0),
        ("Cat!", ["B"], PETS, 1.0),
        ("The answer is B", ["cat"], PETS, 1.0),
        ("Answer: (b)", ["cat"], PETS, 1.0),
        ("I would say option C, clearly.", ["red fox"], PETS, 1.0),
        ("A cat sits there", ["cat"], PETS, 1.0),
        ("The answer is a dog", ["dog"], PETS, 1.0),
        ("A", ["cat"], PETS, 0.0),
        ("dog or cat", ["cat"], PETS, 0.0),
        ("E", ["cat"], PETS, 0.0),
        ("bird", ["cat"], PETS, 0.0),
        ("", ["cat"], PETS, 0.0),
        ("B", ["B"], None, 0.0),
        ("-5", ["-5"], ["5", "-5"], 1.0),
        ("B", ["C"], ["A", "C", "B"], 1.0),
    ],
    "yes_no@1": [
        ("Yes", ["yes"], None, 1.0),
        ("Yes, there is.", ["yes"], None, 1.0),
        ("no.", ["No"], None, 1.0),
        ("No, but yes in the mirror", ["no"], None, 1.0),
        ("The answer is yes", ["Yes"], None, 1.0),
        ("true", ["yes"], None, 1.0),
        ("yes or no", ["no"], None, 0.0),
        ("It could be yes or no", ["yes"], None, 0.0),
        ("There is a cat.", ["yes"], None, 0.0),
        ("There is none. No", ["no"], None, 0.0),
        ("Nobody", ["no"], None, 0.0),
        ("Yes", ["no"], None, 0.0),
        ("", ["no"], None, 0.0),
        ("...", ["no"], None, 0.0),
    ],
    "contains@1": [
        ("There is a red fox here", ["red fox"], None, 1.0),
        ("It is a category", ["cat"], None, 0.0),
        ("I see two dogs", ["2"], None, 1.0),
        ("I see 20 dogs", ["2"], None, 0.0),
        ("The Cat.", ["the cat"], None, 1.0),
        ("a fox that is red", ["red fox"], None, 0.0),
        ("dog, cat", ["bird", "cat"], None, 1.0),
        ("It costs 1,200 dollars", ["1200"], None, 1.0),
        ("", ["cat"], None, 0.0),
    ],
}
ROWS = [(name, *row) for name, rows in GOLDEN.items() for row in rows]

# scorer -> (a reference, options) that the reference itself must fully score on
PERFECT: dict[str, tuple[str, list[str] | None]] = {
    "exact_match@1": ("a red fox", None),
    "vqa_accuracy@1": ("red", None),
    "anls@1": ("Invoice No. 7", None),
    "relaxed_accuracy@1": ("12.5%", None),
    "multiple_choice@1": ("cat", PETS),
    "yes_no@1": ("yes", None),
    "contains@1": ("red fox", None),
}


@pytest.mark.parametrize(("name", "prediction", "answers", "choices", "score"), ROWS)
def test_known_worth(
    name: str, prediction: str, answers: list[str], choices: list[str] | None, score: float
) -> None:
    assert SCORERS[name](prediction, answers, choices) == pytest.approx(score)


@pytest.mark.parametrize("name", SCORERS)
class TestContract:
    """What every row of SCORERS keeps."""

    def test_has_golden_rows_and_documentation(self, name: str) -> None:
        assert len(GOLDEN[name]) >= 8
        assert f"| `{name}` |" in (ROOT / "docs" / "data.md").read_text(encoding="utf-8")

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
    assert GOLDEN.keys() == SCORERS.keys() == PERFECT.keys()


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
