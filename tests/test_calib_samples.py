"""Samples: what a row must be to become one, and orders that stay when data grows."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.calib.samples import RowError, Sample, Source, make_sample, sample_order, split_holdout
from claspkit.profiles.errors import CorruptError, UsageError

SHA = "0123456789abcdef" * 4
UID = "de47f6ec2ffc1091"


def sample(index: int = 0, picture: int = 0, **changes: Any) -> Sample:
    """A valid sample, number ``index``, about picture number ``picture``."""
    row: dict[str, Any] = {
        "image": f"{picture}.png",
        "image_sha256": f"{picture:064x}",
        "prompt": "What is it?",
        "answers": ["cat"],
        "source": Source("toy", "r1", None, index),
    }
    return make_sample(**(row | changes))


def test_the_uid_is_a_known_function_of_the_content() -> None:
    written = f'["{"0" * 64}","What is it?",["cat"],"exact_match@1","toy",0]'
    assert sample().uid == sha256(written.encode()).hexdigest()[:16] == UID
    same = [
        sample(intent_hint="object"),
        sample(image="elsewhere.png"),
        sample(source=Source("toy", "r2", "train", 0)),
    ]
    assert {item.uid for item in same} == {sample().uid}
    other = [
        sample(image_sha256=SHA),
        sample(prompt="What is that?"),
        sample(answers=["dog"]),
        sample(scorer="contains@1"),
        sample(source=Source("joy", "r1", None, 0)),
        sample(index=1),
    ]
    assert len({item.uid for item in [sample(), *other]}) == 7


def test_a_row_is_cleaned_on_its_way_in() -> None:
    made = sample(prompt=" <image>\nWhat is it?  ", answers=["", " cat ", "  "], choices=["dog ", "cat"])
    assert made.prompt == "What is it?"
    assert made.answers == ("cat",)
    assert made.choices == ("dog", "cat")
    assert made.scorer == "multiple_choice@1"
    assert sample().scorer == "exact_match@1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": None}, "prompt must be text, not None"),
        ({"prompt": 7}, "prompt must be text, not 7"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "<image>"}, "prompt is empty"),
        ({"prompt": "<image><image> same?"}, "asks about 2 pictures"),
        ({"prompt": "x" * 20_001}, "prompt has 20001 characters"),
        ({"prompt": "half \ud800"}, "half a surrogate pair"),
        ({"answers": []}, "holds no answer"),
        ({"answers": ["", " "]}, "holds no answer"),
        ({"answers": "cat"}, "answers must be a list of texts, not 'cat'"),
        ({"answers": [3]}, "an answer must be text, not 3"),
        ({"answers": [True]}, "an answer must be text, not True"),
        ({"answers": [["cat"]]}, "an answer must be text"),
        ({"answers": ["x"] * 65}, "65 answers; at most 64"),
        ({"answers": ["x" * 4_001]}, "an answer has 4001 characters"),
        ({"choices": ["cat"]}, "choices holds 1 options; 2 to 26"),
        ({"choices": ["cat", "cat "]}, "the same option twice"),
        ({"choices": ["cat", 2]}, "a choice must be text, not 2"),
        ({"choices": "cat, dog"}, "choices must be a list"),
        ({"choices": ["dog", "bird"]}, "should name one of the choices"),
        ({"scorer": "yes_no@1"}, "should be yes or no"),
        ({"scorer": "pope@1"}, "should be yes or no"),
        ({"scorer": "gqa@1", "answers": ["?!"]}, "should be something to compare with"),
        ({"scorer": "multiple_choice@1"}, "no answer can score"),
        ({"scorer": "bleu@1"}, "scorer 'bleu@1' is none of exact_match@1"),
        ({"scorer": ["exact_match@1"]}, "is none of"),
        ({"intent_hint": "Colour"}, "intent 'Colour' is no id: small letters"),
        ({"intent_hint": 3}, "intent 3 is no id"),
        ({"image_sha256": "abc"}, "a picture needs a path and a sha256"),
    ],
)
def test_a_bad_field_is_refused_with_its_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        sample(**changes)


def test_code_in_an_answer_stays_text() -> None:
    code = "__import__('os').system('touch /tmp/owned')"
    assert sample(answers=[code]).answers == (code,)


@settings(max_examples=50, deadline=None)
@given(
    prompt=st.text(min_size=1, max_size=60),
    answers=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4),
    hint=st.sampled_from([None, "text", "default"]),
)
def test_a_sample_survives_being_written_down(prompt: str, answers: list[str], hint: str | None) -> None:
    try:
        made = sample(prompt=prompt, answers=answers, intent_hint=hint)
    except RowError:
        return
    assert Sample.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def change(**values: object) -> Callable[[dict[str, Any]], object]:
    """A damage that sets fields of a stored sample."""
    return lambda record: record.update(values)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change(uid="0" * 16), f"uid '0000000000000000', not {UID}"),
        (change(prompt="What is that?"), "not "),
        (change(answers=["dog"]), "not "),
        (change(prompt=None), "prompt must be text"),
        (change(extra=1), "look at extra"),
        (lambda record: record.pop("choices"), "look at choices"),
        (change(source="toy"), "no source: 'toy'"),
        (change(image=5), "a picture needs a path"),
        (lambda record: record["source"].update(index=-1), "the source is"),
        (lambda record: record["source"].update(index=True), "the source is"),
        (lambda record: record["source"].update(split=3), "the source is"),
        (lambda record: record["source"].pop("split"), "look at split"),
    ],
)
def test_a_damaged_record_is_refused(damage: Callable[[dict[str, Any]], object], reason: str) -> None:
    record = sample().to_dict()
    damage(record)
    with pytest.raises(CorruptError, match=reason):
        Sample.from_dict(record)


@pytest.mark.parametrize("record", [None, [], "sample", {}])
def test_no_record_at_all_is_refused(record: Any) -> None:
    with pytest.raises(CorruptError, match="no source"):
        Sample.from_dict(record)


SAMPLES = [sample(index, picture=index // 3) for index in range(600)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9), kept=st.integers(0, 600), shuffle=st.integers(0, 9))
def test_the_order_of_a_subset_is_the_order_of_all(seed: int, kept: int, shuffle: int) -> None:
    some = random.Random(shuffle).sample(SAMPLES, kept)
    chosen = set(some)
    assert sample_order(some, seed) == [item for item in sample_order(SAMPLES, seed) if item in chosen]


def test_the_order_depends_on_the_seed() -> None:
    assert sample_order(SAMPLES, 0) != sample_order(SAMPLES, 1)
    assert sorted(item.uid for item in sample_order(SAMPLES, 1)) == sorted(item.uid for item in SAMPLES)


@pytest.mark.parametrize("seed", [0, 1])
def test_all_questions_about_a_picture_fall_on_one_side(seed: int) -> None:
    search, holdout = split_holdout(SAMPLES, seed, 0.3)
    assert {s.image_sha256 for s in search}.isdisjoint({s.image_sha256 for s in holdout})
    assert sorted(search + holdout, key=lambda s: s.source.index) == SAMPLES
    assert 0.2 < len(holdout) / len(SAMPLES) < 0.4
    assert search == [s for s in SAMPLES if s in set(search)]


def test_a_picture_stays_on_its_side_when_data_grows_or_more_is_held_out() -> None:
    _, few = split_holdout(SAMPLES[:300], 0, 0.3)
    _, all_of_them = split_holdout(SAMPLES, 0, 0.3)
    assert few == [item for item in all_of_them if item in set(SAMPLES[:300])]
    _, more = split_holdout(SAMPLES, 0, 0.5)
    assert set(all_of_them) < set(more)
    assert split_holdout(SAMPLES, 0, 0.0) == (SAMPLES, [])


def test_the_side_has_nothing_to_do_with_the_order() -> None:
    """A split drawn from the hash that also orders would leave the holdout at one end of the order."""
    singles = [replace(item, image_sha256=item.uid.ljust(64, "0")) for item in SAMPLES]
    _, holdout = split_holdout(singles, 0, 0.5)
    first_half = set(sample_order(singles, 0)[:300])
    assert 0.35 < len([item for item in holdout if item in first_half]) / len(holdout) < 0.65


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        split_holdout(SAMPLES, 0, fraction)
