"""Importing a name of claspkit.profiles loads what that name needs, and no more."""

import json
from pathlib import Path

import pytest
from house import fresh

import claspkit.profiles


def loaded(statement: str, cwd: Path) -> set[str]:
    """The modules that a new interpreter has after ``statement``."""
    return set(json.loads(fresh(f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))", cwd=cwd)))


@pytest.mark.parametrize(
    "statement",
    [
        "import claspkit.profiles",
        "import claspkit.profiles.budget, claspkit.profiles.cost, claspkit.profiles.errors",
        "from claspkit.profiles import UsageError, Stage, make_budget, keep_for",
    ],
)
def test_counting_tokens_loads_no_pydantic(statement: str, tmp_path: Path) -> None:
    """Who prunes by numbers does not load the library that checks profile files."""
    assert not {"pydantic", "claspkit.profiles.profile"} & loaded(statement, tmp_path)


def test_a_profile_needs_pydantic(tmp_path: Path) -> None:
    """The names of the file format load it: the tests above could fail."""
    assert {"pydantic", "claspkit.profiles.profile"} <= loaded("from claspkit.profiles import Profile", tmp_path)


def test_every_public_name_is_there() -> None:
    """The lazy table, ``__all__`` and ``dir`` agree, and what is not there is an AttributeError."""
    names = claspkit.profiles.__all__
    assert sorted(claspkit.profiles._MODULES) == sorted(names)
    assert set(names) <= set(dir(claspkit.profiles))
    for name in names:
        value = getattr(claspkit.profiles, name)
        assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError, match="nothing_like_this"):
        claspkit.profiles.nothing_like_this  # type: ignore[attr-defined]  # noqa: B018
