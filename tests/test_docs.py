"""The documentation names what exists, and links to what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
