"""Recorded answers: an earlier run's log, plain lines, and everything that may be wrong with either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from claspkit.profiles.errors import BadDataError, ClaspError, CorruptError, UsageError
from claspkit.profiles.records import open_log, read_records
from claspkit.router.backends import Backend, BackendOptions, make_backend
from claspkit.router.labels import Label, unread
from claspkit.router.run import label_prompts

PROMPTS = ["How many dogs?", "Tell me.", "Where?"]


class Teacher(Backend):
    """Knows three answers, of which one is none."""

    def __init__(self, name: str = "fake", confidence: float = 0.75) -> None:
        self.source, self.template, self.block = f"teacher:{name}@1", "t" * 64, 2
        self.confidence = confidence

    def label(self, prompts: Sequence[str]) -> list[Label]:
        return [
            unread(self.source, self.template)
            if prompt == "Tell me."
            else Label("scene", "place_type", self.confidence, self.source, self.template)
            for prompt in prompts
        ]


def replay(path: Path) -> Backend:
    """The backend that reads ``path``."""
    return make_backend("replay", BackendOptions(answers=path))


def lines(path: Path, *rows: Any) -> Path:
    """A file of plain answers."""
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_run_is_replayed_from_its_log(tmp_path: Path) -> None:
    """The same intents and confidences, also of prompts that differ in case; who decided stays readable."""
    log = tmp_path / "labels.jsonl"
    first = label_prompts(PROMPTS, Teacher(), log, overrides=False)
    backend = replay(log)
    again = label_prompts([*PROMPTS, "USER: tell  ME."], backend, None, overrides=False)
    assert [(label.intent, label.fine, label.confidence) for label in again[:3]] == [
        (label.intent, label.fine, label.confidence) for label in first
    ]
    assert [label.source for label in again] == [
        "replay:teacher:fake@1",
        "replay:teacher:fake@1!unread",
        "replay:teacher:fake@1",
        "replay:teacher:fake@1!unread",
    ]
    assert [label.flagged for label in again] == [False, True, False, True]
    assert {label.template for label in again} == {backend.template}
    second = tmp_path / "second.jsonl"
    label_prompts(PROMPTS, backend, second, overrides=False)
    assert [label.source for label in replay(second).label(PROMPTS)] == [label.source for label in again[:3]]


def test_the_last_labeller_of_a_log_is_replayed(tmp_path: Path) -> None:
    """Answers of two are never mixed."""
    log = tmp_path / "labels.jsonl"
    label_prompts(PROMPTS, Teacher("old", 0.25), log, overrides=False)
    label_prompts(PROMPTS[:1], Teacher("new"), log, overrides=False)
    backend = replay(log)
    assert [label.source for label in backend.label(PROMPTS[:1])] == ["replay:teacher:new@1"]
    with pytest.raises(BadDataError, match=r"no answer to 2 of 3 prompts, the first: 'Tell me\.'"):
        backend.label(PROMPTS)


def test_plain_lines_are_answers(tmp_path: Path) -> None:
    """A prompt and a fine intent; confidence 1 where none is given; blank lines and repetitions are no matter."""
    path = lines(
        tmp_path / "a.jsonl",
        {"prompt": "How many dogs?", "fine": "object_counting"},
        "",
        {"prompt": "Where?", "fine": "spatial_relation", "confidence": 0.5},
        {"prompt": "USER: where?", "fine": "spatial_relation", "confidence": 0.5},
    )
    backend = replay(path)
    labels = backend.label(["where?", "How many dogs?"])
    assert [(label.intent, label.fine, label.confidence) for label in labels] == [
        ("spatial", "spatial_relation", 0.5),
        ("counting", "object_counting", 1.0),
    ]
    assert {label.source for label in labels} == {backend.source}
    other = replay(lines(tmp_path / "b.jsonl", {"prompt": "Where?", "fine": "other"}))
    assert other.source != backend.source


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "x"}, 'line 2: an answer needs "prompt"'),
        ({"fine": "other"}, "line 2"),
        ({"prompt": "x", "fine": "counting"}, "line 2.*one of object_identity"),
        ({"prompt": "x", "fine": ["other"]}, "line 2"),
        ({"prompt": 7, "fine": "other"}, "line 2"),
        ({"prompt": "x", "fine": "other", "confidence": 1.5}, "line 2.*within 0 and 1"),
        ({"prompt": "x", "fine": "other", "confidence": "1"}, "line 2"),
        ({"prompt": "WHERE?", "fine": "other"}, "line 2: another answer to 'WHERE"),
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: it is no JSON object"),
        ('{"prompt": "x", "prompt": "y", "fine": "other"}', "line 2: .*twice"),
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, row: Any, said: str) -> None:
    """Nothing is skipped."""
    path = lines(tmp_path / "a.jsonl", {"prompt": "Where?", "fine": "spatial_relation"}, row)
    with pytest.raises(BadDataError, match=said):
        replay(path)


def test_damage_and_absence(tmp_path: Path) -> None:
    """Logs of others, of other classes, with a changed byte; no file, a folder, no option."""
    log = tmp_path / "labels.jsonl"
    label_prompts(PROMPTS, Teacher(), log, overrides=False)
    record = read_records(log)[-1]
    for number, (changed, said) in enumerate(
        (
            ({"what": "else"}, "no label log of this version"),
            ({**record, "label": {**record["label"], "intent": "nothing"}}, "intent is 'nothing'"),
            ({**record, "label": {**record["label"], "source": "a\nb"}}, "source is"),
            ({**record, "taxonomy": "0" * 64}, "other classes"),
        )
    ):
        path = tmp_path / str(number)
        with open_log(path)[0] as other:
            other.append([changed])
        with pytest.raises(ClaspError, match=said):
            replay(path)
    data = bytearray(log.read_bytes())
    data[20] ^= 1
    log.write_bytes(data)
    with pytest.raises(CorruptError, match="line 1"):
        replay(log)
    for absent in (tmp_path / "absent", tmp_path):
        with pytest.raises(UsageError, match="--router-answers"):
            replay(absent)
    with pytest.raises(UsageError, match="--router-answers"):
        make_backend("replay")
    empty = lines(tmp_path / "empty")
    with pytest.raises(BadDataError, match="no answer to 3 of 3"):
        replay(empty).label(PROMPTS)
