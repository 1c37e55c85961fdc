"""The command written out for a run is the command that made it."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.calib import cli_stages
from claspkit.calib.cli import app
from claspkit.calib.command import command_of
from claspkit.calib.config import RunConfig

WORDS = st.text(st.sampled_from("ab z'\"$./-é"), min_size=1, max_size=8).filter(lambda text: text[0] != "-")
CONFIGS = st.builds(
    RunConfig,
    model=WORDS,
    per_class=st.integers(1, 10**6),
    data=st.none() | WORDS,
    image_root=st.none() | WORDS,
    columns=st.sampled_from([(), (("image", "img"),), (("answers", "a"), ("prompt", "q"))]),
    max_rows=st.none() | st.integers(1, 9),
    seed=st.integers(0, 9),
    budget=st.sampled_from(["1/3", "192", "35%", "2/9,1/3,64"]),
    stages=st.sampled_from([(), ((2, 300), (6, 200)), ((-1, 192),)]),
    rhos=st.sampled_from([(), (0.1,), (0.25, 1.0)]),
    holdout=st.sampled_from([0.5, 0.25]),
    dtype=st.none() | st.just("float32"),
    block_size=st.integers(1, 99),
    cache_layers=st.sampled_from(["all", "prototypes", "3,12,23"]),
    cache_dtype=st.sampled_from(["float16", "int8"]),
    router=st.sampled_from(["rules", "openai", "replay"]),
    router_model=st.none() | WORDS,
    router_mode=st.sampled_from(["logits", "json"]),
    router_endpoint=st.none() | WORDS,
    router_answers=st.none() | WORDS,
    label_until_full=st.booleans(),
    adaptive_budget=st.booleans(),
    profile_router=st.sampled_from(["auto", "rules", "student"]),
)


@given(CONFIGS)
@settings(max_examples=40, deadline=None)
def test_the_command_gives_the_configuration_back(config: RunConfig) -> None:
    """Split as a shell splits it and parsed by the command line: the same configuration in the same folder."""
    asked: list[tuple[RunConfig, Path]] = []

    class Watched:
        def __init__(self, config: RunConfig, folder: object, _: object) -> None:
            asked.append((config, folder.root))  # type: ignore[attr-defined]

        def run(self, **_: object) -> None:
            return None

    facts = {**config.to_dict(), "model_fingerprint": "0" * 64, "space": "1" * 64}
    words = shlex.split(command_of(facts, Path("a run"), "claspkit cache build"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_stages, "Pipeline", Watched)
        app(args=words[1:], standalone_mode=False)
    assert asked == [(config, Path("a run"))]


@pytest.mark.parametrize(
    ("typed", "locked"),
    [("3,12", "3,12"), (" 3, 12 ", "3,12"), ("12,3,12", "3,12"), ("007", "7"), (" all ", "all"), ("3;12", "3;12")],
)
def test_layers_are_locked_in_one_spelling(typed: str, locked: str, tmp_path: Path) -> None:
    """However a list is typed, the same layers are the same run."""
    asked: list[str] = []

    def watched(config: RunConfig, *_: object) -> SimpleNamespace:
        asked.append(config.cache_layers)
        return SimpleNamespace(run=lambda **_: None)

    words = ["cache", "build", "--model", "mini", "--per-class", "9", "--cache-layers", typed, "--out", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_stages, "Pipeline", watched)
        app(args=words, standalone_mode=False)
    assert asked == [locked]


def test_defaults_are_left_out() -> None:
    """What nobody typed is not in the line."""
    line = command_of(RunConfig("mini", 60).to_dict(), Path("runs/mini"))
    assert line == "claspkit calibrate --model mini --per-class 60 --out runs/mini"
