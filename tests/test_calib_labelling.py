"""The labelling stage of a run: until the classes are full, through a server, from records, and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_runs import SMALL
from scripted_server import Server, running, scored, send_json

from claspkit.calib import labelling
from claspkit.calib.cli import main
from claspkit.calib.config import RunConfig, lock, read_lock
from claspkit.calib.folder import RunFolder
from claspkit.calib.labelling import Access, label_samples, router_facts
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.progress import Reporter
from claspkit.calib.samples import Sample, Source, make_sample, sample_order
from claspkit.profiles.canonical import canonical_json, digest, write_atomic
from claspkit.profiles.errors import BadDataError, MismatchError, UsageError
from claspkit.profiles.intents import FINE_INTENTS, INTENT_IDS, STANDARD
from claspkit.profiles.records import read_records
from claspkit.router.backends import Backend, make_backend
from claspkit.router.labels import UNREAD, Label

SECRET = "sk-very-secret-0123456789"
OPTIONS = ["--model", "mini", "--per-class", "2"]


class Numbered(Backend):
    """Labels "3 of ..." as the fourth intent; counts what it is asked."""

    def __init__(self, block: int) -> None:
        self.source, self.template, self.block = "teacher:numbered@1", "n" * 64, block
        self.asked = 0

    def label(self, prompts: Sequence[str]) -> list[Label]:
        self.asked += len(prompts)
        return [Label(INTENT_IDS[int(prompt[0])], None, 0.5, self.source, self.template) for prompt in prompts]


def numbered(intents: Sequence[int], copies: int) -> list[Sample]:
    """A sample for each intent number; every ``copies`` of one intent share their prompt."""
    return [
        make_sample(
            image="a.png",
            image_sha256="0" * 64,
            prompt=f"{intent} of row {place // copies}",
            answers=["yes"],
            source=Source("d", None, None, place),
        )
        for place, intent in enumerate(intents)
    ]


def label_in_memory(config: RunConfig, samples: Sequence[Sample]) -> dict[str, Label]:
    """The stage without a log."""
    return label_samples(config, Access(), STANDARD, samples, None, lambda done, total: None)


@settings(max_examples=60, deadline=None)
@given(
    rounds=st.integers(0, 4),
    more=st.lists(st.integers(0, 8), max_size=40),
    per_class=st.integers(1, 3),
    blocks=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    copies=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_full_classes_hold_what_they_would_hold_anyway(
    rounds: int, more: list[int], per_class: int, blocks: tuple[int, int], copies: int, seed: int
) -> None:
    """Same samples per class as when all are labelled, whatever the block; labelled is the shortest prefix."""
    samples = numbered([*range(9)] * rounds + more, copies)
    config = RunConfig("mini", per_class, seed=seed, router="transformers")
    found = []
    for block in blocks:
        backend = Numbered(block)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(labelling, "make_backend", lambda *_, made=backend: made)
            everything = label_in_memory(config, samples)
            backend.asked = 0
            found.append(label_in_memory(replace(config, label_until_full=True), samples))
            assert backend.asked <= len(found[-1]) + block
    assert found[0] == found[1]
    ordered = sample_order(samples, seed)
    assert list(found[0]) == [sample.uid for sample in ordered[: len(found[0])]]

    def taken(labels: dict[str, Label], intent: str) -> list[str]:
        mine = [sample.uid for sample in ordered if sample.uid in labels and labels[sample.uid].intent == intent]
        return mine[:per_class]

    counts = []
    for intent in INTENT_IDS:
        assert taken(found[0], intent) == taken(everything, intent)
        counts.append(sum(label.intent == intent for label in found[0].values()))
    if len(found[0]) < len(samples):
        assert min(counts) == per_class  # the last one taken filled its class: one fewer would not do
        last = found[0][list(found[0])[-1]].intent
        assert counts[INTENT_IDS.index(last)] == per_class


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own for each test."""
    with running() as made:
        yield made


def label(folder: Path, *more: str) -> int:
    """``claspkit label`` of mini in this process; returns the exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["label", *OPTIONS, "--out", str(folder), *more])
    return int(stop.value.code or 0)


def test_a_run_labels_through_a_server_until_full_and_leaves_no_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer requests than prompts, the same again costs none, and the key is nowhere in the run or on the screen."""
    monkeypatch.setenv("MY_KEY", SECRET)
    fine = {item.intent: index for index, item in enumerate(FINE_INTENTS)}
    rules = {"counting": "how many", "attribute": "colo", "spatial": "where"}

    def act(handler, asked) -> None:  # type: ignore[no-untyped-def]
        prompt = asked.body["messages"][0]["content"].rpartition("<<<")[2]
        intent = next((name for name, word in rules.items() if word in prompt), None)
        letters = {} if intent is None else {"ABCDEFGHIJKLMNO"[fine[intent]]: -0.2}
        send_json(scored(letters))(handler, asked)

    server.otherwise = act
    run = tmp_path / "run"
    options = ["--router", "openai", "--router-model", "m", "--router-endpoint", server.url]
    options += ["--router-key-env", "MY_KEY", "--router-concurrency", "2"]
    assert label(run, *options) == 0
    said = capsys.readouterr()
    everything = len(server.asked)
    assert everything == len(read_records(run / "labels.jsonl"))
    assert "labelled by: " in said.err
    assert UNREAD in said.err
    assert "could not be read" in said.err
    assert label(run, *options) == 0
    assert len(server.asked) == everything
    left = [path for path in run.rglob("*") if path.is_file()]
    assert len(left) >= 3
    assert not [path for path in left if SECRET.encode() in path.read_bytes()]
    again = capsys.readouterr()
    assert SECRET not in said.out + said.err + again.out + again.err
    locked = read_lock(run)
    assert (locked["router_endpoint"], locked["router_mode"]) == (server.url, "logits")
    assert not {name for name in locked if "key" in name or "concurrency" in name}


def test_a_run_replays_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By rules, from the record of that: the same labels; other records under the same name are refused."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert label(first) == 0
    answers = tmp_path / "answers.jsonl"
    answers.write_bytes((first / "labels.jsonl").read_bytes())
    options = ["--router", "replay", "--router-answers", str(answers)]
    capsys.readouterr()
    assert label(second, *options) == 0
    assert "labelled by: " in capsys.readouterr().err
    found = [
        [(record["prompt"], record["label"]["intent"]) for record in read_records(run / "labels.jsonl")]
        for run in (first, second)
    ]
    assert found[0] == found[1]
    answers.write_text(json.dumps({"prompt": "x", "fine": "other"}))
    assert label(second, *options) == 4
    assert "router_answers_sha256" in capsys.readouterr().err
    assert label(tmp_path / "third", *options) == BadDataError.exit_code
    assert "has no answer to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--router", "openai"],
        ["--router", "openai", "--router-model", "m", "--router-endpoint", f"https://u:{SECRET}@host/v1"],
        ["--router-endpoint", f"https://host/v1?key={SECRET}"],
        ["--router", "replay"],
        ["--router", "replay", "--router-answers", "absent.jsonl"],
        ["--router-mode", "xml"],
        ["--router", "openai", "--router-model", "m", "--router-endpoint", "http://h", "--router-key-env", SECRET],
    ],
)
def test_impossible_options_leave_nothing_behind(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 before the model is loaded and before anything is written; a secret in them is not repeated."""
    assert label(tmp_path / "run", *options) == UsageError.exit_code
    said = capsys.readouterr()
    assert "loading" not in said.err
    assert SECRET not in said.out + said.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_run_of_before_these_options_resumes(tmp_path: Path) -> None:
    """A lock without them means their defaults; another value is a difference."""
    younger = ("router_mode", "router_endpoint", "router_answers", "label_until_full", "profile_router")
    facts = SMALL.to_dict()
    old = {name: value for name, value in facts.items() if name not in younger}
    record = {"format": "clasp-run", "version": 1, "sha256": digest(old), "facts": old}
    write_atomic(tmp_path / "config.lock.json", canonical_json(record))
    lock(tmp_path, facts)
    assert read_lock(tmp_path) == facts
    with pytest.raises(MismatchError, match='router_mode: "logits" in the run, "json" asked for now'):
        lock(tmp_path, replace(SMALL, router_mode="json").to_dict())


@pytest.mark.parametrize("typed", ["http://Host:8000", "http://host:8000/v1/", "http://host:8000/v1/chat/completions"])
def test_another_spelling_of_an_endpoint_is_no_other_run(typed: str, tmp_path: Path) -> None:
    """Locked in one form; a lock of before, with the endpoint as typed, resumes too."""
    spelt = replace(SMALL, router="openai", router_model="m", router_endpoint="http://host:8000/v1")
    typed_so = replace(spelt, router_endpoint=typed)
    facts = [{**config.to_dict(), **router_facts(config, STANDARD)} for config in (spelt, typed_so)]
    assert facts[0] == facts[1]
    record = {"format": "clasp-run", "version": 1, "sha256": digest(typed_so.to_dict()), "facts": typed_so.to_dict()}
    write_atomic(tmp_path / "config.lock.json", canonical_json(record))
    lock(tmp_path, facts[0])
    assert read_lock(tmp_path)["router_endpoint"] == "http://host:8000/v1"
    other = replace(spelt, router_endpoint="http://host:8001/v1")
    with pytest.raises(MismatchError, match="router_endpoint"):
        lock(tmp_path, {**other.to_dict(), **router_facts(other, STANDARD)})


def test_until_full_is_told_and_gives_the_same_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On mini with one prompt a block: fewer are labelled, and every class has the samples of the full run."""
    config = replace(SMALL, per_class=2, router="transformers")
    taken = []
    for until_full in (False, True):
        rules = make_backend("rules")
        rules.block = 1
        monkeypatch.setattr(labelling, "make_backend", lambda *_, made=rules: made)
        said: list[str] = []
        report = Reporter(quiet=True)
        monkeypatch.setattr(report, "say", said.append)
        folder = RunFolder(tmp_path / str(until_full))
        pipeline = Pipeline(replace(config, label_until_full=until_full), folder, report)
        folder.root.mkdir()
        samples = Pipeline(replace(config, per_class=8), folder, report)._samples().samples
        labels = pipeline._labels(samples, Access())
        taken.append(pipeline._classes(samples, labels))
        told = [line for line in said if "every class is full after" in line]
        assert len(told) == (len(labels) < len(samples)) == until_full
        monkeypatch.undo()
    assert taken[0] == taken[1]
    assert all(len(data.search) + len(data.holdout) == 2 for data in taken[0])
