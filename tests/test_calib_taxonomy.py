"""A calibration with classes of a user's own, from the file to a pruned answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from own_taxonomy import OWN, write_own_taxonomy
from pipeline_runs import SMALL, calibrate, run_until

from claspkit.calib.cli import main
from claspkit.calib.export import export_profile
from claspkit.calib.folder import RunFolder
from claspkit.calib.pipeline import Pipeline
from claspkit.calib.profile_router import FILE
from claspkit.calib.progress import Reporter
from claspkit.profiles.errors import MismatchError, UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.taxonomy import parse_taxonomy
from claspkit.router.route import make_router
from claspkit.runtime.models import load_model
from claspkit.runtime.pruner import prune

TAXONOMY = parse_taxonomy(OWN.encode())


def claspkit(*words: str) -> int:
    """Run a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(str(caught.value.code))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on mini, its three classes labelled by the file's own rules."""
    folder = tmp_path_factory.mktemp("own")
    path = write_own_taxonomy(folder)
    calibrate(folder / "run", taxonomy=str(path), per_class=20)
    path.unlink()  # a finished run and its profile need it no more
    return folder / "run"


def test_the_profile_knows_its_classes_and_its_student_routes(finished: Path, tmp_path: Path) -> None:
    """Three classes, a distilled student that says what the rules said, also from an exported folder."""
    profile = read_profile(finished / "profile")
    assert profile.intent_ids == ("amount", "look", "rest") == TAXONOMY.ids
    assert (profile.taxonomy, profile.router.fallback) == (TAXONOMY.digest, "rest")
    assert (profile.router.kind, profile.router.file) == ("student", FILE)
    assert profile.calibration.label_sources.keys() == {"rule"}
    export_profile(finished, tmp_path / "out")
    exported = read_profile(tmp_path / "out")
    route = make_router(exported.router, tmp_path / "out", exported.read_taxonomy())
    labels = route(["How many stars are there?", "What colour is the circle?", "Is there a key?"])
    assert [label.intent for label in labels] == ["amount", "look", "rest"]
    summary = json.loads(RunFolder(finished).summary.read_text())
    assert [row["intent"] for row in summary["classes"]] == list(TAXONOMY.ids)
    assert all(row["published_rho"] is None for row in summary["classes"])
    assert "Colours and kinds" in RunFolder(finished).report.read_text()


def test_a_model_is_pruned_by_these_classes(finished: Path) -> None:
    """Given by name or routed; a standard class is none of them."""
    profile, loaded = read_profile(finished / "profile"), load_model("mini")
    with prune(loaded.model, profile, prompts=["How many?"], folder=finished / "profile") as pruned:
        assert pruned.intents == ("amount",)
    with pytest.raises(UsageError, match="unknown intent 'counting'; there are: amount, look, rest"):
        prune(loaded.model, profile, intents=["counting"])


def test_every_command_that_takes_the_run_takes_its_classes(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """inspect, report, the study of routing errors, eval and distill on its labels."""
    assert claspkit("inspect", str(finished)) == 0
    assert claspkit("report", str(finished)) == 0
    capsys.readouterr()
    assert claspkit("router", "study", str(finished), "--configs", "winners", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"].keys() == set(TAXONOMY.ids)
    assert [row["router"] for row in found["routers"]] == ["profile", "profile"]
    assert found["routers"][1]["reject_below"] == read_profile(finished / "profile").router.min_confidence
    assert claspkit("router", "study", str(finished), "--router", "rules", "--json") == 0
    assert json.loads(capsys.readouterr().out)["routers"][0]["changed"] == 0
    own = ["--taxonomy", str(finished / "taxonomy.toml")]
    log = str(finished / "labels.jsonl")
    assert claspkit("router", "eval", log, "--router", "rules", "--json", *own) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1
    picture = tmp_path / "p.html"
    assert claspkit("router", "eval", log, "--router", "rules", "--picture", str(picture), *own) == 0
    drawn = picture.read_text()
    assert all(f">{intent}<" in drawn for intent in TAXONOMY.ids)
    assert "counting" not in drawn
    assert claspkit("router", "attack", "--router", "rules", "--json", *own) == 0
    attacked = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (attacked["carriers"], attacked["total"]["aimed"]) == (1, 0)
    assert claspkit("router", "distill", log, "--out", str(tmp_path / "s.safetensors"), "--json", *own) == 0
    assert claspkit("router", "eval", log, "--router", "rules") == 3
    assert "other classes" in capsys.readouterr().err


def test_the_same_command_resumes_and_another_file_is_refused(tmp_path: Path) -> None:
    """By the digest of what the file means, not by its bytes."""
    path = write_own_taxonomy(tmp_path)
    run_until("label", tmp_path / "run", taxonomy=str(path))
    before = RunFolder(tmp_path / "run").labels.read_bytes()
    path.write_text("# a comment more\n" + OWN)
    run_until("label", tmp_path / "run", taxonomy=str(path))
    assert RunFolder(tmp_path / "run").labels.read_bytes() == before
    path.write_text(OWN.replace("what colour", "which colour"))
    with pytest.raises(MismatchError, match="taxonomy_sha256"):
        run_until("label", tmp_path / "run", taxonomy=str(path))
    run_until("label", tmp_path / "run", fresh=True, taxonomy=str(path))
    path.unlink()
    run_until("label", tmp_path / "run", taxonomy=str(path))  # the run's copy
    copy = RunFolder(tmp_path / "run").taxonomy
    run_until("label", tmp_path / "run", fresh=True, taxonomy=str(copy))
    with pytest.raises(UsageError, match="cannot be read"):
        run_until("label", tmp_path / "run", fresh=True, taxonomy=str(tmp_path / "typo" / "t.toml"), per_class=3)
    assert RunFolder(tmp_path / "run").labels.exists()
    assert "which colour" in RunFolder(tmp_path / "run").taxonomy.read_text()


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """No file, rules that would have to go into the profile, the standard student, no rules to label by."""
    path = write_own_taxonomy(tmp_path)
    bare = tmp_path / "bare.toml"
    bare.write_text(OWN.split("[[rule]]")[0])
    cases: list[tuple[dict[str, object], str]] = [
        ({"taxonomy": str(tmp_path / "none.toml")}, "cannot be read"),
        ({"taxonomy": str(path), "profile_router": "rules"}, "no rules of 'shop floor' go into a profile"),
        ({"taxonomy": str(path), "router": "student"}, "the student that comes with claspkit knows the standard"),
        ({"taxonomy": str(bare)}, "has no rules to label by"),
    ]
    for number, (changes, said) in enumerate(cases):
        folder = RunFolder(tmp_path / str(number))
        with pytest.raises(UsageError, match=said):
            Pipeline(replace(SMALL, **changes), folder, Reporter(quiet=True)).run()  # type: ignore[arg-type]
        assert not (folder.root / "config.lock.json").exists()
