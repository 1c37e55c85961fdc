"""Prototypes of a user's own: read strictly, placed on the model's layers, locked with the run by what they mean."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import calibrate, data_of, run_until

from claspkit.calib.cli import main
from claspkit.calib.finished import read_finished
from claspkit.calib.folder import RunFolder
from claspkit.calib.plan import make_plan
from claspkit.calib.space import Candidate, make_space
from claspkit.calib.space_file import (
    MAX_BYTES,
    MAX_LAYERS,
    MAX_NAME,
    MAX_PROTOTYPES,
    open_prototypes,
    parse_prototypes,
)
from claspkit.profiles.errors import BadDataError, MismatchError, UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.profile import softmax_weights

DOCS = Path(__file__).resolve().parent.parent / "docs" / "calibration.md"
ROW = '[[prototype]]\nname = "late"\nlayers = [6, 7]\nscores = [0.5, 1.0]\n'
ONLY = "extends = false\nrho = [0.2]\n" + ROW + '[[prototype]]\nname = "wide"\nshares = [0.3, 1.0]\nscores = [1, 1]\n'


def test_the_documented_example_is_read() -> None:
    """The file of docs/calibration.md, on LLaVA-1.5's layers."""
    page = DOCS.read_text(encoding="utf-8")
    example = re.search(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert example is not None
    own = parse_prototypes(example[1].encode(), "example")
    space = make_space(23, (), own, 24)
    named = {prototype.name: prototype for prototype in space.prototypes}
    assert len(space.prototypes) == 6 + len(own.prototypes) - 1
    assert [named[row.name].tau for row in own.prototypes] == [row.tau for row in own.prototypes]
    assert all(max(prototype.layers) <= 24 for prototype in space.prototypes)
    assert space.rhos == own.rhos


def test_a_file_extends_or_replaces_what_is_built_in() -> None:
    """The default is always there and first; shares round to layers as the built-in ones do."""
    own = parse_prototypes(ONLY.encode(), "mine.toml")
    replaced = make_space(7, (), own, 8)
    assert [p.name for p in replaced.prototypes] == ["default", "late", "wide"]
    assert [p.layers for p in replaced.prototypes] == [(7,), (6, 7), (2, 7)]
    assert replaced.prototypes[1].weights == softmax_weights((0.5, 1.0), 4.0)
    assert replaced.prototypes[2].weights == (0.5, 0.5)
    assert replaced.rhos == (0.2,)
    assert replaced.default.id == "default/0.9"
    assert len(replaced.candidates) == 1 + 3
    extended = make_space(7, (), parse_prototypes(ROW.encode(), "mine.toml"), 8)
    assert [p.name for p in extended.prototypes] == [*(p.name for p in make_space(7).prototypes), "late"]
    assert extended.rhos == make_space(7).rhos
    assert make_space(7, (0.4,), own, 8).rhos == (0.4,)
    assert len({replaced.sha256, extended.sha256, make_space(7).sha256}) == 3


def test_the_digest_is_of_what_a_file_means() -> None:
    """Comments and spelling change nothing, a score does."""
    spelt = '# mine\nprototype = [{tau = 4, name = "late", scores = [0.5, 1], layers = [6, 7]}]\n'
    other = ROW.replace("0.5", "0.6")
    first, second, third = (make_space(7, (), parse_prototypes(t.encode(), "f"), 8).sha256 for t in (ROW, spelt, other))
    assert first == second != third


def test_two_shares_that_round_to_one_layer_merge() -> None:
    """As the built-in ones do: the larger score wins."""
    text = '[[prototype]]\nname = "a"\nshares = [0.9, 1.0]\nscores = [1.0, 0.5]\n'
    assert make_space(3, (), parse_prototypes(text.encode(), "f")).prototypes[-1].layers == (3,)
    assert make_space(3, (), parse_prototypes(text.encode(), "f")).prototypes[-1].scores == (1.0,)


def row(**changes: object) -> str:
    """A file with one prototype, some keys changed or, with None, left out."""
    fields = {"name": '"late"', "layers": "[6, 7]", "scores": "[0.5, 1.0]", **changes}
    return "[[prototype]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", r"1 to 64 tables \[\[prototype\]\]"),
        ("prototype = 3", r"1 to 64 tables"),
        ("prototype = [3]", r"prototype\[0\] must be a table"),
        (row() * (MAX_PROTOTYPES + 1), "1 to 64 tables"),
        ("a = 1\n" + row(), "a is unknown; there are: extends, prototype, rho"),
        ("extends = 1\n" + row(), "extends must be true"),
        ("x", "no TOML"),
        (row() + row(), r"prototype\[1\]\.name 'late' is the name of prototype\[0\] already"),
        (row(name='"default"'), r"prototype\[0\]\.name 'default' is built in"),
        ("extends = false\n" + row(name='"default"'), "always there"),
        (row(name='"deep"'), "extends = false"),
        (row(name=None), r"prototype\[0\]\.name must be .*and is missing"),
        (row(name="3"), r"prototype\[0\]\.name"),
        (row(name='""'), r"prototype\[0\]\.name"),
        (row(name='" a"'), r"prototype\[0\]\.name"),
        *((row(name=f'"a{letter}b"'), r"prototype\[0\]\.name") for letter in "/[]@"),
        (row(name='"a\\u0007"'), r"prototype\[0\]\.name"),
        (row(name='"a\\u202e"'), r"prototype\[0\]\.name"),
        (row(name=f'"{"x" * (MAX_NAME + 1)}"'), r"prototype\[0\]\.name"),
        (row(color="3"), r"prototype\[0\]\.color is unknown"),
        (row(layers=None), "either layers"),
        (row(shares="[0.5, 1.0]"), "either layers"),
        (row(layers="7"), r"prototype\[0\]\.layers must be a list"),
        (row(layers="[]"), r"prototype\[0\]\.layers"),
        (row(layers="[6.0, 7]"), r"prototype\[0\]\.layers must be whole numbers"),
        (row(layers="[true, 7]"), r"prototype\[0\]\.layers"),
        (row(layers="[-1, 7]"), r"prototype\[0\]\.layers"),
        (row(layers="[6, 512]"), r"prototype\[0\]\.layers"),
        (row(layers="[7, 6]"), r"prototype\[0\]\.layers must be ascending"),
        (row(layers="[7, 7]"), r"prototype\[0\]\.layers must be ascending"),
        (row(layers=str(list(range(MAX_LAYERS + 1)))), r"prototype\[0\]\.layers must be a list of 1 to 32"),
        (row(layers=None, shares="[0.0, 1.0]"), r"prototype\[0\]\.shares must be above 0"),
        (row(layers=None, shares="[0.5, 1.5]"), r"prototype\[0\]\.shares"),
        (row(layers=None, shares="[0.5, nan]"), r"prototype\[0\]\.shares"),
        (row(scores="[1.0]"), r"prototype\[0\]\.scores has 1 numbers for 2 layers"),
        (row(scores="[inf, 1.0]"), r"prototype\[0\]\.scores"),
        (row(scores='["1", 1.0]'), r"prototype\[0\]\.scores"),
        (row(scores="[1e5, 1.0]"), r"prototype\[0\]\.scores"),
        (row(scores=None), r"prototype\[0\]\.scores must be .*and is missing"),
        (row(tau="0"), r"prototype\[0\]\.tau"),
        (row(tau="nan"), r"prototype\[0\]\.tau"),
        (row(tau="true"), r"prototype\[0\]\.tau"),
        (row(tau="1e5"), r"prototype\[0\]\.tau"),
        ("rho = []\n" + row(), "rho must be a list of 1 to 101"),
        ("rho = 0.5\n" + row(), "rho must be a list"),
        ("rho = [0.5, 1.5]\n" + row(), "rho must be a list"),
        ("rho = [0.5, 0.5]\n" + row(), "rho must be ascending"),
        ("rho = [0.12345678]\n" + row(), "rho must be numbers of at most six digits"),
        ("#" * (MAX_BYTES + 1), f"at most {MAX_BYTES} bytes"),
        ("a = " + "[" * 5000, "no TOML"),
        (row(layers=f"[1{'0' * 400}]"), r"prototype\[0\]\.layers must be a list of 1 to 32 numbers"),
        (row(tau=f"1{'0' * 400}"), r"prototype\[0\]\.tau"),
        (row(tau=f"0x{'f' * 9000}"), r"prototype\[0\]\.tau must be .* not an int too large to show"),
        (f"prototype{'.a' * 1_000} = 1", "1 to 64 tables .* not a dict too large to show"),
        (f"[[prototype]]\nname{'.a' * 1_000} = 1\nlayers = [1]\nscores = [1]", r"prototype\[0\]\.name"),
        (f"prototype{'.a' * 1_001} = 1", "a line has more than 1,000 dots"),
        (f"[a{'.a' * 30_000}]\nb = 1", "a line has more than 1,000 dots"),
    ],
)
def test_what_is_wrong_is_named(text: str, key: str) -> None:
    """One typed error with the file and the key."""
    with pytest.raises(BadDataError, match=r"^mine\.toml: .*" + key):
        parse_prototypes(text.encode(), "mine.toml")


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    """A path that cannot be read is a mistake on the command line, bytes that are no text are bad data."""
    with pytest.raises(UsageError, match=r"none\.toml cannot be read \(No such file"):
        open_prototypes(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        open_prototypes(tmp_path)
    with pytest.raises(BadDataError, match="no TOML"):
        parse_prototypes(b"\xff\xfe", "f")
    assert open_prototypes(None) is None


def test_layers_must_be_the_models() -> None:
    """Which ones there are is known only with the model; the message names the key all the same."""
    own = parse_prototypes(row(layers="[6, 24]").encode(), "mine.toml")
    assert make_space(23, (), own, 24).layers[-1] == 24
    with pytest.raises(BadDataError, match=r"mine\.toml: prototype\[0\]\.layers names layer 24.*0 to 8"):
        make_space(7, (), own, 8)


def test_the_longest_refined_name_fits_into_a_profile() -> None:
    """Names of refined points hold a score per layer, and are found again by them."""
    layers = list(range(MAX_LAYERS))
    text = row(name=f'"{"x" * MAX_NAME}"', layers=str(layers), scores=str([1.0] * MAX_LAYERS))
    space = make_space(31, (), parse_prototypes(text.encode(), "f"), 31)
    refined = space.prototypes[-1].refined([0.11 + layer / 100 for layer in layers])
    assert len(refined.name) <= 256
    candidate = Candidate(refined, 0.43)
    assert space.find(candidate.id) == candidate


def claspkit(*words: str) -> int:
    """Run a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(str(caught.value.code))


def test_plan_and_space_show_what_is_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers and the digest that a run is locked with; a bad file is refused with exit code 3."""
    path = tmp_path / "mine.toml"
    path.write_text(ONLY)
    digest = make_space(7, (), open_prototypes(path), 8).sha256
    run = make_plan("mini", 10, own=open_prototypes(path))
    assert (run["calibration"]["prototypes"], run["calibration"]["candidates"]) == (3, 4)
    assert run["calibration"]["space"] == digest
    assert run["cache"]["layers_read"] == [2, 6, 7]
    assert claspkit("plan", "--model", "mini", "--prototypes", str(path), "--no-probe") == 0
    shown = capsys.readouterr().out
    assert re.search(rf"^search space +{digest}$", shown, flags=re.MULTILINE)
    assert re.search(r"^prototypes +3$", shown, flags=re.MULTILINE)
    assert claspkit("space", "--model", "mini", "--prototypes", str(path)) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^late +6 7 +0\.119 0\.881$", shown.replace(" \n", "\n"), flags=re.MULTILINE)
    assert digest in shown
    assert claspkit("space", "--model", "mini", "--prototypes", str(path), "--rho", "0.5", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in facts["prototypes"]] == ["default", "late", "wide"]
    assert (facts["rhos"], facts["vision_depth"]) == ([0.5], 8)
    path.write_text(row(layers="[6, 9]"))
    for command in ("plan", "space"):
        assert claspkit(command, "--model", "mini", "--prototypes", str(path)) == 3
        assert "0 to 8" in capsys.readouterr().err


def test_a_run_with_prototypes_of_ones_own(tmp_path: Path) -> None:
    """From the file to a profile; the run keeps a copy, and another meaning is refused with the field that differs."""
    data, path, run = str(data_of(tmp_path, ["counting", "object"])), tmp_path / "mine.toml", tmp_path / "run"
    path.write_text(ONLY)
    asked: dict[str, Any] = {"rhos": (), "data": data, "prototypes": str(path), "cache_layers": "prototypes"}
    outcome = calibrate(run, **asked)
    assert outcome.summary["config"]["prototypes"] == str(path)
    curves = {name for row in outcome.summary["classes"] for name in row["curves"]}
    assert curves <= {"default", "late", "wide"}
    assert "late" in curves
    assert RunFolder(run).prototypes.read_text() == ONLY
    path.unlink()  # from here on the copy will do
    assert calibrate(run, **asked).profile.profile_id == outcome.profile.profile_id
    assert read_finished(run).space.sha256 == make_space(7, (), open_prototypes(RunFolder(run).prototypes), 8).sha256
    path.write_text("# the same\n" + ONLY)
    assert calibrate(run, **asked).profile.profile_id == outcome.profile.profile_id
    path.write_text(ONLY.replace("0.5, 1.0", "0.4, 1.0"))
    with pytest.raises(MismatchError, match="space: "):
        run_until("search", run, **asked)
    path.write_text(row(layers="[9]", scores="[1.0]"))
    with pytest.raises(BadDataError, match="layer 9"):
        run_until("samples", run, **asked)
    path.unlink()
    with pytest.raises(UsageError, match="cannot be read"):  # and nothing is deleted
        run_until("samples", run, fresh=True, **asked)
    assert read_profile(run / "profile").profile_id == outcome.profile.profile_id
    path.write_text(ONLY.replace("0.5, 1.0", "0.4, 1.0"))
    run_until("samples", run, fresh=True, **asked)
    assert RunFolder(run).prototypes.read_text() == path.read_text()
