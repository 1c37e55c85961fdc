"""Every backend with a taxonomy of a user's own: its classes, its fine intents, and nothing of the standard one."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_taxonomy import OWN
from scripted_server import running, scored, send_json, wrote
from tiny_teacher import save_teacher

from claspkit.profiles.errors import BadDataError, CorruptError, ProfileError, UsageError
from claspkit.profiles.intents import STANDARD
from claspkit.profiles.taxonomy import FineIntent, Intent, PhraseRule, Taxonomy, parse_taxonomy
from claspkit.router.backend_rules import RulesBackend, rules_of
from claspkit.router.backends import Backend, BackendOptions, make_backend
from claspkit.router.json_mode import json_digest, opening, read_answer
from claspkit.router.labels import Label
from claspkit.router.rules import rules_digest
from claspkit.router.run import label_prompts
from claspkit.router.student import MAX_FILE, StudentBackend, most_bits
from claspkit.router.student_training import train_student
from claspkit.router.template import instructions, letters, template_digest

TAXONOMY = parse_taxonomy(OWN.encode())
BARE = Taxonomy("bare", TAXONOMY.intents, TAXONOMY.fine_intents, TAXONOMY.default)
PROMPTS = ["How many pallets?", "What colour is the crate?", "What is that?", "Why?", "", "x" * 10_000]


def options(**changes: Any) -> BackendOptions:
    """Options with the example's classes."""
    return BackendOptions(**({"taxonomy": TAXONOMY} | changes))


def check(backend: Backend) -> list[Label]:
    """Labels of all prompts, each of the taxonomy."""
    labels = backend.label(PROMPTS)
    assert backend.taxonomy is TAXONOMY
    for label in labels:
        assert Label.from_dict(label.to_dict(), TAXONOMY) == label
        if label.fine is None:
            assert label.intent == TAXONOMY.default
            assert label.confidence == 0
    return labels


def test_phrases_decide_as_whole_words_in_order() -> None:
    """Whatever the case and the chat remains; the first rule wins; nothing matched is the default with confidence 0."""
    labels = check(make_backend("rules", options()))
    assert [label.intent for label in labels] == ["amount", "look", "look", "rest", "rest", "rest"]
    assert [label.source for label in labels[:4]] == ["rule:count", "rule:colour", "rule:kind", "rule:none"]
    assert [label.confidence for label in labels[:4]] == [1, 1, 1, 0]
    rules = rules_of(TAXONOMY)
    for prompt, fine in {
        "USER: <image>\nHOW  MANY crates? ASSISTANT:": "how_many",
        "What is the number of crates?": "how_many",
        "What colour, and how many?": "how_many",
        "The show manyfold thing": None,
        "somehow many": None,
        "Is it (A) how many (B) what colour": "how_many",  # literal: also in options
    }.items():
        found = rules.match(prompt)
        assert (found.fine if found else None) == fine, prompt
    over, quiet = rules.match("how many?", overriding=True), rules.match("what colour?", overriding=True)
    assert over is not None
    assert over.intent == "amount"
    assert quiet is None


def test_phrases_are_no_patterns() -> None:
    """Signs of regular expressions mean themselves, and a hostile one costs nothing."""
    rules = (PhraseRule("a", "colour", ("(a+)+$", "what.ever")), PhraseRule("b", "kind", ("c++?",)))
    matcher = rules_of(Taxonomy("t", TAXONOMY.intents, TAXONOMY.fine_intents, "rest", rules))
    assert matcher.match("a" * 4000 + "!") is None
    assert matcher.match("whatxever") is None
    for prompt, rule in {"is (a+)+$ there": "a", "or what.ever it is": "a", "is this c++?": "b"}.items():
        found = matcher.match(prompt)
        assert found is not None
        assert found.id == rule


def test_the_rules_of_claspkit_are_for_the_standard_classes() -> None:
    """A taxonomy without rules has none: no labelling by them, no overruling of a teacher, and a clear word."""
    with pytest.raises(UsageError, match=r"taxonomy 'bare' has no rules to label by: give it \[\[rule\]\] tables"):
        RulesBackend(BARE)
    assert rules_of(BARE).match("How many dogs are there?") is None
    assert rules_of(STANDARD).digest == RulesBackend().template == rules_digest()
    with pytest.raises(UsageError, match="the student that comes with claspkit knows the standard intents"):
        make_backend("student", options())


def test_a_taxonomy_with_the_standard_merging_keeps_the_rules_unless_it_has_its_own() -> None:
    """Reworded definitions still go with claspkit's rules; rules of one's own replace them."""
    fine = tuple(FineIntent(item.id, "Reworded.", item.intent) for item in STANDARD.fine_intents)
    worded = Taxonomy("worded", STANDARD.intents, fine, "default")
    assert RulesBackend(worded).template == rules_digest()
    mine = Taxonomy("mine", STANDARD.intents, fine, "default", (PhraseRule("p", "other", ("please",)),))
    label = RulesBackend(mine).label(["Please, how many?"])[0]
    assert (label.fine, label.source) == ("other", "rule:p")


@pytest.mark.long
def test_a_teacher_reads_these_definitions_and_answers_with_these_letters(tmp_path: Path) -> None:
    """Both modes of a local model."""
    folder = save_teacher(tmp_path / "teacher")
    for mode in ("logits", "json"):
        backend = make_backend("transformers", options(model=str(folder), mode=mode))
        labels = check(backend)
        if mode == "logits":
            assert {label.fine for label in labels} <= set(TAXONOMY.fine_ids)
            assert all(label.confidence >= 1 / 4 for label in labels)
    assert letters(TAXONOMY) == "ABCD"
    text = instructions(TAXONOMY)
    assert "A. how many: How many things of a kind there are. For example: How many pallets are there?\n" in text
    assert "Reply with one letter from A to D and nothing else." in text
    assert not any(fine.definition in text for fine in STANDARD.fine_intents)
    asked = opening("Why?", TAXONOMY)[0]["content"]
    assert all(f"{fine.id}: {fine.definition}" in asked for fine in TAXONOMY.fine_intents)
    assert len({f(t) for f in (template_digest, json_digest) for t in (STANDARD, TAXONOMY)}) == 4


def test_written_answers_are_of_this_taxonomy() -> None:
    """A standard name is as wrong as any other."""
    assert read_answer('{"intent": "colour"}', TAXONOMY).intent == "look"
    with pytest.raises(ValueError, match="is not one of the names: how_many, colour, kind, anything"):
        read_answer('{"intent": "object_counting"}', TAXONOMY)


def test_a_server_is_asked_for_these(tmp_path: Path) -> None:
    """Letters beyond the last are no answers; JSON names one of the four."""
    with running() as server:
        known = options(model="m", endpoint=server.url)
        server.script = [send_json(scored({"B": math.log(0.3), "E": math.log(0.5), "D": math.log(0.1)}))]
        label = make_backend("openai", known).label(["What?"])[0]
        assert (label.intent, label.fine, label.confidence) == ("look", "colour", 0.75)
        server.script = [send_json(wrote('{"intent": "other"}')), send_json(wrote('{"intent": "anything"}'))]
        label = make_backend("openai", options(model="m", endpoint=server.url, mode="json")).label(["What?"])[0]
        assert (label.intent, label.fine) == ("rest", "anything")
        server.script = [send_json(scored({"E": -0.1}))]
        assert make_backend("openai", known).label(["Why?"])[0].intent == "rest"


def test_a_log_of_other_classes_is_not_taken(tmp_path: Path) -> None:
    """Neither for a resumed run nor for a replay; one of the same classes is."""
    log = tmp_path / "labels.jsonl"
    first = label_prompts(PROMPTS, make_backend("rules", options()), log, overrides=False)
    before = log.read_bytes()
    assert label_prompts(PROMPTS, make_backend("rules", options()), log, overrides=False) == first
    assert log.read_bytes() == before
    replayed = make_backend("replay", options(answers=log)).label(PROMPTS)
    assert [label.intent for label in replayed] == [label.intent for label in first]
    with pytest.raises(BadDataError, match="labelled with other classes than these"):
        make_backend("replay", BackendOptions(answers=log))
    with pytest.raises(CorruptError, match="a label's intent is 'amount'; there are: object, attribute"):
        Label.from_dict(first[0].to_dict())
    lines = tmp_path / "answers.jsonl"
    lines.write_text('{"prompt": "Why?", "fine": "object_counting"}\n')
    with pytest.raises(BadDataError, match="one of how_many, colour, kind, anything"):
        make_backend("replay", options(answers=lines))


def test_rules_overrule_a_teacher_by_the_backends_own_taxonomy(tmp_path: Path) -> None:
    """Only those that say so."""
    lines = tmp_path / "answers.jsonl"
    lines.write_text("".join(f'{{"prompt": "{p}", "fine": "anything"}}\n' for p in ("how many?", "what colour?")))
    labels = label_prompts(
        ["how many?", "what colour?"], make_backend("replay", options(answers=lines)), None, overrides=True
    )
    assert [label.fine for label in labels] == ["how_many", "anything"]


def test_a_student_is_trained_stored_and_read_for_its_taxonomy() -> None:
    """Its file is of no use for another one, the standard one included, and a standard file not for this one."""
    texts = [f"{start} number {n}" for n in range(60) for start in ("how many", "what colour", "what is", "so")]
    kinds = ["how_many", "colour", "kind", "anything"] * 60
    trained = train_student(texts, kinds, bits=8, taxonomy=TAXONOMY)
    data = trained.student.to_bytes()
    assert train_student(texts, kinds, bits=8, taxonomy=TAXONOMY).student.to_bytes() == data
    read = StudentBackend.from_bytes(data, TAXONOMY)
    assert check(read) == check(trained.student)
    labels = read.label(["how many boxes", "what colour is it"])
    assert [label.intent for label in labels] == ["amount", "look"]
    assert trained.held_out is not None
    assert [row.intent for row in trained.held_out.classes] == list(TAXONOMY.ids)
    with pytest.raises(ProfileError, match="trained for another taxonomy, not for 'clasp-nine'"):
        StudentBackend.from_bytes(data)
    standard = StudentBackend(np.zeros((4, 15), np.float16), np.zeros(15, np.float16))
    with pytest.raises(ProfileError, match="trained for the standard taxonomy, not for 'shop floor'"):
        StudentBackend.from_bytes(standard.to_bytes(), TAXONOMY)
    assert StudentBackend.from_bytes(standard.to_bytes()).template == standard.template


def test_a_student_of_another_merging_is_refused() -> None:
    """The same fine intents under other classes would answer wrongly without a word."""
    moved = tuple(
        FineIntent(f.id, f.definition, "rest" if f.id == "kind" else f.intent) for f in TAXONOMY.fine_intents
    )
    other = Taxonomy("moved", TAXONOMY.intents, moved, "rest")
    mine = StudentBackend(np.zeros((4, 4), np.float16), np.zeros(4, np.float16), taxonomy=TAXONOMY)
    with pytest.raises(ProfileError, match="trained for another taxonomy"):
        StudentBackend.from_bytes(mine.to_bytes(), other)


@given(st.integers(2, 8), st.data())
def test_shares_are_summed_over_any_merging(classes: int, data: st.DataObject) -> None:
    """With equal logits a class's confidence is its share of the fine intents."""
    spread = data.draw(st.lists(st.integers(0, classes - 1), max_size=26 - classes))
    names = [f"c{k}" for k in range(classes)]
    owners = sorted([*range(classes), *spread])
    fine = tuple(FineIntent(f"f{n}", "A kind.", names[owner]) for n, owner in enumerate(owners))
    taxonomy = Taxonomy("any", tuple(Intent(k, name, name) for k, name in enumerate(names)), fine, names[-1])
    student = StudentBackend(np.zeros((2, len(fine)), np.float16), np.zeros(len(fine), np.float16), taxonomy=taxonomy)
    label = student.label(["anything"])[0]
    largest = max(owners.count(k) for k in range(classes))
    assert label.confidence == pytest.approx(largest / len(fine), abs=1e-6)
    assert label.intent == names[min(k for k in range(classes) if owners.count(k) == largest)]
    assert taxonomy.merge(str(label.fine)) == label.intent


def test_a_student_of_many_intents_fits_its_file() -> None:
    """With 26 it has fewer rows; what is trained can always be read."""
    fine = tuple(FineIntent(f"f{n}", "A kind.", ("a", "b")[n % 2]) for n in range(26))
    taxonomy = Taxonomy("wide", (Intent(0, "a", "A"), Intent(1, "b", "B")), fine, "b")
    trained = train_student([f"prompt {n}" for n in range(52)], [f"f{n % 26}" for n in range(52)], taxonomy=taxonomy)
    data = trained.student.to_bytes()
    assert len(data) <= MAX_FILE
    assert StudentBackend.from_bytes(data, taxonomy).label(["prompt 1"]) == trained.student.label(["prompt 1"])
    assert (most_bits(15), most_bits(16), most_bits(26)) == (15, 14, 14)
