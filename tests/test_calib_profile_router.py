"""Which router a profile gets, its file beside it, and a calibration that ends in a student."""

from __future__ import annotations

import io
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import claspkit
from PIL import Image
from pipeline_runs import SMALL
from profile_example import example_profile

from claspkit.calib import profile_router
from claspkit.calib.profile_router import FEWEST, FILE, choose_router, drop_weights, put_weights
from claspkit.calib.samples import Sample, Source, make_sample
from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import MismatchError, UsageError
from claspkit.profiles.files import read_profile, write_profile
from claspkit.profiles.intents import FINE_INTENTS, merge
from claspkit.profiles.profile import RouterSpec
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.backends import make_backend
from claspkit.router.labels import Label, settle
from claspkit.router.prompts import prompt_digest
from claspkit.router.route import make_router
from claspkit.router.rules import RULES_VERSION
from claspkit.router.student import SHIPPED, StudentBackend, read_student
from claspkit.router.student_training import train_student
from claspkit.runtime.models import load_model
from claspkit.runtime.pruner import prune

FINE = [fine.id for fine in FINE_INTENTS]
ASKED = (
    ("What is the name of the {}?", "object_identity"),
    ("What colour is the {}?", "visual_attribute"),
    ("What breed is the {}?", "breed_or_kind"),
    ("What is written on the {}?", "text_reading"),
    ("What does the logo on the {} stand for?", "symbol_meaning"),
    ("Which room is the {} in?", "place_type"),
    ("How is the weather over the {}?", "scene_conditions"),
    ("Is the {} left or right of the door?", "spatial_relation"),
    ("How many {}s can be counted?", "object_counting"),
    ("By how much do the {}s outnumber the chairs?", "arithmetic_reasoning"),
    ("Who plays with the {} here?", "action_or_interaction"),
    ("What happens next to the {} afterwards?", "temporal_order"),
    ("Why does someone need the {}?", "purpose_or_reason"),
    ("Is there any {}?", "existence_check"),
    ("Write a poem about the {}.", "other"),
)
THINGS = (
    *("dog", "cup", "lamp", "car", "boat", "shoe", "bird", "tree", "ball", "book", "clock", "phone", "horse", "bench"),
    *("plate", "knife", "kite", "bus", "cake", "box", "hat", "bag", "chair", "fork", "spoon", "truck", "sheep", "bowl"),
    *("sink", "couch", "vase", "bed", "mouse", "oven", "pear", "cow", "bear", "skirt", "flag", "bell"),
)
EXAMPLES = [(words.format(thing), fine) for thing in THINGS for words, fine in ASKED]
"""600 prompts that are easily learned."""
REPLAY = replace(SMALL, router="replay", per_class=4)


def shifted(fine: str) -> str:
    """The next fine intent: labels that nobody but a student of these very labels can give."""
    return FINE[(FINE.index(fine) + 1) % len(FINE)]


def labelled(pairs: Sequence[tuple[str, str | None]]) -> tuple[list[Sample], dict[str, Label]]:
    """Samples with these prompts, and a teacher's labels for them."""
    samples, labels = [], {}
    for row, (prompt, fine) in enumerate(pairs):
        sample = make_sample(
            image="a.png",
            image_sha256="0" * 64,
            prompt=prompt,
            answers=["yes"],
            source=Source("d", None, None, row),
        )
        samples.append(sample)
        labels[sample.uid] = Label(merge(fine) if fine else "default", fine, 0.9, "teacher:t@1", "t" * 64)
    return samples, labels


@pytest.fixture(scope="module")
def odd() -> tuple[list[Sample], dict[str, Label]]:
    """All of them labelled one fine intent further, and one prompt that has none."""
    return labelled([*((prompt, shifted(fine)) for prompt, fine in EXAMPLES), ("Hm?", None)])


def test_rules_that_labelled_stay_rules(odd: tuple[list[Sample], dict[str, Label]]) -> None:
    """The router that every profile had before, and the same where rules are asked for."""
    before = {
        "kind": "rules",
        "rules_version": RULES_VERSION,
        "file": None,
        "sha256": None,
        "min_confidence": 0.5,
        "fallback": "default",
    }
    for config in (SMALL, replace(REPLAY, profile_router="rules"), replace(SMALL, profile_router="rules")):
        router = choose_router(config, *odd)
        assert (router.spec, router.weights, router.facts["chosen"]) == (before, None, "rules")
        assert router.facts["prompts"] == router.facts["compared"] == 600


def test_a_student_that_labelled_goes_itself(tmp_path: Path) -> None:
    """The file that was named, byte for byte, and its own threshold; another one in its place is refused."""
    path = tmp_path / "own.safetensors"
    own = train_student([prompt for prompt, _ in EXAMPLES[:300]], [fine for _, fine in EXAMPLES[:300]], epochs=2)
    path.write_bytes(own.student.to_bytes())
    samples, _ = labelled(EXAMPLES[:3])
    labels = dict(zip([s.uid for s in samples], own.student.label([s.prompt for s in samples]), strict=True))
    config = replace(SMALL, router="student", router_model=str(path))
    router = choose_router(config, samples, labels)
    assert router.weights == path.read_bytes()
    assert own.student.reject_below == 1  # it has no threshold, and no rival either
    assert (router.spec["sha256"], router.spec["min_confidence"]) == (own.student.template, 0.5)
    assert router.facts["chosen"] == "labeller"
    assert choose_router(replace(SMALL, router="student"), [], {}).weights == SHIPPED.read_bytes()
    path.write_bytes(SHIPPED.read_bytes())
    with pytest.raises(MismatchError, match="put the first one back"):
        choose_router(config, samples, labels)


def test_a_teacher_with_few_prompts_gets_the_shipped_student() -> None:
    """One different prompt too few, copies and prompts without a fine intent not counting."""
    pairs = [(prompt, shifted(fine)) for prompt, fine in EXAMPLES[: FEWEST - 1]]
    copies = [(prompt.upper(), fine) for prompt, fine in pairs]
    router = choose_router(REPLAY, *labelled([*pairs, *copies, ("?", None)]))
    assert router.weights == SHIPPED.read_bytes()
    assert (router.facts["chosen"], router.facts["prompts"]) == ("shipped", FEWEST - 1)
    assert str(FEWEST) in router.facts["why"]
    assert RouterSpec.model_validate(router.spec).min_confidence == read_student(SHIPPED).reject_below
    nothing = choose_router(REPLAY, [], {})
    assert (nothing.facts["chosen"], nothing.facts["agreement"]) == ("shipped", None)


def test_a_student_of_the_labels_wins_where_it_alone_knows_them(
    odd: tuple[list[Sample], dict[str, Label]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared on a tenth that it was trained without, then trained on all; the same bytes whatever the order."""
    trained: list[set[str]] = []

    def watched(prompts: Sequence[str], fine: Sequence[str], *, seed: int, taxonomy: Taxonomy) -> Any:
        trained.append({prompt_digest(prompt) for prompt in prompts})
        return train_student(prompts, fine, seed=seed, taxonomy=taxonomy)

    monkeypatch.setattr(profile_router, "train_student", watched)
    router = choose_router(REPLAY, *odd)
    assert (router.facts["chosen"], router.facts["prompts"], router.facts["compared"]) == ("distilled", 600, 60)
    forerunner, final = trained
    assert (len(forerunner), len(final)) == (540, 600)
    samples, labels = odd
    held = [s for s in samples[:600] if prompt_digest(s.prompt) in final - forerunner]
    assert len(held) == 60
    rows = {row["name"]: row for row in router.facts["candidates"]}
    assert list(rows) == ["distilled", "shipped", "rules"]
    for name, backend, threshold in (
        ("shipped", make_backend("student"), read_student(SHIPPED).reject_below),
        ("rules", make_backend("rules"), 0.5),
    ):
        given = [settle(label, threshold, "default").intent for label in backend.label([s.prompt for s in held])]
        right = sum(intent == labels[s.uid].intent for intent, s in zip(given, held, strict=True))
        assert rows[name]["agreement"] == pytest.approx(right / 60)
        assert rows[name]["agreement"] < rows["distilled"]["agreement"]
    random.Random(1).shuffle(samples := list(samples))
    again = choose_router(REPLAY, samples, dict(reversed(labels.items())))
    assert again == router
    assert router.weights is not None
    assert len(router.weights) <= 1_000_000
    other = choose_router(replace(REPLAY, seed=1), *odd)
    assert other.facts["chosen"] == "distilled"
    assert other.weights != router.weights


@pytest.mark.parametrize(
    ("asked", "agreements", "chosen"),
    [
        ("auto", {"distilled": 0.5, "shipped": 0.5, "rules": 0.5}, "distilled"),
        ("auto", {"distilled": 0.4, "shipped": 0.5, "rules": 0.5}, "shipped"),
        ("auto", {"distilled": 0.4, "shipped": 0.5, "rules": 0.6}, "rules"),
        ("student", {"distilled": 0.4, "shipped": 0.5, "rules": 0.6}, "shipped"),
        ("student", {"distilled": 0.5, "shipped": 0.5}, "distilled"),
    ],
)
def test_the_highest_agreement_wins_and_ties_have_an_order(
    asked: str,
    agreements: dict[str, float],
    chosen: str,
    odd: tuple[list[Sample], dict[str, Label]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Distilled before shipped before rules; rules never where a student was asked for."""
    own = StudentBackend.from_bytes(SHIPPED.read_bytes())
    own.source = "student:of-these-labels"

    def agreement(_: object, backend: Any) -> dict[str, Any]:
        name = "distilled" if backend is own else "rules" if backend.source.startswith("rules@") else "shipped"
        return {"min_confidence": 0.5, "agreement": agreements[name], "coverage": 1.0, "accepted_agreement": None}

    monkeypatch.setattr(profile_router._Taught, "student", lambda *_: own)
    monkeypatch.setattr(profile_router._Taught, "agreement", agreement)
    router = choose_router(replace(REPLAY, profile_router=asked), *odd)
    assert router.facts["chosen"] == chosen
    assert router.spec["kind"] == ("rules" if chosen == "rules" else "student")
    assert (router.facts["source"] == own.source) == (chosen == "distilled")


def test_weights_never_lie_beside_a_profile_that_names_others(tmp_path: Path) -> None:
    """New weights take the old profile away, the same ones leave it, and rules delete theirs afterwards."""
    student = choose_router(REPLAY, [], {})
    path = write_profile(example_profile(), tmp_path)
    put_weights(student, path)
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    write_profile(example_profile(), tmp_path)
    put_weights(student, path)
    drop_weights(student, path)
    assert {file.name for file in tmp_path.iterdir()} == {FILE, "profile.json"}
    put_weights(choose_router(SMALL, [], {}), path)
    assert (tmp_path / FILE).exists()
    drop_weights(choose_router(SMALL, [], {}), path)
    assert [file.name for file in tmp_path.iterdir()] == ["profile.json"]


# ------------------------------------------------------------------------------------------- a whole calibration


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a calibration of mini on 520 questions about one picture, labelled from records."""
    folder = tmp_path_factory.mktemp("data")
    Image.linear_gradient("L").convert("RGB").save(folder / "a.png")
    rows = [{"image": "a.png", "prompt": prompt, "answer": "1", "fine": shifted(fine)} for prompt, fine in EXAMPLES]
    lines = "".join(json.dumps(row) + "\n" for row in rows[:520])
    (folder / "answers.jsonl").write_text(lines)
    (folder / "data.jsonl").write_text(lines.replace("fine", "note"))
    options = ["--model", "mini", "--per-class", "4", "--budget", "1/9", "--rho", "0.2", "--max-new-tokens", "4"]
    records = ["--router", "replay", "--router-answers", str(folder / "answers.jsonl")]
    return [*options, "--data", str(folder / "data.jsonl"), "--columns", "answers=answer", *records]


@pytest.fixture(scope="module")
def finished(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a run, never interrupted."""
    run = tmp_path_factory.mktemp("student") / "run"
    assert claspkit("calibrate", *data, "--out", str(run)) == 0
    return run


def files_of(profile: Path) -> dict[str, str]:
    """Name -> digest of what lies in a folder."""
    return {path.name: sha256_hex(path.read_bytes()) for path in profile.iterdir()}


def test_a_taught_run_ends_in_a_profile_with_its_student(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The weights that the profile names, told in summary, report and at the end."""
    profile = read_profile(finished / "profile")
    assert (profile.router.kind, profile.router.file) == ("student", FILE)
    assert files_of(finished / "profile").keys() == {"profile.json", FILE}
    facts = json.loads((finished / "summary.json").read_text())["router"]
    assert (facts["chosen"], facts["prompts"], facts["compared"]) == ("distilled", 520, 52)
    assert facts["min_confidence"] == profile.router.min_confidence
    assert facts["source"] == f"student:{str(profile.router.sha256)[:12]}"
    report = (finished / "report.html").read_text()
    assert facts["source"] in report
    assert claspkit("inspect", str(finished)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Router: a student of this run's labels ({facts['source']}): agrees with " in said


def test_an_exported_folder_routes_as_the_student_labels(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By ``make_router`` and by ``claspkit route``; unsure labels are default and say what they would have been."""
    deploy = tmp_path / "deploy"
    assert claspkit("export", str(finished), "--to", str(deploy)) == 0
    assert files_of(deploy)[FILE] == files_of(finished / "profile")[FILE]
    assert FILE in (deploy / "SHA256SUMS").read_text()
    assert "folder=Path()" in (deploy / "README.md").read_text()
    spec = read_profile(deploy).router
    student = StudentBackend.from_bytes((deploy / FILE).read_bytes())
    prompts = [prompt for prompt, _ in EXAMPLES[:60]]
    raw = student.label(prompts)
    wanted = [settle(label, spec.min_confidence, "default") for label in raw]
    assert make_router(spec, deploy)(prompts) == wanted
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(prompts)))
    capsys.readouterr()
    assert claspkit("route", "--profile", str(deploy), "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["intent"] for row in rows] == [label.intent for label in wanted]
    assert [row["raw_intent"] for row in rows] == [label.intent for label in raw]


def test_a_student_profile_answers_a_question(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``claspkit run`` with the folder's own router, end to end."""
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "a.png")
    capsys.readouterr()
    asked = ["--model", "mini", "--image", str(tmp_path / "a.png"), "--prompt", "How many stars are there?"]
    assert claspkit("run", "--profile", str(finished / "profile"), *asked, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    source = f"student:{str(read_profile(finished / 'profile').router.sha256)[:12]}"
    assert answer["label_source"] == source
    (tmp_path / "alone").mkdir()
    shutil.copy(finished / "profile" / "profile.json", tmp_path / "alone")
    assert claspkit("run", "--profile", str(tmp_path / "alone"), *asked) == 7
    assert "copy it beside the profile" in capsys.readouterr().err.replace("\n", " ")


def test_the_runtime_needs_the_folder_only_to_route(finished: Path) -> None:
    """Named intents take no weights; prompts do, and say so before anything is hooked."""
    profile, loaded = read_profile(finished / "profile"), load_model("mini")
    with prune(loaded.model, profile, intents="counting") as pruned:
        with pytest.raises(UsageError, match=r"router\.safetensors.*in which folder"):
            pruned.use(prompts=["How many stars are there?"])
        assert pruned.intents == ("counting",)
    with pytest.raises(UsageError, match="in which folder"):
        prune(loaded.model, profile, prompts=["How many stars are there?"])
    prompts = [prompt for prompt, _ in EXAMPLES[:15]]
    pruned = prune(loaded.model, profile, prompts=prompts, folder=finished / "profile")
    wanted = make_router(profile.router, finished / "profile")(prompts)
    assert list(pruned.intents) == [label.intent for label in wanted]


KILLED = """
import os, signal, sys
import claspkit.calib.outcome as outcome
from claspkit.calib.cli import main
outcome.write_profile = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


@pytest.mark.long
def test_killed_between_weights_and_profile(data: list[str], finished: Path, tmp_path: Path) -> None:
    """Kill -9 there leaves no profile; the same command ends in the bytes of the uninterrupted run."""
    run = tmp_path / "run"
    words = ["calibrate", *data, "--out", str(run)]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in (run / "profile").iterdir()] == [FILE]
    assert claspkit(*words) == 0
    assert files_of(run / "profile") == files_of(finished / "profile")


def test_the_choice_is_locked_and_fresh_takes_the_weights_away(
    data: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another ``--profile-router`` is another run; begun anew with rules, no weights are left. A typo is refused."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    words = ["calibrate", *data, "--out", str(run), "--profile-router"]
    assert claspkit(*words, "rules") == 4
    assert 'profile_router: "auto" in the run, "rules" asked for now' in capsys.readouterr().err
    assert claspkit(*words, "rules", "--fresh") == 0
    assert read_profile(run / "profile").router.kind == "rules"
    assert files_of(run / "profile").keys() == {"profile.json"}
    assert claspkit(*words, "teacher") == 2
    assert "auto, rules, student" in capsys.readouterr().err.replace("\n", " ")
