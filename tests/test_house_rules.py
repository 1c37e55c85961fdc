"""Rules every file keeps. Each rule is first shown to find a planted breach."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import ROOT, imports_of, package_files

MAX_LINES = 400
ENVIRONMENT_ALLOWED = {"CLASPKIT_CACHE"}
KEY_READER = "router/api_key.py"  # reads the variable that a user names, and no other file does
ENVIRONMENT_NAMES = {"environ", "environb", "getenv", "getenvb", "putenv"}
UNSAFE_CALLS = {"eval", "exec", "__import__", "torch.load"}
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[ast.Module], Iterator[str]]


def unsafe_code(tree: ast.Module) -> Iterator[str]:
    """Whatever turns data from a file into code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module, name in imports_of([node], ""):
                if module.split(".")[0] in UNSAFE_MODULES or (module, name) == ("torch", "load"):
                    yield f"line {node.lineno}: import of {module}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                yield f"line {node.lineno}: {called}"
            if any(
                word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords
            ):
                yield f"line {node.lineno}: allow_pickle"


def global_statements(tree: ast.Module) -> Iterator[str]:
    """State that any function may change behind another's back."""
    yield from (f"line {node.lineno}: global" for node in ast.walk(tree) if isinstance(node, ast.Global))


def environment_reads(tree: ast.Module) -> Iterator[str]:
    """Each use of the environment, but for a read of an allowed variable by its literal name."""
    allowed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            reader, name = node.value, node.slice
        elif isinstance(node, ast.Call) and node.args:
            reader, name = node.func, node.args[0]
            if isinstance(reader, ast.Attribute) and reader.attr == "get":
                reader = reader.value
        else:
            continue
        if isinstance(name, ast.Constant) and name.value in ENVIRONMENT_ALLOWED:
            allowed.add(reader)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            used = {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and node not in allowed and ast.unparse(node.value) == "os":
            used = {node.attr}
        else:
            continue
        yield from (f"line {node.lineno}: os.{name}" for name in sorted(used & ENVIRONMENT_NAMES))


def decorators(function: Function) -> set[str]:
    """The last part of each decorator's name."""
    return {ast.unparse(item).split("(")[0].rsplit(".", 1)[-1] for item in function.decorator_list}


def public_functions(tree: ast.Module) -> Iterator[tuple[str, Function, bool]]:
    """(name, function, has a self) of the module's functions and of its public classes' methods."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for item in node.body:
                if isinstance(item, Function) and not item.name.startswith("_"):
                    yield f"{node.name}.{item.name}", item, "staticmethod" not in decorators(item)


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public things without a docstring; an override, an overload and a setter have it elsewhere."""
    if not ast.get_docstring(tree):
        yield "the module"
    yield from (
        f"line {node.lineno}: class {node.name}"
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    )
    for name, function, _ in public_functions(tree):
        if not decorators(function) & {"override", "overload", "setter"} and not ast.get_docstring(function):
            yield f"line {function.lineno}: {name}"


def unannotated(tree: ast.Module) -> Iterator[str]:
    """Public functions with a parameter or a result whose type is not said."""
    for name, function, is_method in public_functions(tree):
        spec = function.args
        positional = [*spec.posonlyargs, *spec.args][1 if is_method else 0 :]
        rest = [item for item in (spec.vararg, spec.kwarg) if item is not None]
        missing = [item.arg for item in [*positional, *spec.kwonlyargs, *rest] if item.annotation is None]
        missing += [] if function.returns else ["return"]
        if missing:
            yield f"line {function.lineno}: {name} ({', '.join(missing)})"


PLANTED: list[tuple[Rule, str, int]] = [
    (unsafe_code, "eva" + "l('1')\nexe" + "c('1')", 2),
    (unsafe_code, "import pickle\nfrom dill import loads\nimport marshal as m", 3),
    (unsafe_code, "torch.load('x', weights_only=True)\nfrom torch import load", 2),
    (unsafe_code, "np.load(x, allow_pickle=True)\nnp.load(x, allow_pickle=False)", 1),
    (unsafe_code, "model.eval()\nimport json\nre.compile('x')\nfrom torch import nn", 0),
    (global_statements, "def f():\n    global x\n    x = 1", 1),
    (environment_reads, "os.environ['HOME']\nos.getenv('HOME')\nos.environ.get(name)", 3),
    (environment_reads, "dict(os.environ)\nif 'X' in os.environ: pass\nfrom os import environ", 3),
    (environment_reads, "os.environ.get('CLASPKIT_CACHE')\nos.getenv('CLASPKIT_CACHE', '')\nos.getpid()", 0),
    (undocumented, "def f(): pass\nclass C:\n    def m(self): pass\n    def _own(self): pass", 4),
    (undocumented, "'M.'\ndef f(): 'F.'\nclass C:\n    'C.'\n    @override\n    def m(self): pass", 0),
    (unannotated, "def f(a: int): pass\ndef g(a, *, b: int) -> None: pass", 2),
    (
        unannotated,
        "class C:\n    def m(self, *x) -> None: pass\n    @staticmethod\n    def s(x) -> int: pass",
        2,
    ),
    (unannotated, "def f(a: int, *b: int, c: int = 1, **d: int) -> None: pass", 0),
    (unannotated, "class C:\n    def m(self) -> int: pass\n    def _own(self, x): pass", 0),
]


@pytest.mark.parametrize(("rule", "planted", "count"), PLANTED)
def test_the_rule_finds_what_is_planted(rule: Rule, planted: str, count: int) -> None:
    assert len(list(rule(ast.parse(planted)))) == count


@pytest.mark.parametrize(
    "rule", [unsafe_code, global_statements, environment_reads, undocumented, unannotated]
)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    breaches = [
        f"{path.relative_to(ROOT)}: {breach}"
        for path in package_files()
        for breach in rule(ast.parse(path.read_text(encoding="utf-8")))
    ]
    if rule is environment_reads:
        (key_read,) = [breach for breach in breaches if breach.startswith(f"{KEY_READER}: ")]
        breaches.remove(key_read)
    assert breaches == []


def too_long(files: list[Path]) -> list[str]:
    """The files that nobody reads to the end."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    return [f"{path.name}: {lines} lines" for path, lines in lengths.items() if lines > MAX_LINES]


def test_no_file_is_too_long() -> None:
    beside = [path for folder in ("tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")]
    files = [*package_files(), *beside, *ROOT.glob("*.py")]
    assert len(files) > 10
    assert too_long(files) == []


def test_a_long_file_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "fits.py").write_text("x = 1\n" * MAX_LINES)
    (tmp_path / "long.py").write_text("x = 1\n" * (MAX_LINES + 1))
    assert too_long(sorted(tmp_path.glob("*.py"))) == [f"long.py: {MAX_LINES + 1} lines"]
