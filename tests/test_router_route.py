"""Backends by name, the runtime's router, and the student."""

import subprocess
import sys
import timeit
from pathlib import Path

import numpy as np
import pytest
from router_examples import EXPECTED
from safetensors.numpy import save

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import MismatchError, ProfileError, UsageError
from claspkit.profiles.intents import INTENT_IDS
from claspkit.profiles.profile import RouterSpec
from claspkit.router.backends import BACKENDS, BackendOptions, make_backend
from claspkit.router.route import make_router
from claspkit.router.rules import RULES, RULES_VERSION
from claspkit.router.student import StudentBackend, features, train_student

RULES_SPEC = RouterSpec(
    kind="rules", rules_version=RULES_VERSION, file=None, sha256=None, min_confidence=0.5, fallback="scene"
)
PAIRS = [(prompt, intent) for intent, prompts in EXPECTED.items() for prompt in prompts]


@pytest.fixture(scope="module")
def student() -> StudentBackend:
    return train_student([prompt for prompt, _ in PAIRS], [intent for _, intent in PAIRS])


def test_backends_are_found_by_name() -> None:
    assert set(BACKENDS) == {"rules", "transformers", "openai", "replay"}
    with pytest.raises(UsageError, match="unknown router 'magic'; there are: rules, transformers, openai, replay"):
        make_backend("magic")
    with pytest.raises(UsageError, match="batch of 0"):
        BackendOptions(batch_size=0)


def test_unsure_labels_fall_back() -> None:
    sure, unsure, empty = make_router(RULES_SPEC, None)(["How many cats?", "Tell me a story.", ""])
    assert (sure.intent, sure.fine, sure.confidence) == ("counting", "object_counting", 1.0)
    assert (unsure.intent, unsure.fine, unsure.confidence, unsure.source) == ("scene", None, 0.0, "rule:none")
    assert empty.intent == "scene"
    assert make_router(RULES_SPEC, None)([]) == []
    trusting = RULES_SPEC.model_copy(update={"min_confidence": 0.0})
    assert make_router(trusting, None)(["Tell me a story."])[0].intent == "default"


@pytest.mark.parametrize("version", ["0.9", "2.0", "1x", ""])
def test_rules_of_another_major_version_are_refused(version: str) -> None:
    with pytest.raises(MismatchError, match=r"routes by rules .*Calibrate again"):
        make_router(RULES_SPEC.model_copy(update={"rules_version": version}), None)
    make_router(RULES_SPEC.model_copy(update={"rules_version": "1.99"}), None)


def spec_for(data: bytes) -> RouterSpec:
    return RouterSpec(
        kind="student",
        rules_version=None,
        file="router.safetensors",
        sha256=sha256_hex(data),
        min_confidence=0.6,
        fallback="default",
    )


def test_a_student_learns_what_it_is_shown(student: StudentBackend) -> None:
    labels = student.label([prompt for prompt, _ in PAIRS])
    assert [label.intent for label in labels] == [intent for _, intent in PAIRS]
    examples = student.label([rule.example for rule in RULES])
    right = sum(label.intent == rule.intent for label, rule in zip(examples, RULES, strict=True))
    assert right / len(RULES) > 0.8
    again = train_student([prompt for prompt, _ in PAIRS], [intent for _, intent in PAIRS])
    assert again.to_bytes() == student.to_bytes()


def test_a_student_travels_with_its_profile(student: StudentBackend, tmp_path: Path) -> None:
    folder = tmp_path
    data = student.to_bytes()
    assert len(data) < 600_000
    (folder / "router.safetensors").write_bytes(data)
    route = make_router(spec_for(data), folder)
    prompts = ["How many cats are there?", "", "为什么这个人在笑？", "x " * 50_000]
    labels = route(prompts)
    assert labels[0].intent == "counting"
    assert labels[0].source == f"student:{sha256_hex(data)[:12]}"
    assert all(label.intent in INTENT_IDS and label.fine is None and 0 <= label.confidence <= 1 for label in labels)
    assert [route([prompt])[0] for prompt in prompts] == labels
    assert all(label.intent == "default" for label in labels if label.confidence < 0.6)
    with pytest.raises(UsageError, match="which folder"):
        make_router(spec_for(data), None)
    (folder / "router.safetensors").write_bytes(data[:-1])
    with pytest.raises(ProfileError, match=r"router\.sha256"):
        make_router(spec_for(data), folder)


GOOD = {"weights": np.zeros((8, 9), np.float16), "bias": np.zeros(9, np.float16)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        save({"weights": GOOD["weights"]}),
        save({**GOOD, "more": GOOD["bias"]}),
        save({**GOOD, "bias": np.zeros(8, np.float16)}),
        save({**GOOD, "weights": np.zeros((8, 8), np.float16)}),
        save({**GOOD, "weights": np.zeros((0, 9), np.float16)}),
        save({**GOOD, "weights": np.zeros((8, 9), np.float32)}),
        save({**GOOD, "weights": np.full((8, 9), np.nan, np.float16)}),
    ],
    ids=range(9),
)
def test_hostile_students_are_profile_errors(data: bytes) -> None:
    with pytest.raises(ProfileError) as caught:
        StudentBackend.from_bytes(data)
    assert caught.value.field == "router.file"


def test_a_student_needs_one_known_intent_per_prompt() -> None:
    for prompts, intents in (([], []), (["a"], []), (["a"], ["b"])):
        with pytest.raises(UsageError):
            train_student(prompts, intents)


def test_features_are_words_pairs_and_the_start() -> None:
    assert len(features("How many cats?")) == 3 + 2 + 2
    assert len(features("")) == 0
    assert (features("How many cats?") == features("<image> how MANY cats?")).all()
    assert features("word " * 10_000).shape == (400 + 399 + 2,)


def test_a_student_is_quick(student: StudentBackend) -> None:
    prompts = [prompt for prompt, _ in PAIRS]
    seconds = min(timeit.repeat(lambda: student.label(prompts), number=1, repeat=5)) / len(prompts)
    assert seconds < 500e-6  # ten times the target: machines are shared


def test_routing_by_rules_loads_no_tensor_library() -> None:
    code = (
        "import sys\nfrom claspkit.router import make_backend, make_router\n"
        "print(make_backend('rules').label(['How many?'])[0].intent)\n"
        "assert not {'torch', 'transformers', 'h5py', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "counting"), done.stderr
