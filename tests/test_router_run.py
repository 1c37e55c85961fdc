"""Labelling runs: each prompt once, nothing lost to a kill, and rules that overrule."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from claspkit.profiles.errors import CorruptError, ResourceError
from claspkit.profiles.records import open_log, read_records
from claspkit.router.backends import Backend, make_backend
from claspkit.router.labels import Label, source_counts
from claspkit.router.prompts import prompt_digest
from claspkit.router.run import label_prompts

PROMPTS = [f"Tell me about number {number}." for number in range(10)]


class Fake(Backend):
    """Labels by the length of the prompt; counts what it is asked, and can break down."""

    def __init__(self, source: str = "teacher:fake@1", *, block: int = 3, breaks_after: int = 99) -> None:
        self.source, self.template, self.block = source, "t" * 64, block
        self.asked: list[str] = []
        self.breaks_after = breaks_after

    def label(self, prompts: Sequence[str]) -> list[Label]:
        if len(self.asked) >= self.breaks_after:
            raise KeyboardInterrupt
        self.asked += prompts
        return [Label("scene", "place_type", 0.75, self.source, self.template) for _ in prompts]


def test_each_different_prompt_is_asked_once_and_in_order() -> None:
    backend = Fake()
    seen: list[tuple[int, int]] = []
    prompts = ["b?", "a?", "B? ", "c?", "a?", "d?", "USER: a? ASSISTANT:"]
    labels = label_prompts(prompts, backend, None, overrides=False, progress=lambda *now: seen.append(now))
    assert backend.asked == ["b?", "a?", "c?", "d?"]
    assert len(labels) == 7
    assert seen == [(0, 7), (6, 7), (7, 7)]
    assert label_prompts([], backend, None, overrides=True) == []


def test_an_interrupted_run_continues_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    broken = Fake(breaks_after=6)
    with pytest.raises(KeyboardInterrupt):
        label_prompts(PROMPTS, broken, log, overrides=False)
    assert len(read_records(log)) == 6
    log.write_bytes(log.read_bytes()[:-4])  # and the last line was torn
    again = Fake()
    seen: list[tuple[int, int]] = []
    labels = label_prompts(PROMPTS, again, log, overrides=False, progress=lambda *now: seen.append(now))
    assert again.asked == PROMPTS[5:]
    assert seen == [(5, 10), (8, 10), (10, 10)]
    assert labels == label_prompts(PROMPTS, Fake(), None, overrides=False)
    finished = log.read_bytes()
    rested = Fake(breaks_after=0)
    assert label_prompts(PROMPTS[::-1], rested, log, overrides=False) == labels
    assert log.read_bytes() == finished
    whole = tmp_path / "whole.jsonl"
    label_prompts(PROMPTS, Fake(), whole, overrides=False)
    assert whole.read_bytes() == finished


def test_labels_of_another_teacher_or_template_are_not_taken(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    label_prompts(PROMPTS, Fake(), log, overrides=False)
    other = Fake("teacher:fake@2")
    label_prompts(PROMPTS, other, log, overrides=False)
    assert other.asked == PROMPTS
    retold = Fake()
    retold.template = "u" * 64
    label_prompts(PROMPTS, retold, log, overrides=False)
    assert retold.asked == PROMPTS
    back = Fake()
    label_prompts(PROMPTS, back, log, overrides=False)
    assert back.asked == []


def test_sure_rules_overrule_and_the_log_keeps_the_teachers_word(tmp_path: Path) -> None:
    log = tmp_path / "labels.jsonl"
    prompts = ["Who wrote this?", "Where is it?", "Tell me."]
    plain = label_prompts(prompts, Fake(), log, overrides=False)
    ruled = label_prompts(prompts, Fake(breaks_after=0), log, overrides=True)
    assert [label.intent for label in plain] == ["scene", "scene", "scene"]
    assert [label.intent for label in ruled] == ["text", "scene", "scene"]
    assert (ruled[0].source, ruled[0].confidence) == ("rule:text-who-wrote", 1.0)
    assert source_counts(ruled) == {"rule:text-who-wrote": 1, "teacher:fake@1": 2}
    assert {record["label"]["source"] for record in read_records(log)} == {"teacher:fake@1"}


def test_rules_as_a_backend(tmp_path: Path) -> None:
    prompts = ["How many cats?", "Hello.", "how many cats?"]
    labels = label_prompts(prompts, make_backend("rules"), tmp_path / "log", overrides=False)
    assert [label.intent for label in labels] == ["counting", "default", "counting"]
    assert len(read_records(tmp_path / "log")) == 2


@pytest.mark.parametrize(
    "label",
    [
        {"intent": "counting"},
        {"intent": "sorcery", "fine": None, "confidence": 0.5, "source": "x", "template": "x"},
        {"intent": "scene", "fine": "text_reading", "confidence": 0.5, "source": "x", "template": "x"},
        {"intent": "scene", "fine": None, "confidence": 2, "source": "x", "template": "x"},
        {"intent": "scene", "fine": None, "confidence": True, "source": "x", "template": "x"},
        {"intent": ["scene"], "fine": None, "confidence": 1, "source": "x", "template": "x"},
        {"intent": "scene", "fine": None, "confidence": 1, "source": 5, "template": "x"},
        "scene",
    ],
)
def test_a_wrong_record_is_named(label: object, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    label_prompts(PROMPTS[:1], Fake(), path, overrides=False)
    good = read_records(path)[0]
    log, _ = open_log(path)
    with log:
        log.append([{**good, "label": label}])
    with pytest.raises(CorruptError, match="line 2"):
        label_prompts(PROMPTS, Fake(), path, overrides=False)


def test_two_runs_on_one_log_are_refused(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path / "log")
    with log, pytest.raises(ResourceError, match="in use by process"):
        label_prompts(PROMPTS, Fake(), tmp_path / "log", overrides=False)


def test_labels_survive_the_way_to_disk() -> None:
    label = Label("scene", "place_type", 0.1 + 0.2, "teacher:x@y", "t")
    assert Label.from_dict(label.to_dict()) == label


CHILD = """
import sys
from claspkit.router.backends import make_backend
from claspkit.router.run import label_prompts
backend = make_backend("rules")
backend.block = 5
prompts = [f"How many things of kind {n} are there?" for n in range(5000)]
label_prompts(prompts, backend, sys.argv[1], overrides=False, progress=lambda n, _: print(n, flush=True))
"""


def test_a_killed_run_loses_at_most_one_block(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", CHILD, str(log)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(10)][-1]
        os.kill(child.pid, signal.SIGKILL)
    done = read_records(log)
    assert told <= len(done) < 5000
    wanted = [prompt_digest(f"How many things of kind {number} are there?") for number in range(len(done))]
    assert [record["prompt"] for record in done] == wanted
