"""Where the project's files are, and how to ask a fresh interpreter: what the tests of the house share."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAPPING: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]
DATA_PACKAGES = {"claspkit.mini.model", "claspkit.runtime.configs"}
CODE_PACKAGES = sorted(MAPPING.keys() - DATA_PACKAGES)
TOP_PACKAGES = [name for name in CODE_PACKAGES if name.count(".") == 1]


def package_files() -> list[Path]:
    """Every Python file that ships, as a path in the repository."""
    return sorted(path for name in CODE_PACKAGES for path in (ROOT / MAPPING[name]).glob("*.py"))


def module_name(path: Path) -> str:
    """The dotted name under which a file of a package folder is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("claspkit", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imports_of(nodes: Sequence[ast.AST], package: str) -> Iterator[tuple[str, str | None]]:
    """The imports among ``nodes`` as (module, name taken from it or None), relative ones made absolute."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from ((module, alias.name) for alias in node.names)


def fresh(code: str, *flags: str, cwd: Path) -> str:
    """Run ``code`` in a new interpreter and return what it printed."""
    command = [sys.executable, *flags, "-c", code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(module: str, cwd: Path) -> set[str]:
    """The top-level names in ``sys.modules`` after a new interpreter imported ``module``."""
    code = f"import json, sys, {module}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    names: list[str] = json.loads(fresh(code, cwd=cwd))
    return set(names)
