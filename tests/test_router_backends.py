"""What every backend owes, whoever wrote it: this runs on each row of BACKENDS."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_server import running
from tiny_teacher import save_teacher

from claspkit.profiles.intents import FINE_INTENTS, INTENT_IDS
from claspkit.router.backend_transformers_json import TransformersJsonBackend
from claspkit.router.backends import BACKENDS, MODES, Backend, BackendOptions, make_backend
from claspkit.router.labels import Label
from claspkit.router.prompts import normalise
from claspkit.router.run import label_prompts

PROMPTS = [
    "",
    "How many dogs are there?",
    "What is this?",
    "как дела",
    "How many dogs are there?",
    "\x00",
    "z" * 20_000,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("backends") / "tiny")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running() as server:
        yield server.url


@pytest.fixture(params=[(name, mode) for name in BACKENDS for mode in MODES], ids="-".join)
def backend(request: pytest.FixtureRequest, folder: Path, endpoint: str, tmp_path: Path) -> Backend:
    name, mode = request.param
    answers = tmp_path / "answers.jsonl"
    fine = [FINE_INTENTS[len(normalise(prompt)) % 15].id for prompt in PROMPTS]
    rows = [json.dumps({"prompt": prompt, "fine": kind}) for prompt, kind in zip(PROMPTS, fine, strict=True)]
    answers.write_text("\n".join(rows))
    model = None if name == "student" else str(folder)
    made = make_backend(
        name, BackendOptions(model=model, batch_size=2, mode=mode, endpoint=endpoint, answers=answers)
    )
    if isinstance(made, TransformersJsonBackend):
        made.max_new_tokens = 3  # random weights never end by themselves
    return made


def test_labels_are_of_the_set_and_in_order(backend: Backend) -> None:
    labels = backend.label(PROMPTS)
    assert [label.fine for label in labels] == [backend.label([prompt])[0].fine for prompt in PROMPTS]
    assert labels[1].fine == labels[4].fine
    assert backend.label([]) == []
    for label in labels:
        assert label.intent in INTENT_IDS
        assert label.fine in {None, *(fine.id for fine in FINE_INTENTS)}
        assert 0 <= label.confidence <= 1
        assert label.template == backend.template
        assert Label.from_dict(label.to_dict()) == label


def test_it_says_who_it_is(backend: Backend) -> None:
    assert backend.block >= 1
    assert backend.source.isprintable()
    assert 0 < len(backend.source) <= 256  # a profile names it


def test_a_logged_run_gives_what_the_backend_gives(backend: Backend, tmp_path: Path) -> None:
    first = label_prompts(PROMPTS, backend, tmp_path / "log", overrides=False)
    second = label_prompts(PROMPTS, backend, tmp_path / "log", overrides=False)
    assert second == first
    assert [label.fine for label in first] == [label.fine for label in backend.label(PROMPTS)]
