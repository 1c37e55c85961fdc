"""What prompts can ask for, as data: fine intents, the classes they merge into, and a reader of files of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from .canonical import digest
from .errors import BadDataError, UsageError
from .toml_table import TomlTable, toml_root

MAX_BYTES: Final = 200_000
MAX_CLASSES: Final = 26
MAX_FINE: Final = 26
"""As many as there are letters for a teacher to answer with."""
MAX_EXAMPLES: Final = 16
MAX_RULES: Final = 500
MAX_PHRASES: Final = 64

_ID = re.compile(r"[a-z][a-z0-9_]{0,31}")
_RULE_ID = re.compile(r"[a-z][a-z0-9_-]{0,47}")
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Intent:
    """One of the classes of prompts.

    Attributes:
        index: its number k, also its place in a profile.
        id: its name in files and on the command line.
        name: its name for people.
        definition: what a prompt of this class asks for.
        published_rho: the paper's share of attention pivots for it, a prior and no result; None where there is none.
    """

    index: int
    id: str
    name: str
    definition: str = ""
    published_rho: float | None = None


@dataclass(frozen=True)
class FineIntent:
    """One of the answers a labeller may give.

    Attributes:
        id: its name in label files.
        definition: what a prompt of this kind asks for, as the teacher reads it.
        intent: id of the class it is merged into.
        examples: prompts of this kind, as the teacher reads them.
    """

    id: str
    definition: str
    intent: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhraseRule:
    """A rule of a user's own taxonomy: literal phrases and the fine intent they decide.

    Attributes:
        id: its name in label sources.
        fine: the fine intent.
        phrases: one of them, as whole words, must be in the prompt.
        overrides: whether it also overrules a teacher.
    """

    id: str
    fine: str
    phrases: tuple[str, ...]
    overrides: bool = False


@dataclass(frozen=True)
class Taxonomy:
    """Classes, and the fine intents that merge into them.

    Attributes:
        name: what people call it.
        intents: the classes, in the order of a profile.
        fine_intents: by class; the order of a student's columns and of a teacher's letters.
        default: id of the class of a prompt that nobody is sure about.
        rules: of a user's own taxonomy; the standard one's are in the router.
    """

    name: str
    intents: tuple[Intent, ...]
    fine_intents: tuple[FineIntent, ...]
    default: str
    rules: tuple[PhraseRule, ...] = ()

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the classes, in order."""
        return tuple(intent.id for intent in self.intents)

    @cached_property
    def fine_ids(self) -> tuple[str, ...]:
        """Ids of the fine intents, in order."""
        return tuple(fine.id for fine in self.fine_intents)

    @cached_property
    def _merge(self) -> Mapping[str, str]:
        return {fine.id: fine.intent for fine in self.fine_intents}

    def merge(self, fine_id: str) -> str:
        """The class id that a fine intent belongs to; KeyError for an unknown one."""
        return self._merge[fine_id]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over number, id and name of the classes: what a profile's rows mean and their order.

        Definitions and fine intents are left out: rewording them changes labels, which the template's digest tells,
        but not which class a profile's ninth row is.
        """
        return digest([[intent.index, intent.id, intent.name] for intent in self.intents])

    @cached_property
    def labels_digest(self) -> str:
        """SHA-256 over the classes and what is merged into them: others' labels mean other things."""
        return digest([self.digest, digest([[fine.id, fine.intent] for fine in self.fine_intents])])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over everything that can change a label or a profile."""
        return digest(
            {
                "labels": self.labels_digest,
                "default": self.default,
                "intents": [[intent.definition, intent.published_rho] for intent in self.intents],
                "fine": [[fine.definition, list(fine.examples)] for fine in self.fine_intents],
                "rules": [[rule.id, rule.fine, list(rule.phrases), rule.overrides] for rule in self.rules],
            }
        )


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy from a TOML file, in the form of ``taxonomy.toml`` of this package.

    Raises:
        UsageError: it cannot be read.
        BadDataError: it is no taxonomy; names the field.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"the taxonomy {path} cannot be read ({error.strerror}); docs/router.md shows what such a file looks like"
        ) from None
    try:
        return parse_taxonomy(data)
    except BadDataError as error:
        raise BadDataError(f"{path}: {error}") from None


def parse_taxonomy(data: bytes) -> Taxonomy:
    """The taxonomy in the bytes of a TOML file, which may be hostile.

    Raises:
        BadDataError: names the field that is wrong.
    """
    if len(data) > MAX_BYTES:
        raise BadDataError(f"a taxonomy has at most {MAX_BYTES} bytes")
    table = TomlTable("", toml_root(data), {"name", "default", "class", "intent", "rule"})
    intents = table.rows("class", 2, MAX_CLASSES, _intent, "a taxonomy has")
    ids = _unique("class", [intent.id for intent in intents])
    fine = table.rows("intent", 2, MAX_FINE, lambda row, _: _fine(row, ids), "a taxonomy has")
    fine_ids = _unique("intent", [item.id for item in fine])
    empty = [name for name in ids if name not in {item.intent for item in fine}]
    if empty:
        raise BadDataError(f"class {empty[0]!r} has no intent: give an [[intent]] whose class it is")
    # In the order of their classes, in which a profile lists them: a student's columns are in this order.
    fine = tuple(item for name in ids for item in fine if item.intent == name)
    rules = table.rows("rule", 0, MAX_RULES, lambda row, _: _rule(row, fine_ids), "a taxonomy has")
    _unique("rule", [rule.id for rule in rules])
    return Taxonomy(
        name=table.text("name", 1, 60),
        intents=intents,
        fine_intents=fine,
        default=table.one_of("default", ids),
        rules=rules,
    )


def _intent(row: TomlTable, index: int) -> Intent:
    row.names({"id", "name", "definition", "published_rho"})
    rho = row.fields.get("published_rho")
    if rho is not None and not (type(rho) in {int, float} and 0 <= rho <= 1):
        raise row.wrong("published_rho", "a number from 0 to 1")
    return Intent(
        index, row.id(_ID), row.text("name", 1, 60), row.text("definition", 0, 400), None if rho is None else float(rho)
    )


def _fine(row: TomlTable, classes: Iterable[str]) -> FineIntent:
    row.names({"id", "class", "definition", "examples"})
    return FineIntent(
        id=row.id(_ID),
        definition=row.text("definition", 1, 400),
        intent=row.one_of("class", classes),
        examples=row.texts("examples", 0, MAX_EXAMPLES, 200),
    )


def _rule(row: TomlTable, fine: Iterable[str]) -> PhraseRule:
    row.names({"id", "intent", "phrases", "overrides"})
    overrides = row.fields.get("overrides", False)
    if type(overrides) is not bool:
        raise row.wrong("overrides", "true or false")
    return PhraseRule(row.id(_RULE_ID), row.one_of("intent", fine), row.texts("phrases", 1, MAX_PHRASES, 80), overrides)


def _unique(kind: str, ids: list[str]) -> tuple[str, ...]:
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise BadDataError(f"two tables [[{kind}]] have the id {twice[0]!r}")
    return tuple(ids)
