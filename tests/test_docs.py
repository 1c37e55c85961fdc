"""The documentation names what exists, and links to what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from claspkit.calib.cli import app
from claspkit.calib.space import _EMPHASIS
from claspkit.calib.strategies import STRATEGIES
from claspkit.profiles.files import read_profile
from claspkit.runtime.families import FAMILIES
from claspkit.runtime.models import ALIASES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def commands() -> list[str]:
    """Every command as a user types it."""
    names = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        names += [f"{name} {sub}" for sub in inner] if inner else [name]
    return [f"claspkit {name}" for name in names]


def test_every_command_is_documented_and_no_other() -> None:
    """The table of docs/cli.md is the command line."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(claspkit [a-z -]+)` \|", page, flags=re.MULTILINE)
    assert sorted(documented) == sorted(commands())
    assert len(documented) >= 10


def command_helps() -> dict[str, tuple[str, list[Any]]]:
    """Command -> its help and its options."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for sub, inner in (getattr(command, "commands", None) or {"": command}).items():
            options = [param for param in inner.params if param.param_type_name == "option"]
            found[f"claspkit {name} {sub}".strip()] = (inner.help or "", options)
    return found


def test_every_help_shows_an_example_of_that_command() -> None:
    """With options that the command has."""
    without = set()
    for name, (text, options) in command_helps().items():
        if not re.search(r"^\s*Examples?:$", text, flags=re.MULTILINE):
            without.add(name)
            continue
        shown = " ".join(text.partition("Example")[2].split())
        assert name in shown or (name == "claspkit calibrate" and "clasp-calibrate" in shown), name
        known = {word for option in options for word in [*option.opts, *option.secondary_opts]}
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown)) <= known | {"--help"}, name
    assert not without


def test_every_option_says_what_it_is() -> None:
    """In the help, in words."""
    for name, (_, options) in command_helps().items():
        assert [option.name for option in options if not option.help] == [], name


@pytest.mark.parametrize("command", ["run", "demo", "export", "verify", "diff", "doctor"])
def test_every_option_of_what_is_shipped_with_is_documented(command: str) -> None:
    """In docs/cli.md, docs/deploying.md or docs/running.md."""
    pages = [ROOT / "docs" / name for name in ("cli.md", "deploying.md", "running.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    _, options = command_helps()[f"claspkit {command}"]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert [option.opts[0] for option in options if not named & {*option.opts, *option.secondary_opts}] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_completion_completes(shell: str) -> None:
    """The script for a shell is printed, and what it asks for answers with commands and options."""
    program = "import sys; sys.argv[0] = 'claspkit'; from claspkit.calib.cli import main; main()"

    def ask(**variables: str) -> str:
        environment = {**os.environ, **variables}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done.stdout

    assert "claspkit" in ask(_CLASPKIT_COMPLETE=f"source_{shell}")
    if shell == "bash":
        found = ask(_CLASPKIT_COMPLETE="complete_bash", COMP_WORDS="claspkit ver", COMP_CWORD="1")
        assert found.split() == ["verify"]
        found = ask(_CLASPKIT_COMPLETE="complete_bash", COMP_WORDS="claspkit export --em", COMP_CWORD="2")
        assert found.split() == ["--embed"]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("extending.md", list(FAMILIES)),
        ("extending.md", list(STRATEGIES)),
        ("extending.md", list(ALIASES)),
        ("calibration.md", ["default", *_EMPHASIS]),
    ],
)
def test_every_row_is_documented(page: str, names: list[str]) -> None:
    """A row of a registry without a row in its page fails."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert [name for name in names if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page is a file."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_functions_exist(page: Path) -> None:
    """A dotted claspkit name in a page can be imported."""
    import importlib

    for dotted in set(re.findall(r"`(claspkit\.[a-z_.]+(?:\.[A-Za-z_]+)?)`", page.read_text(encoding="utf-8"))):
        parts = dotted.split(".")
        for cut in range(len(parts), 1, -1):
            try:
                found: object = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part)
            break
        else:
            pytest.fail(f"{page.name} names {dotted}, which does not exist")


def test_the_readme_runs_before_line_25() -> None:
    """One sentence, then at least five lines to run, early."""
    head = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25]
    fence = [i for i, line in enumerate(head) if line.startswith("```")]
    assert len(fence) >= 2
    assert fence[1] - fence[0] - 1 >= 5


def test_the_runtime_pages_script_runs() -> None:
    """The first script of docs/runtime.md, as it stands there, in a fresh interpreter."""
    page = (ROOT / "docs" / "runtime.md").read_text(encoding="utf-8")
    script = page.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    assert re.search(r"^counting: .+$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^scene: .+$", done.stdout, flags=re.MULTILINE)
    kept = [int(count) for count in re.findall(r"kept (\d+) first", done.stdout)]
    stages = [stage.keep for stage in read_profile(ROOT / "docs" / "example-profile.json").budget.stages]
    assert kept == 2 * stages
