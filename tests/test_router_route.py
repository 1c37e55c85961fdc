"""Backends by name, the runtime's router, and the student."""

import subprocess
import sys
from pathlib import Path

import pytest
from router_examples import FINE_EXAMPLES

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import MismatchError, ProfileError, UsageError
from claspkit.profiles.intents import INTENT_IDS, merge
from claspkit.profiles.profile import RouterSpec
from claspkit.router.backends import BACKENDS, BackendOptions, make_backend
from claspkit.router.route import make_router
from claspkit.router.rules import RULES_VERSION
from claspkit.router.student import StudentBackend
from claspkit.router.student_training import train_student

RULES_SPEC = RouterSpec(
    kind="rules", rules_version=RULES_VERSION, file=None, sha256=None, min_confidence=0.5, fallback="scene"
)


@pytest.fixture(scope="module")
def student() -> StudentBackend:
    """A student that knows the examples."""
    return train_student(*map(list, zip(*FINE_EXAMPLES, strict=True)), epochs=20).student


def test_backends_are_found_by_name() -> None:
    assert set(BACKENDS) == {"rules", "student", "transformers", "openai", "replay"}
    with pytest.raises(UsageError, match="'magic'; there are: rules, student, transformers, openai, replay"):
        make_backend("magic")
    with pytest.raises(UsageError, match="batch of 0"):
        BackendOptions(batch_size=0)


def test_unsure_labels_fall_back() -> None:
    sure, unsure, empty = make_router(RULES_SPEC, None)(["How many cats?", "Hello there.", ""])
    assert (sure.intent, sure.fine, sure.confidence) == ("counting", "object_counting", 1.0)
    assert (unsure.intent, unsure.fine, unsure.confidence, unsure.source) == ("scene", None, 0.0, "rule:none")
    assert empty.intent == "scene"
    assert make_router(RULES_SPEC, None)([]) == []
    trusting = RULES_SPEC.model_copy(update={"min_confidence": 0.0})
    assert make_router(trusting, None)(["Hello there."])[0].intent == "default"


@pytest.mark.parametrize("version", ["1.0", "3.0", "2x", ""])
def test_rules_of_another_major_version_are_refused(version: str) -> None:
    with pytest.raises(MismatchError, match=r"routes by rules .*Calibrate again"):
        make_router(RULES_SPEC.model_copy(update={"rules_version": version}), None)
    make_router(RULES_SPEC.model_copy(update={"rules_version": "2.99"}), None)


def spec_for(data: bytes) -> RouterSpec:
    return RouterSpec(
        kind="student",
        rules_version=None,
        file="router.safetensors",
        sha256=sha256_hex(data),
        min_confidence=0.6,
        fallback="default",
    )


def test_a_student_travels_with_its_profile(student: StudentBackend, tmp_path: Path) -> None:
    folder = tmp_path
    data = student.to_bytes()
    assert len(data) <= 1_000_000
    (folder / "router.safetensors").write_bytes(data)
    route = make_router(spec_for(data), folder)
    prompts = ["How many cats are there?", "", "为什么这个人在笑？", "x " * 50_000]
    labels = route(prompts)
    assert labels[0].intent == "counting"
    assert labels[0].source == f"student:{sha256_hex(data)[:12]}"
    assert all(label.intent in INTENT_IDS and 0 <= label.confidence <= 1 for label in labels)
    assert all(label.fine is None or merge(label.fine) == label.intent for label in labels)
    assert [route([prompt])[0] for prompt in prompts] == labels
    assert all(label.intent == "default" for label in labels if label.confidence < 0.6)
    with pytest.raises(UsageError, match="which folder"):
        make_router(spec_for(data), None)
    (folder / "router.safetensors").write_bytes(data[:-1])
    with pytest.raises(ProfileError, match=r"router\.sha256"):
        make_router(spec_for(data), folder)


def test_routing_by_rules_loads_no_tensor_library() -> None:
    code = (
        "import sys\nfrom claspkit.router import make_backend, make_router\n"
        "print(make_backend('rules').label(['How many?'])[0].intent)\n"
        "assert not {'torch', 'transformers', 'h5py', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "counting"), done.stderr
