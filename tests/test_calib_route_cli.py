"""``claspkit route``: rejection, its columns, and the ten prompts of docs/router.md."""

from __future__ import annotations

import io
import json
import shlex
from typing import Any

import pytest
from house import ROOT
from rich.console import Console

from claspkit.calib.cli import main
from claspkit.calib.table_scores import print_routes
from claspkit.profiles.files import write_profile
from claspkit.router.backends import make_backend
from claspkit.router.labels import Label, settle
from claspkit.router.student import SHIPPED, read_student

UNSURE, SURE = "What keeps the boat from drifting?", "How many dogs are there?"


def route(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, *words: str) -> str:
    """What ``claspkit route`` prints for prompts on stdin."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["route", *words])
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "threshold"),
    [
        ([], read_student(SHIPPED).reject_below),
        (["--min-confidence", "0"], 0.0),
        (["--min-confidence", "1"], 1.0),
        (["--router-model", str(SHIPPED), "--min-confidence", "0.6"], 0.6),
    ],
)
def test_an_unsure_label_becomes_default(
    options: list[str], threshold: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the student's own threshold or the one given; the class it would have had is told."""
    out = route(monkeypatch, capsys, f"{UNSURE}\n{SURE}\n", "--json", *options)
    rows: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    raw = make_backend("student").label([UNSURE, SURE])
    assert 0 < raw[0].confidence < read_student(SHIPPED).reject_below < raw[1].confidence
    for row, label in zip(rows, raw, strict=True):
        assert row["raw_intent"] == label.intent != "default"
        assert row["intent"] == settle(label, threshold, "default").intent
        assert row["confidence"] == label.confidence
    assert rows[0]["intent"] == (rows[0]["raw_intent"] if threshold == 0 else "default")


def test_a_profile_rejects_by_its_own_threshold_unless_told_otherwise(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fallback of the profile; rules without a match are certain of nothing."""
    from profile_example import profile_fields

    from claspkit.profiles.profile import seal

    fields = profile_fields()
    fields["router"]["fallback"] = "scene"
    write_profile(seal(fields), tmp_path)
    given = ["--profile", str(tmp_path)]
    assert route(monkeypatch, capsys, "Hm.", *given).split()[:4] == ["scene", "0.00", "default", "rule:none"]
    assert route(monkeypatch, capsys, "Hm.", *given, "--min-confidence", "0").split()[:3] == ["default", "0.00", "-"]
    assert route(monkeypatch, capsys, "Hm.", "--router", "rules").split()[:3] == ["default", "0.00", "-"]
    assert route(monkeypatch, capsys, "", *given) == ""


def test_columns_line_up_and_prompts_move_nothing() -> None:
    """The prompt begins in one column whatever stands before it; a terminal gets a head and no line too wide."""
    raw = [
        Label("object", None, 0.4, "rule:a-rather-long-name-of-a-rule", "t"),
        Label("intention", None, 1.0, "s", "t"),
    ]
    prompts = ["P\x1b[2J\rone [red]two[/red] \u202e" + "x" * 200, "P"]
    labels = [settle(label, 0.5, "default") for label in raw]
    for terminal, lines in ((False, 2), (True, 3)):
        stream = io.StringIO()
        console = Console(file=stream, width=90, force_terminal=terminal, color_system=None)
        print_routes(prompts, raw, labels, console)
        shown = stream.getvalue().splitlines()
        assert len(shown) == lines
        assert "\x1b" not in stream.getvalue()
        assert "[red]two[/red]" in shown[-2]
        assert shown[-1].index("P") == shown[-2].index("P")
        assert shown[-2].split()[:3] == ["default", "0.40", "object"]
        assert (max(map(len, shown)) <= 90) == terminal
        assert shown[0].startswith("class") == terminal


def test_the_ten_prompts_of_the_documentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prompts in docs/router.md, routed now, give what stands below them."""
    page = (ROOT / "docs" / "router.md").read_text(encoding="utf-8")
    section = page.split("\n### Ten prompts\n", 1)[1].split("\n## ", 1)[0]
    typed, shown = (block.partition("\n")[2] for block in section.split("```")[1:4:2])
    command, _, prompts = typed.partition(" <<'END'\n")
    prompts = prompts.removesuffix("END\n")
    assert prompts.count("\n") == 10
    words = shlex.split(command)
    assert words[:2] == ["claspkit", "route"]
    assert route(monkeypatch, capsys, prompts, *words[2:]) == shown
