"""Budgets by class through the whole job: a planted truth that is taken, and mini itself, whatever it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import exit_code
from PIL import Image
from pipeline_runs import calibrate

from claspkit.calib import pipeline
from claspkit.calib.evaluator import BlockResult
from claspkit.calib.ledger import Cost
from claspkit.calib.plan import decoder_flops
from claspkit.calib.samples import Sample
from claspkit.calib.space import Candidate
from claspkit.profiles.budget import Stage
from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.files import read_profile
from claspkit.profiles.intents import INTENT_IDS
from claspkit.runtime.inputs import batch_inputs
from claspkit.runtime.models import load_model
from claspkit.runtime.pruner import prune

BUDGETS = "2/9,1/3,1/9"
TARGET, MORE, LESS = [60, 27, 15], [75, 50, 30], [17, 9, 5]
NEEDY, CAREFREE = ("text", "counting"), ("object", "scene")


class Planted:
    """Answers as if two classes needed tokens and two did not; all configurations alike. Takes an evaluator's place."""

    def __init__(self, *_: object) -> None:
        """Nothing of what an evaluator is given is needed."""

    def evaluate(
        self, samples: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        """One outcome per candidate."""
        for each in candidates:
            nominal = each.further.nominal if each.further else 32
            yield [self._outcome(each, samples, nominal)]

    def unpruned(self, samples: Sequence[Sample]) -> BlockResult:
        """As at the largest budget."""
        return self._outcome(None, samples, 48)

    @staticmethod
    def _outcome(candidate: Candidate | None, samples: Sequence[Sample], nominal: int) -> BlockResult:
        scores = []
        for sample in samples:
            share = {16: 0.4, 32: 0.9, 48: 0.9}[nominal]
            if sample.intent_hint in NEEDY:
                share = {16: 0.2, 32: 0.5, 48: 1.0}[nominal]
            elif sample.intent_hint in CAREFREE:
                share = 0.9
            scores.append(float(int(sha256_hex(sample.uid.encode())[:8], 16) % 1000 < 1000 * share))
        return BlockResult(candidate, tuple("1" if score else "2" for score in scores), tuple(scores), Cost())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose scores are planted; all else is real."""
    folder = tmp_path_factory.mktemp("planted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "Evaluator", Planted)
        calibrate(folder, budget=BUDGETS, adaptive_budget=True, per_class=60)
    return folder


def test_the_profile_has_what_was_planted(planted: Path) -> None:
    """More tokens where they are needed, fewer where they are not, the target elsewhere; within the target's FLOPs."""
    summary = json.loads((planted / "summary.json").read_text())
    found, profile = summary["adaptive"], read_profile(planted / "profile-adaptive")
    assert found["decision"] == "adaptive"
    assert (found["profile_id"], found["path"]) == (profile.profile_id, "profile-adaptive/profile.json")
    assert found["p_value"] < 0.05
    assert found["ci_low"] > 0
    assert profile.schema_version == "1.3"
    uniform = read_profile(planted / "profile")
    assert profile.budget == uniform.budget
    assert [stage.keep for stage in profile.budget.stages] == TARGET
    keeps = {
        spec.intent: [stage.keep for stage in spec.stages] if spec.stages else TARGET for spec in profile.classes
    }
    assert keeps == {
        intent: MORE if intent in NEEDY else LESS if intent in CAREFREE else TARGET for intent in INTENT_IDS
    }
    loaded = load_model("mini")
    facts, layers = loaded.family.facts(loaded.model), [stage.after_layer for stage in profile.budget.stages]
    flops = [
        decoder_flops([Stage(layer, keep) for layer, keep in zip(layers, kept, strict=True)], facts)
        for kept in keeps.values()
    ]
    assert sum(flops) / 9 == pytest.approx(found["mean_flops"])
    assert found["mean_flops"] <= found["target_flops"]
    evidence = profile.extensions["adaptive_budget"]
    assert isinstance(evidence, dict)
    assert {name: found[name] for name in evidence} == evidence
    for spec in profile.classes:  # evidence and configuration of a class are those of its budget's own profile
        folder = {tuple(MORE): "profile-48", tuple(LESS): "profile-16"}.get(tuple(keeps[spec.intent]), "profile")
        own = read_profile(planted / folder).for_intent(spec.intent)
        assert spec.model_copy(update={"stages": None}) == own


@pytest.mark.long
def test_the_uniform_profile_is_what_it_is_without_it(planted: Path, tmp_path: Path) -> None:
    """Asking for budgets by class changes no other profile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "Evaluator", Planted)
        calibrate(tmp_path / "run", budget=BUDGETS, per_class=60)
    for name in ("profile", "profile-48", "profile-16"):
        assert read_profile(tmp_path / "run" / name).profile_id == read_profile(planted / name).profile_id
    assert not (tmp_path / "run" / "profile-adaptive").exists()


def test_it_is_told_in_the_terminal_and_in_the_report(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The decision, the numbers and where the profile lies."""
    assert exit_code(["inspect", str(planted)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Budgets by class at the mean compute of 32 tokens: taken, in profile-adaptive" in shown
    report = (planted / "report.html").read_text()
    assert "Budgets by class" in report
    assert "every class weighing the same" in report


def test_the_runtime_keeps_what_each_class_has(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``claspkit run`` class by class, and one batch of three classes."""
    picture = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(picture)
    command = ["run", "--profile", str(planted / "profile-adaptive"), "--model", "mini", "--image", str(picture)]
    for intent, keeps in (("text", MORE), ("scene", LESS), ("spatial", TARGET)):
        assert exit_code([*command, "--prompt", "What?", "--intent", intent, "--json"]) == 0
        assert [len(stage["kept"]) for stage in json.loads(capsys.readouterr().out)["stages"]] == keeps
    loaded = load_model("mini")
    inputs: Any = batch_inputs(loaded, [Image.open(picture)] * 3, ["What is written?", "Which place?", "Where is it?"])
    profile = read_profile(planted / "profile-adaptive")
    with prune(loaded.model, profile, intents=["text", "scene", "spatial"]) as pruned:
        loaded.model.generate(**inputs, max_new_tokens=3)
        assert [[len(stage.row(row)) for stage in pruned.last] for row in range(3)] == [MORE, LESS, TARGET]


def test_it_is_exported_and_folded(planted: Path, tmp_path: Path) -> None:
    """By name; the card says what every class keeps."""
    assert exit_code(["export", str(planted), "--budget", "adaptive", "--to", str(tmp_path / "deploy")]) == 0
    sealed = (planted / "profile-adaptive" / "profile.json").read_bytes()
    assert (tmp_path / "deploy" / "profile.json").read_bytes() == sealed
    card = (tmp_path / "deploy" / "README.md").read_text()
    assert "| text | 7 | 0.9 | 75 / 50 / 30 |" in card
    assert "other numbers of tokens at the same layers: object, text, scene, counting" in card
    folded = ["--fold-class", "text", "--model", "mini", "--to", str(tmp_path / "folded")]
    assert exit_code(["export", str(planted), "--budget", "adaptive", *folded]) == 0
    assert (tmp_path / "folded" / "model.safetensors").exists()


@pytest.mark.long
def test_mini_end_to_end(tmp_path: Path) -> None:
    """Real scores: whatever the holdout says, files, summary and decision agree, and a second time nothing changes."""
    run = tmp_path / "run"
    (run / "profile-adaptive").mkdir(parents=True)
    (run / "profile-adaptive" / "profile.json").write_text("{}")  # of another version, say
    summary = calibrate(run, budget=BUDGETS, adaptive_budget=True).summary
    found = summary["adaptive"]
    assert (found["decision"] == "adaptive") == (run / "profile-adaptive").exists() == (found["path"] is not None)
    assert (found["decision"] == "adaptive") == (found["p_value"] is not None and found["p_value"] < 0.05)
    assert found["mean_flops"] <= found["target_flops"]
    assert {*found["nominals"].values()} <= {32, 48, 16}
    assert [row["nominal"] for row in summary["budgets"]] == [32, 48, 16]
    ledger = (run / "ledger.jsonl").read_bytes()
    again = calibrate(run, budget=BUDGETS, adaptive_budget=True).summary
    assert again["adaptive"] == found
    assert again["budgets"] == summary["budgets"]
    assert (run / "ledger.jsonl").read_bytes() == ledger
