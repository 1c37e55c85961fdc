"""One form per prompt, and the question out of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.router.prompts import WINDOW, normalise, prompt_digest, question, window

SAME = [
    "What is this?",
    "  what\tis\n\nTHIS? ",
    "USER: <image>\nWhat is this? ASSISTANT:",
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is this?<|im_end|>\n<|im_start|>assistant\n",
    "[INST] <image>\nWhat is this? [/INST]",
    "<image_1> What is this?",
    "### Human: What is this?\n### Assistant:",
    "<s>What is this?</s>",
    "What\u00a0is this\u200b?",
    "\ufeffWhat is \u202ethis?",
    "Ｗｈａｔ ｉｓ ｔｈｉｓ？",
]


@pytest.mark.parametrize("prompt", SAME)
def test_chat_formats_case_and_space_make_no_difference(prompt: str) -> None:
    assert normalise(prompt) == "what is this?"
    assert prompt_digest(prompt) == prompt_digest(SAME[0])


def test_other_words_make_a_difference() -> None:
    prompts = ["", "what is this?", "what is that?", "what is this", "这是什么？", "user manual", "e\u0301", "e"]
    assert len({prompt_digest(prompt) for prompt in prompts}) == len(prompts)
    assert (
        normalise("What does the user manual say about the human?") == "what does the user manual say about the human?"
    )
    assert normalise("What\u2019s \u201cthis\u201d") == 'what\'s "this"'


@settings(max_examples=50)
@given(st.text(max_size=80))
def test_any_text_has_a_form_and_a_digest(prompt: str) -> None:
    text = normalise(prompt)
    assert text == text.strip()
    assert "  " not in text
    assert len(prompt_digest(prompt)) == 64
    assert prompt_digest(f" {prompt}\n") == prompt_digest(prompt)


def test_half_surrogates_do_not_stop_anything() -> None:
    assert normalise("a\ud800b") == "a?b"
    assert len(prompt_digest("\udfff")) == 64


@pytest.mark.parametrize(
    ("prompt", "stem"),
    [
        ("what is it? (a) red (b) blue", "what is it?"),
        ("what is it? a. red b. blue c. green", "what is it?"),
        ("what is it? a) red b) blue", "what is it?"),
        ("what is it? options: red, blue", "what is it?"),
        ("what is it? answer the question using a single word or phrase.", "what is it?"),
        ("answer with yes or no. is it red?", "is it red?"),
        ("is vitamin a. good?", "is vitamin a. good?"),
        ("(a) red (b) blue", "(a) red (b) blue"),
        ("answer in one word", "answer in one word"),
        ("", ""),
    ],
)
def test_the_question_without_its_options(prompt: str, stem: str) -> None:
    assert question(prompt) == stem


def test_a_long_text_is_read_at_both_ends() -> None:
    assert window("a" * WINDOW) == "a" * WINDOW
    long = "a" * WINDOW + "b" * WINDOW
    assert window(long) == "a" * (WINDOW // 2) + " ... " + "b" * (WINDOW // 2)
