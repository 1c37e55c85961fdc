"""Two profiles compared, and the card of one: what differs is said, what does not is not, and text stays text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from profile_example import edited, example_profile, profile_fields

from claspkit.calib.card import profile_card
from claspkit.calib.cli import main
from claspkit.calib.compare import compare_profiles, render_comparison
from claspkit.calib.markdown import literal, table
from claspkit.profiles.files import write_profile
from claspkit.profiles.intents import INTENT_IDS
from claspkit.profiles.profile import Profile, seal, softmax_weights

OLD = example_profile()


def with_class(index: int, **fields: Any) -> Profile:
    """The example with some fields of one class changed."""
    plain = profile_fields()
    plain["classes"][index] |= fields
    return seal(plain)


def test_a_profile_is_the_same_as_itself() -> None:
    facts = compare_profiles(OLD, example_profile())
    assert facts["same"] is True
    assert facts["fields"] == []
    assert all(not row["configuration"] and not row["evidence"] for row in facts["classes"])
    assert "They are the same profile." in render_comparison(OLD, OLD)


def test_what_a_class_changed_is_told_apart_from_its_evidence() -> None:
    """Configuration is what prunes otherwise; evidence alone changes no answer."""
    index = INTENT_IDS.index("counting")
    weights = list(softmax_weights([0.25, 0.5, 1.0], 2.0))
    new = with_class(index, rho=0.75, tau=2.0, weights=weights)
    facts = compare_profiles(OLD, new)
    changed = {row["intent"]: row for row in facts["classes"] if row["configuration"] or row["evidence"]}
    assert set(changed) == {"counting"}
    assert [change["field"] for change in changed["counting"]["configuration"]] == ["tau", "weights", "rho"]
    assert changed["counting"]["configuration"][2]["b"] == 0.75
    assert changed["counting"]["evidence"] == []
    text = render_comparison(OLD, new)
    assert "1 of 9 classes are pruned otherwise: counting." in text
    assert "## Evidence" not in text

    evidence = with_class(index, decision="kept_default", difference=-0.01, ci_low=-0.03, ci_high=0.01)
    text = render_comparison(OLD, evidence)
    assert "0 of 9 classes are pruned otherwise." in text
    row = next(line for line in text.splitlines() if line.startswith("| counting | searched"))
    assert "-0.010 (-0.030 to +0.010)" in row
    assert "kept_default" in row


def test_fields_outside_the_classes_are_named_by_their_path() -> None:
    """Down to the leaf; a list is one value."""
    new = seal(edited(edited(profile_fields(), ("calibration", "seed"), 8), ("router", "min_confidence"), 0.25))
    found = {change["field"]: (change["a"], change["b"]) for change in compare_profiles(OLD, new)["fields"]}
    assert found == {"calibration.seed": (7, 8), "router.min_confidence": (0.5, 0.25)}
    assert "| calibration.seed | 7 | 8 |" in render_comparison(OLD, new)


def test_kept_tokens_of_a_class_of_its_own_are_shown() -> None:
    """Budgets by class are part of what changed."""
    stages = [{**stage, "keep": stage["keep"] // 2} for stage in profile_fields()["budget"]["stages"]]
    text = render_comparison(OLD, with_class(0, stages=stages))
    kept = " / ".join(str(stage["keep"]) for stage in stages)
    assert any(kept in line for line in text.splitlines() if line.startswith("| object |"))


def test_the_command_prints_markdown_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From files, folders or runs; exit code 0 either way."""
    paths = []
    for name, profile in (("a", OLD), ("b", with_class(0, rho=0.125))):
        (tmp_path / name).mkdir()
        write_profile(profile, tmp_path / name)
        paths.append(str(tmp_path / name))
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as stop:
            main(["diff", *paths, *options])
        assert not stop.value.code
    out = capsys.readouterr().out
    text, _, facts = out.rpartition("\n{")
    assert text.startswith("# Two pruning profiles")
    assert json.loads("{" + facts)["same"] is False


def test_text_of_a_profile_is_no_markup() -> None:
    """A name with markup stays a name, in a cell, in a heading and in the card."""
    evil = "x|y <script>alert(1)</script> [a](b) `c` **d**"
    plain = edited(profile_fields(), ("model", "id"), evil)
    for text in (render_comparison(OLD, seal(plain)), profile_card(seal(plain)).split("---\n", 2)[2]):
        assert "\\<script\\>" in text
        assert "<script>" not in text.replace("\\<script\\>", "")
        assert "x\\|y" in text
    assert literal("kept_default") == "kept_default"
    assert literal("_a_ b_") == "\\_a\\_ b\\_"
    assert table(("a", "b"), [("1|2", None)]) == ["| a | b |", "|---|---|", "| 1\\|2 | - |"]


def read_card(profile: Profile) -> Any:
    """The card as the hub's own library reads it, which is typed in part only."""
    return ModelCard(profile_card(profile))


def test_the_hub_reads_the_card() -> None:
    """Its own reader gives model, data sets and a result per class, the interval as numbers."""
    fields = edited(profile_fields(), ("calibration", "datasets", 0, "name"), "owner/some-set")
    fields["classes"][1] |= {"decision": "kept_default"}
    fields["classes"][2] |= {"decision": "kept_default", "default_score": None, "difference": None}
    profile = seal(fields)
    card = read_card(profile)
    data = card.data.to_dict()
    assert (data["base_model"], data["datasets"]) == ("example/llava", ["owner/some-set"])
    assert data["library_name"] == "claspkit"
    results = card.data.eval_results
    found = {(item.dataset_config, item.metric_type): item.metric_value for item in results}
    assert found["object", "score"] == 0.71
    assert (found["object", "difference_ci_low"], found["object", "difference_ci_high"]) == (0.005, 0.035)
    assert found["attribute", "score"] == 0.69  # the default's, which is what the profile has there
    assert ("attribute", "difference") not in found
    assert not any(intent == "text" for intent, _ in found)
    assert {item.dataset_args["samples"] for item in results} == {500}
    assert profile.profile_id in card.text
    evil = seal(edited(profile_fields(), ("model", "id"), "a: [b]\\n---\\n# c"))
    assert read_card(evil).data.to_dict()["model-index"][0]["name"].endswith("a: [b]\\n---\\n# c")
