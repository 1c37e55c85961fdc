"""Who may import whom: the contracts of pyproject.toml hold, and are known to be able to fail."""

import ast
import graphlib
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from house import (
    CODE_PACKAGES,
    MAPPING,
    ROOT,
    TOP_PACKAGES,
    imports_of,
    loaded_by,
    module_name,
    package_files,
)

STORAGE = {"h5py", "optuna", "datasets"}


def lint_imports(folder: Path, tree: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run import-linter as configured in ``folder``, on the packages under ``tree`` or the installed ones."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    if tree is not None:
        code = f"import sys; sys.path.insert(0, {str(tree)!r}); " + code
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    graph = grimp.build_graph(TOP_PACKAGES[0], *TOP_PACKAGES[1:], cache_dir=None)
    assert {name for name in graph.modules if "." in name} == {module_name(path) for path in package_files()}


LAYERS = "each room imports only what stands before it"
LIGHT = "what a deployer loads has no storage and no data sets"
BREACHES = [
    ("profiles", "from claspkit.runtime import families", LAYERS),
    ("router", "import claspkit.runtime", LAYERS),
    ("runtime", "import claspkit.cache", LAYERS),
    ("cache", "def late() -> None:\n    import claspkit.calib", LAYERS),
    ("mini", "import claspkit.runtime", "mini imports nothing of claspkit"),
    ("cache", "import claspkit.mini", "only calib imports mini"),
    ("cache", "import optuna", "only calib knows Optuna"),
    ("runtime", "import h5py", LIGHT),
    ("router", "from datasets import load_dataset", LIGHT),
    ("profiles", "import torch", "a profile is read without a tensor library"),
]
ALLOWED = ("calib", "import optuna, h5py\nfrom claspkit import cache, mini, profiles, router, runtime", None)


@pytest.mark.parametrize(("room", "planted", "contract"), [*BREACHES, ALLOWED])
def test_a_planted_import_breaks_its_contract(
    room: str, planted: str, contract: str | None, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in CODE_PACKAGES:
        folder = tmp_path / "tree" / "claspkit" / MAPPING[name]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    (tmp_path / "tree" / "claspkit" / room / "planted.py").write_text(planted + "\n")
    done = lint_imports(tmp_path, tmp_path / "tree")
    assert done.returncode == (1 if contract else 0), done.stdout + done.stderr
    broken = {line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if line.endswith(" BROKEN")}
    assert broken == ({contract} if contract else set()), done.stdout


def first_imports(tree: ast.Module) -> list[ast.AST]:
    """The imports that run when the module does: not those inside a function or under TYPE_CHECKING."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.append(node)
            elif not typing_only and not isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
            ):
                waiting.append(node)
    return found


def import_graph(sources: dict[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Module -> the modules of ours it imports when it runs; ``sources`` is name -> (text, is a package)."""
    graph: dict[str, set[str]] = {}
    for name, (text, is_package) in sources.items():
        package = name if is_package else name.rpartition(".")[0]
        targets = set()
        for module, taken in imports_of(first_imports(ast.parse(text)), package):
            inner = f"{module}.{taken}"
            targets.add(inner if inner in sources else module)
        graph[name] = targets & sources.keys() - {name}
    return graph


def test_no_import_cycles() -> None:
    files = {module_name(path): path for path in package_files()}
    sources = {
        name: (path.read_text(encoding="utf-8"), path.stem == "__init__") for name, path in files.items()
    }
    graphlib.TopologicalSorter(import_graph(sources)).prepare()


def test_a_planted_cycle_is_seen_and_a_late_import_is_none() -> None:
    round_trip = {"p": ("from . import a", True), "p.a": ("from .b import x", False)}
    round_trip["p.b"] = ("import p.a", False)
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(round_trip)).prepare()
    round_trip["p.b"] = ("def build() -> None:\n    import p.a", False)
    graphlib.TopologicalSorter(import_graph(round_trip)).prepare()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("claspkit.profiles", STORAGE | {"torch", "transformers"}),
        ("claspkit.router", STORAGE | {"torch", "transformers"}),
        ("claspkit.runtime", STORAGE),
        ("claspkit.cache", {"optuna"}),
    ],
)
def test_importing_a_room_stays_cheap(module: str, forbidden: set[str], tmp_path: Path) -> None:
    assert loaded_by(module, tmp_path) & forbidden == set()


def test_a_loaded_module_would_be_seen(tmp_path: Path) -> None:
    assert "h5py" in loaded_by("h5py", tmp_path)
