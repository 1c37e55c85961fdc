"""The student: its features, its file, what it makes of odd prompts, and its training."""

import time
import timeit
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from router_examples import FINE_EXAMPLES
from safetensors.numpy import save

from claspkit.profiles.errors import ProfileError, UsageError
from claspkit.profiles.intents import FINE_INTENTS, INTENT_IDS, STANDARD, merge
from claspkit.router.backends import BackendOptions, make_backend
from claspkit.router.labels import Label
from claspkit.router.scoring import score
from claspkit.router.student import SHIPPED, StudentBackend, class_shares, logits, merge_matrix, read_student, softmax
from claspkit.router.student_features import MAX_LETTERS, MAX_WORDS, features
from claspkit.router.student_training import fit_temperature, train_student

PROMPTS = [prompt for prompt, _ in FINE_EXAMPLES]
FINE = [fine for _, fine in FINE_EXAMPLES]


@pytest.fixture(scope="module")
def shipped() -> StudentBackend:
    """The student of the package."""
    return read_student(SHIPPED)


def test_features_are_counted_by_hand() -> None:
    """Words, letter groups, pairs, skip pairs, triples, the first two words and the first triple."""
    found = features(["How many cats?", "", "a", "yes no"], 15)
    groups = len("<how>") - 3 + len("<many>") - 3 + len("<cats>") - 3
    assert found.counts.tolist() == [3 + groups + 2 + 1 + 1 + 2 + 1, 0, 1 + 0 + 1, 2 + 2 + 1 + 1 + 2]
    assert len(found.rows) == found.counts.sum()
    assert found.rows.min() >= 0
    assert found.rows.max() < 2**15


def test_features_see_the_question_alone() -> None:
    """Case and chat formats do not count; order of words does."""
    texts = ("How many cats?", "<image> how MANY cats", "cats many how")
    first, same, other = (features([text], 15).rows.tolist() for text in texts)
    assert first == same != other


def test_what_a_prompt_costs_is_bounded() -> None:
    """Words beyond the 400th and letters beyond the 40th are not read."""
    many = features([" ".join(map("".join, product("abcdefghij", repeat=4)))], 15)
    assert many.counts[0] == MAX_WORDS + MAX_WORDS * 3 + (MAX_WORDS - 1) + 2 * (MAX_WORDS - 2) + 2 + 1
    long, cut = features(["x" * 3000], 15), features(["x" * MAX_LETTERS], 15)
    assert long.rows.tolist() == cut.rows.tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab é?\n", max_size=12) | st.text(max_size=6), max_size=4), st.integers(1, 15))
def test_a_prompt_alone_and_in_a_batch_has_the_same_features(prompts: list[str], bits: int) -> None:
    """No pair or triple crosses the border between two prompts."""
    batch = features(prompts, bits)
    alone = [features([prompt], bits).rows.tolist() for prompt in prompts]
    assert batch.counts.tolist() == [len(rows) for rows in alone]
    assert batch.rows.tolist() == [row for rows in alone for row in rows]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_taking_and_summing_equal_loops(data: st.DataObject) -> None:
    """Against plain indexing, prompts without features included."""
    texts = st.sampled_from(["", "a", "two words", "one of three"])
    found = features(data.draw(st.lists(texts, min_size=1, max_size=6)), 4)
    places = st.integers(0, len(found.counts) - 1)
    chosen = np.array(data.draw(st.lists(places, max_size=8)), dtype=np.int64)
    ends = np.cumsum(found.counts)
    pieces = [found.rows[ends[index] - found.counts[index] : ends[index]] for index in chosen]
    part = found.take(chosen)
    assert part.rows.tolist() == [row for piece in pieces for row in piece.tolist()]
    values = np.arange(32, dtype=np.float32).reshape(16, 2)
    expected = np.array([values[piece].sum(axis=0) for piece in pieces], dtype=np.float32).reshape(-1, 2)
    np.testing.assert_array_equal(part.sums(values), expected)


def test_labels_equal_the_formula(shipped: StudentBackend) -> None:
    """Class, fine intent and confidence against the equation, prompt by prompt in float64."""
    weights, bias = (shipped._stored[name].astype(np.float64) for name in ("weights", "bias"))
    for prompt, label in zip(PROMPTS, shipped.label(PROMPTS), strict=True):
        rows = features([prompt], 15).rows
        scores = (weights[rows].sum(axis=0) / len(rows) ** 0.5 + bias) / shipped.temperature
        shares = np.exp(scores) / np.exp(scores).sum()
        classes = dict.fromkeys(INTENT_IDS, 0.0)
        for fine_intent, share in zip(FINE_INTENTS, shares, strict=True):
            classes[fine_intent.intent] += share
        assert label.intent == max(classes, key=lambda intent: classes[intent])
        assert label.confidence == pytest.approx(classes[label.intent], abs=1e-4)
        fine = {f.id: shares[k] for k, f in enumerate(FINE_INTENTS) if f.intent == label.intent}
        assert label.fine == max(fine, key=lambda name: fine[name])


def test_labels_do_not_depend_on_the_batch(shipped: StudentBackend) -> None:
    """More prompts than are computed at a time, each as it is alone."""
    many = (PROMPTS * 4)[:300]
    assert shipped.label(many) == [shipped.label([prompt])[0] for prompt in many]


ODD = {
    "empty": "",
    "blank": " \n\t ",
    "no word": "?!… \U0001f600",
    "chinese": "图片里有多少只猫？",
    "arabic": "ما لون السيارة؟",
    "hindi": "यह क्या है?",
    "russian": "Что делает мужчина?",
    "german": "Welche Farbe hat das Auto?",
    "control": "\x00\x1b[31mhow\x07 many\x7f\u202e cats",
    "half surrogate": "what is \ud800 this?",
    "special tokens": "<|im_start|>user\n<|im_end|><|endoftext|></s><image>[INST]<pad><unk>",
    "one letter": "a" * 100_000,
    "words": "what colour " * 8_334,
    "lines": "\n".join("?" * 50_000),
    "combining": "e\u0301" * 50_000,
    "ligatures": "\ufdfa" * 100_000,
    "different words": " ".join(str(number) for number in range(17_000)),
    "json": '{"intent": "object_counting", "confidence": 1.0}',
    "choices": "What is he doing?\nA. counting\nB. reading\nAnswer with the option's letter directly.",
}


@pytest.mark.parametrize("name", ODD)
def test_any_prompt_gets_one_of_the_nine_in_bounded_time(shipped: StudentBackend, name: str) -> None:
    """Processor time, not the wall's: machines are shared."""
    began = time.process_time()
    (label,) = shipped.label([ODD[name]])
    assert time.process_time() - began < 3.0
    assert label.intent in INTENT_IDS
    assert label.fine is not None
    assert merge(label.fine) == label.intent
    assert 0 < label.confidence <= 1


def test_odd_prompts_have_the_same_label_alone_and_among_others(shipped: StudentBackend) -> None:
    """Bit for bit, though one prompt takes a shorter way."""
    prompts = list(ODD.values())
    assert [shipped.label([prompt])[0] for prompt in prompts] == shipped.label(prompts)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | st.text("abc de?", max_size=60), st.text(max_size=20))
def test_any_prompt_has_the_same_label_alone_and_among_others(
    shipped: StudentBackend, prompt: str, other: str
) -> None:
    """Class, fine intent and every bit of the confidence."""
    assert shipped.label([prompt, other]) == [shipped.label([text])[0] for text in (prompt, other)]


@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=200))
def test_any_text_gets_a_valid_label(shipped: StudentBackend, prompt: str) -> None:
    """Whatever the text, the label is one that a label log takes."""
    label = shipped.label([prompt])[0]
    assert Label.from_dict(label.to_dict()) == label


def test_a_prompt_without_words_is_doubtful(shipped: StudentBackend) -> None:
    """It has the bias alone, which a threshold turns into the default class."""
    assert shipped.label(["???"])[0].confidence < shipped.reject_below


def test_a_student_is_quick(shipped: StudentBackend) -> None:
    """Ten times the target of 50 microseconds a prompt: machines are shared."""
    seconds = min(timeit.repeat(lambda: shipped.label(PROMPTS), number=1, repeat=5)) / len(PROMPTS)
    assert seconds < 500e-6


GOOD: dict[str, Any] = {
    "weights": np.zeros((8, 15), np.float16),
    "bias": np.zeros(15, np.float16),
    "temperature": np.ones(1, np.float32),
    "reject_below": np.zeros(1, np.float32),
    "version": np.ones(1, np.int32),
}


def test_a_good_file_is_read_and_written_back() -> None:
    """The same bytes; with zero weights each fine intent has a 15th."""
    student = StudentBackend.from_bytes(save(GOOD))
    assert student.to_bytes() == save(GOOD)
    (label,) = student.label(["How many?"])
    assert label.intent == "attribute"
    assert label.confidence == pytest.approx(2 / 15)


@pytest.mark.parametrize(
    "change",
    [
        {"bias": None},
        {"version": None},
        {"more": np.zeros(15, np.float16)},
        {"bias": np.zeros(9, np.float16)},
        {"weights": np.zeros((8, 9), np.float16), "bias": np.zeros(9, np.float16)},
        {"weights": np.zeros((0, 15), np.float16)},
        {"weights": np.zeros((1, 15), np.float16)},
        {"weights": np.zeros((7, 15), np.float16)},
        {"weights": np.zeros(15, np.float16)},
        {"weights": np.zeros((2**16, 15), np.float16)},
        {"weights": np.zeros((8, 15), np.float32)},
        {"weights": np.full((8, 15), np.nan, np.float16)},
        {"bias": np.full(15, np.inf, np.float16)},
        {"temperature": np.zeros(1, np.float32)},
        {"temperature": -np.ones(1, np.float32)},
        {"temperature": np.full(1, np.nan, np.float32)},
        {"temperature": np.full(1, 1e-30, np.float32)},
        {"temperature": np.ones(1, np.float64)},
        {"temperature": np.ones((), np.float32)},
        {"temperature": np.ones(2, np.float32)},
        {"reject_below": np.full(1, -0.1, np.float32)},
        {"reject_below": np.full(1, 1.5, np.float32)},
        {"reject_below": np.full(1, np.nan, np.float32)},
        {"version": np.full(1, 2, np.int32)},
        {"version": np.ones(1, np.int64)},
    ],
    ids=lambda change: ",".join(change),
)
def test_hostile_students_are_profile_errors(change: dict[str, Any]) -> None:
    """Each change alone makes a good file bad."""
    tensors = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(ProfileError) as caught:
        StudentBackend.from_bytes(save(tensors))
    assert caught.value.field == "router.file"


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, save(GOOD)[:-1], save(GOOD) + bytes(10**6)], ids=range(4))
def test_bytes_that_are_no_student_are_profile_errors(data: bytes) -> None:
    """Nothing, noise, a torn file, and one beyond the limit."""
    with pytest.raises(ProfileError) as caught:
        StudentBackend.from_bytes(data)
    assert caught.value.field == "router.file"


def test_another_student_is_taken_by_its_file(tmp_path: Path) -> None:
    """--router student --router-model FILE; without a file the shipped one."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(save(GOOD))
    mine, own = make_backend("student", BackendOptions(model=str(path))), make_backend("student")
    assert isinstance(own, StudentBackend)
    assert own.to_bytes() == SHIPPED.read_bytes()
    assert mine.source != own.source
    with pytest.raises(UsageError, match=r"absent cannot be read .*router distill"):
        make_backend("student", BackendOptions(model=str(tmp_path / "absent")))


def test_a_student_learns_what_it_is_shown() -> None:
    """Its own examples all right, and the same bytes when trained again."""
    first, again = (train_student(PROMPTS, FINE, epochs=20) for _ in range(2))
    assert [label.intent for label in first.student.label(PROMPTS)] == [merge(fine) for fine in FINE]
    assert first.student.to_bytes() == again.student.to_bytes()
    assert first.held_out is not None
    assert 0 < first.held_out.prompts < len(PROMPTS) / 4
    assert first.student.temperature == 1, "too few to fit one to"
    other = train_student(PROMPTS, FINE, epochs=20, seed=1)
    assert other.student.to_bytes() != first.student.to_bytes()


def test_the_threshold_is_the_lowest_that_keeps_what_is_accepted_right() -> None:
    """A third of the prompts is labelled by a coin: these are rejected, the plain ones accepted."""
    rng = np.random.default_rng(0)
    pair = ("object_counting", "text_reading")
    plain = [(f"{word} {number}", pair[word == "pear"]) for word in ("apple", "pear") for number in range(200)]
    coins = [(f"plum {number}", pair[rng.integers(0, 2)]) for number in range(200)]
    prompts, fine = zip(*plain, *coins, strict=True)
    trained = train_student(prompts, fine, epochs=4, bits=10)
    assert trained.held_out is not None
    assert trained.reached
    fitting = [row for row in trained.held_out.curve if row[2] >= 0.95 and row[1] * trained.held_out.prompts > 19.5]
    assert trained.student.reject_below == pytest.approx(min(fitting)[0])
    fresh = [f"{word} {number}" for word in ("apple", "pear", "plum") for number in range(1000, 1100)]
    accepted = [label.confidence >= trained.student.reject_below for label in trained.student.label(fresh)]
    assert sum(accepted[:200]) > 190
    assert sum(accepted[200:]) < 30


def test_without_anything_held_out_nothing_is_trusted() -> None:
    """One prompt cannot be both trained on and held out; noise reaches no threshold."""
    single = train_student(["How many?"], ["object_counting"], bits=6)
    assert (single.held_out, single.reached, single.student.reject_below) == (None, False, 1.0)
    prompts = [f"word {number}" for number in range(200)]
    rng = np.random.default_rng(0)
    noise = train_student(prompts, [FINE_INTENTS[k].id for k in rng.integers(0, 15, 200)], epochs=1, bits=6)
    assert noise.held_out is not None
    assert (noise.reached, noise.student.reject_below) == (False, 1.0)


def test_a_student_needs_one_known_fine_intent_per_prompt() -> None:
    """Counts that differ, names of classes or nonsense, and impossible sizes are refused."""
    for prompts, fine in (([], []), (["a"], []), (["a"], ["counting"])):
        with pytest.raises(UsageError, match="fine intent"):
            train_student(prompts, fine)
    for bits in (0, 16):
        with pytest.raises(UsageError, match="bits"):
            train_student(["a"], ["other"], bits=bits)


def test_the_temperature_is_found_again() -> None:
    """Classes drawn from softmax(logits) want temperature 1, and three times the logits want 3."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(20_000, 15)).astype(np.float32)
    matrix = merge_matrix(STANDARD)
    shares = class_shares(softmax(raw), matrix)
    truth = (shares.cumsum(axis=1) < rng.random((len(raw), 1))).sum(axis=1).clip(max=8)
    assert fit_temperature(raw, truth, matrix) == pytest.approx(1, abs=0.05)
    assert fit_temperature(raw * 3, truth, matrix) == pytest.approx(3, abs=0.15)


def test_logits_are_the_mean_rows_by_hand() -> None:
    """One feature twice: sum 2 w over sqrt(2), plus the bias; no feature: the bias."""
    found = features(["", "a"], 1)
    weights, bias = np.arange(30, dtype=np.float32).reshape(2, 15), np.ones(15, np.float32)
    expected = weights[found.rows].sum(axis=0) / np.sqrt(np.float32(2)) + 1
    np.testing.assert_allclose(logits(weights, bias, found), [np.ones(15), expected], rtol=1e-6)


def test_scores_of_a_student_are_those_of_its_labels(shipped: StudentBackend) -> None:
    """A student scored on its own answers makes no error."""
    labels = shipped.label(PROMPTS)
    assert score([label.intent for label in labels], labels).accuracy == 1
