"""The folders, the mapping in pyproject.toml, the links for the type checkers and the wheel say the same."""

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from house import (
    CODE_PACKAGES,
    DATA_PACKAGES,
    MAPPING,
    PYPROJECT,
    ROOT,
    TOP_PACKAGES,
    fresh,
    imports_of,
    package_files,
)

NOT_SHIPPED = {"tests", "benchmarks", "docs", "build", "dist", "runs"}
BUILD_INPUT = ("pyproject.toml", "LICENSE", "README.md")


def folders_with_code(root: Path) -> set[str]:
    """The folders that are packages by their __init__.py, as paths from the root."""
    tops = [path for path in root.iterdir() if path.is_dir() and not is_beside(path)]
    return {path.parent.relative_to(root).as_posix() for top in tops for path in top.rglob("__init__.py")}


def is_beside(folder: Path) -> bool:
    """Whether a top folder is hidden, not shipped, or a virtual environment of any name."""
    return folder.name.startswith(".") or folder.name in NOT_SHIPPED or (folder / "pyvenv.cfg").exists()


def test_folders_mapping_and_links_agree() -> None:
    mapped = {MAPPING[name] for name in CODE_PACKAGES}
    assert folders_with_code(ROOT) == mapped, "a folder that is not mapped is silently absent from the wheel"
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == set(MAPPING)
    assert ["claspkit." + folder.replace("/", ".") for folder in MAPPING.values()] == list(MAPPING)
    links = {path.name: path for path in (ROOT / ".typing" / "claspkit").iterdir()}
    assert set(links) == {MAPPING[name] for name in TOP_PACKAGES}
    for name, link in links.items():
        assert link.is_symlink(), f"{link} is no link"
        assert link.readlink() == Path("../..") / name
    assert not (ROOT / "__init__.py").exists(), "claspkit is a namespace: importing one room loads no other"


def test_an_unmapped_folder_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "runtime" / "extra").mkdir(parents=True)
    (tmp_path / "runtime" / "extra" / "__init__.py").touch()
    assert folders_with_code(tmp_path) == {"runtime/extra"}


def test_data_folders_hold_no_code() -> None:
    assert not [path for name in DATA_PACKAGES for path in (ROOT / MAPPING[name]).rglob("*.py")]


@pytest.mark.parametrize("name", TOP_PACKAGES)
def test_every_room_is_marked_as_typed(name: str) -> None:
    assert (ROOT / MAPPING[name] / "py.typed").exists()


def undeclared(files: list[Path], declared: set[str]) -> set[tuple[str, str]]:
    """(file, module) for each import that is neither ours, nor Python's, nor a declared dependency's."""
    providers = importlib.metadata.packages_distributions()
    missing = set()
    for path in files:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        for module, _ in imports_of(nodes, "claspkit"):
            top = module.split(".")[0]
            ours = top == "claspkit" or top in sys.stdlib_module_names
            if not ours and not {normal(name) for name in providers.get(top, [])} & declared:
                missing.add((path.name, top))
    return missing


def normal(name: str) -> str:
    """A distribution's name in the one spelling that can be compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(requirements: list[str]) -> set[str]:
    """The names of the distributions that requirement rows ask for."""
    return {normal(re.split(r"[<>=!~\[; ]", row)[0]) for row in requirements}


def test_every_import_is_a_declared_dependency() -> None:
    assert undeclared(package_files(), distributions(PYPROJECT["project"]["dependencies"])) == set()


def test_an_undeclared_import_would_be_seen(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("import json, numpy.linalg, nowhere.near\nfrom claspkit.profiles import x\n")
    assert undeclared([planted], {"numpy"}) == {("planted.py", "nowhere")}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-oldest.txt"])
def test_every_requirement_is_pinned(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row and not row.startswith("#")]
    assert [row for row in rows if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", row)] == []
    project = PYPROJECT["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *PYPROJECT["build-system"]["requires"],
    ]
    assert distributions(wanted) - distributions(rows) == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build in the tree would leave stale files for the next one."""
    base = tmp_path_factory.mktemp("wheel")
    source, out = base / "source", base / "out"
    source.mkdir()
    for name in TOP_PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / MAPPING[name], source / MAPPING[name], ignore=ignore)
    for file in BUILD_INPUT:
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, source / file)
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out)]
    command = [sys.executable, "-m", "pip", "wheel", *flags, str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("claspkit-*.whl")
    return path


def test_the_wheel_carries_the_rooms_and_nothing_else(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert [name for name in names if not name.startswith("claspkit/")] == []
    shipped = {*package_files(), *(ROOT / MAPPING[name] / "py.typed" for name in TOP_PACKAGES)}
    for name, folder in MAPPING.items():
        inside = [path for path in (ROOT / folder).iterdir() if path.is_file()]
        data = {".json", ".safetensors", ".toml"}
        shipped |= {path for path in inside if path.suffix in data or name in DATA_PACKAGES}
    expected = {path.relative_to(ROOT).as_posix() for path in shipped}
    assert {name.removeprefix("claspkit/") for name in names} == expected


def test_the_wheel_works_where_the_sources_are_absent(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    others = [path for path in sys.path if "-packages" in path]
    # -S reads no .pth file, so the editable install does not exist for this interpreter.
    code = f"""
import importlib, json, sys
sys.path[:] = [{str(tmp_path / "site")!r}, *(p for p in sys.path if p), *{others!r}]
print(json.dumps([importlib.import_module(name).__file__ for name in {CODE_PACKAGES!r}]))
"""
    files: list[str] = json.loads(fresh(code, "-S", "-I", cwd=tmp_path))
    assert len(files) == len(CODE_PACKAGES)
    assert [file for file in files if not file.startswith(str(tmp_path))] == []


@pytest.mark.parametrize("command", sorted(PYPROJECT["project"]["scripts"]))
def test_the_commands_are_there(command: str) -> None:
    (point,) = importlib.metadata.entry_points(group="console_scripts", name=command)
    assert point.value == PYPROJECT["project"]["scripts"][command]
    assert callable(point.load())
