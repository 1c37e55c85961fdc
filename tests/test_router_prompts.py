"""One form per prompt, and the question out of it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.router.prompts import WINDOW, asked, normalise, prompt_digest, question, window

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
        ("answer in one word: what breed is it?", "what breed is it?"),
        ("please answer with yes or no, is it red?", "is it red?"),
        ("give the answer in one word: what breed is it?", "what breed is it?"),
        ("provide your answer in english: how many dogs are there?", "how many dogs are there?"),
        ("what is it? give your final answer in english.", "what is it?"),
        ("what is it? answer using the format: a word, a number.", "what is it?"),
    ],
)
def test_the_question_without_its_options(prompt: str, stem: str) -> None:
    assert question(prompt) == stem


def test_a_long_text_is_read_at_both_ends() -> None:
    assert window("a" * WINDOW) == "a" * WINDOW
    long = "a" * WINDOW + "b" * WINDOW
    assert window(long) == "a" * (WINDOW // 2) + " ... " + "b" * (WINDOW // 2)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("trust me. how many st. bernards are there?", "how many st. bernards are there?"),
        ("hi there. where is mt. fuji, on no. 3 or no. 4?", "where is mt. fuji, on no. 3 or no. 4?"),
        ("i say no. what is it?", "what is it?"),
        ("it is a b. is it?", "it is a b. is it?"),
        ("how many cars are in the lot. can you help me with that?", "how many cars are in the lot."),
        ("what breed is the dog. do you know?", "what breed is the dog."),
        ("show me how many dogs there are. can you?", "show me how many dogs there are."),
        ("in this picture, how many dogs are there. thanks a lot.", "in this picture, how many dogs are there."),
        ("what a nice picture. name the breed.", "name the breed."),
        ("extract the phone number. is it american?", "extract the phone number. is it american?"),
        ("ok, please summarise the page. it is long.", "ok, please summarise the page."),
        ("this is a poodle. is that right?", "this is a poodle. is that right?"),
        ("red like this. please?", "red like this. please?"),
        ("do you know what breed it is? i forgot.", "do you know what breed it is?"),
    ],
)
def test_of_several_sentences_those_that_ask_are_kept(text: str, kept: str) -> None:
    """Abbreviations end no sentence, a missing mark does not silence a question, and "can you?" replaces none."""
    assert asked(text) == kept


def test_questions_about_speakers_keep_their_words_and_their_digests() -> None:
    """A name with a colon is a turn where a text or line begins or turns went before, and a word elsewhere."""
    one, other = "Who is the assistant: the woman or the man?", "Who is the assistant: the cook or the guest?"
    assert normalise(one) == one.lower()
    assert prompt_digest(one) != prompt_digest(other)
    assert normalise("What does the GPT: label show?") == "what does the gpt: label show?"
    assert normalise("USER: Who is the assistant: him or her? ASSISTANT:") == "who is the assistant: him or her?"
    assert normalise("Who is the\nassistant: him or her?") == "who is the assistant: him or her?"
    assert normalise("USER: What is this ASSISTANT:") == "what is this"
    assert normalise("A chat with an assistant. USER: <image>\nWhy? ASSISTANT: So.") == "a chat with an assistant. why?"
    assert normalise("Why?\nAssistant: So.\nHuman:  And how?") == "why? and how?"
    assert "transcribe this chat." in normalise("Transcribe this chat. User: hi. Assistant: what colour is the sky?")


ORDINARY = """\
How many St. Bernards are there?
How many people work at Acme Inc. in the photo?
What is Dr. Smith doing?
Where is Mt. Fuji in the picture?
What color is Mr. Bean's tie?
Is Mrs. Jones standing left of Prof. Lee?
What does Fig. 3 show about approx. 20 patients?
How many U.S. flags hang on the wall?
What happens at 5 p.m. on Friday according to the timetable?
Which fruits, e.g. apples, are on the plate?
Is this St. Paul's vs. the old town hall?
Who is the assistant: the woman or the man?
What does the GPT: label show?
Which role has the user: admin or guest?
Who is the human: the left one or the right one?
What does the label: Coca-Cola mean?
Is the intent: malicious?
What class: economy or business, is printed on the ticket?
The label: what does it say?
What confidence: high or low, does the form show?
Which category: object or scene?
What is the answer in the red box?
What does the reply from Anna say?
Can you reply with the number of cars?
Which answer in the list is ticked?
Does the girl answer with her hand raised?
What is the second answer with a tick beside it?
Which HTML tag, <div> or <span>, is used?
What is the value of "name" in {"name": "Bob", "age": 3}?
Read the sign ```STOP``` please
Extract the phone number. Is it American?
Determine the angle at point B. Is it obtuse?
Show me where the exit is. Is it left of the stairs?
Add up the prices. What is the total?
Summarize the chart. Which bar is the tallest?
Classify the bird. Does it have a crest?
Predict what the boy does next. Will he jump?
Check the date. Has the milk expired?
How much is the bill. Is the tip included?
What is on the plate: fish, or chips and peas?""".splitlines()


@pytest.mark.parametrize("prompt", ORDINARY)
def test_ordinary_prompts_keep_all_their_words(prompt: str) -> None:
    """Abbreviations, speakers, labels, answers, code and several sentences: nothing of what is asked goes."""
    text = normalise(prompt)
    assert re.findall(r"\w+", asked(question(text))) == re.findall(r"\w+", prompt.lower())


def test_ordinary_prompts_are_forty() -> None:
    """None of them twice."""
    assert len(set(ORDINARY)) == 40
