"""Prototypes of a user's own: a TOML file of named rows of W, placed on a model's layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claspkit.profiles.errors import BadDataError, UsageError, shorten
from claspkit.profiles.fields import MAX_LAYER
from claspkit.profiles.toml_table import TomlTable, is_number, toml_root

from .space import DEFAULT, TAU, Prototype, at_depths, built_in

MAX_BYTES: Final = 100_000
MAX_PROTOTYPES: Final = 64
MAX_LAYERS: Final = 32
"""Layers of a prototype; with longer names and more layers a refined one would not fit into a profile's name."""
MAX_NAME: Final = 64
MAX_SCORE: Final = 1e4
MAX_TAU: Final = 1e4
MAX_RHOS: Final = 101

_RESERVED: Final = "/[]@"  # parts of a candidate's id


@dataclass(frozen=True)
class OwnPrototype:
    """A prototype before it is placed on a model's layers.

    Attributes:
        key: where it stands in the file, ``prototype[0]``.
        name: how people call it.
        layers: hidden_states indices, ascending; empty where shares are given.
        shares: depths as shares of the layer the stock model reads, in (0, 1], ascending; empty where layers are given.
        scores: one per layer or share.
        tau: softmax temperature, > 0.
    """

    key: str
    name: str
    layers: tuple[int, ...]
    shares: tuple[float, ...]
    scores: tuple[float, ...]
    tau: float


@dataclass(frozen=True)
class OwnSpace:
    """What a file of prototypes says.

    Attributes:
        source: the file, for messages.
        extends: whether the built-in prototypes are kept beside these.
        rhos: split ratios tried, ascending; empty for those of a run without a file.
        prototypes: in the order of the file.
    """

    source: str
    extends: bool
    rhos: tuple[float, ...]
    prototypes: tuple[OwnPrototype, ...]

    def placed(self, default_layer: int, depth: int) -> list[Prototype]:
        """The prototypes on the layers of a tower.

        Args:
            default_layer: the layer that the stock model reads.
            depth: the last layer there is.

        Raises:
            BadDataError: a layer that the tower does not have.
        """
        return [self._place(own, default_layer, depth) for own in self.prototypes]

    def _place(self, own: OwnPrototype, default_layer: int, depth: int) -> Prototype:
        if own.layers and own.layers[-1] > depth:
            raise BadDataError(
                f"{self.source}: {own.key}.layers names layer {own.layers[-1]}, this model's vision layers are 0 to "
                f"{depth}"
            )
        if own.layers:
            return Prototype(own.name, own.layers, own.scores, own.tau)
        layers, scores = at_depths(default_layer, dict(zip(own.shares, own.scores, strict=True)))
        return Prototype(own.name, layers, scores, own.tau)


def open_prototypes(path: Path | str | None) -> OwnSpace | None:
    """Read a file of prototypes; None for no file.

    Raises:
        UsageError: it cannot be read.
        BadDataError: it is no such file; names file and key.
    """
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"the prototypes {path} cannot be read ({error.strerror}); docs/calibration.md shows what such a file "
            "looks like"
        ) from None
    return parse_prototypes(data, str(path))


def parse_prototypes(data: bytes, source: str) -> OwnSpace:
    """Read the bytes of a TOML file that may be hostile.

    Args:
        data: the file.
        source: its name, for messages.

    Raises:
        BadDataError: names ``source`` and the key that is wrong.
    """
    try:
        return _parse(data, source)
    except BadDataError as error:
        raise BadDataError(f"{source}: {error}") from None


def _parse(data: bytes, source: str) -> OwnSpace:
    if len(data) > MAX_BYTES:
        raise BadDataError(f"a file of prototypes has at most {MAX_BYTES} bytes")
    root = toml_root(data)
    table = TomlTable("", root, {"extends", "rho", "prototype"})
    extends = root.get("extends", True)
    if type(extends) is not bool:
        raise table.wrong("extends", "true (keep the built-in prototypes) or false")
    prototypes = table.rows("prototype", 1, MAX_PROTOTYPES, lambda row, _: _prototype(row), "there must be")
    taken = {DEFAULT: "built in, the stock model's own layer, and always there"}
    if extends:
        taken |= dict.fromkeys(built_in(), "built in; give another name, or replace the built-in ones: extends = false")
    for own in prototypes:
        if own.name in taken:
            raise BadDataError(f"{own.key}.name {shorten(own.name)} is {taken[own.name]}")
        taken[own.name] = f"the name of {own.key} already"
    return OwnSpace(source, extends, _rhos(table), prototypes)


def _rhos(root: TomlTable) -> tuple[float, ...]:
    if "rho" not in root.fields:
        return ()
    values = root.numbers("rho", 0, 1, MAX_RHOS)
    if list(values) != sorted(set(values)):
        raise root.wrong("rho", "ascending, each value once")
    if any(float(f"{value:g}") != value for value in values):
        raise root.wrong("rho", "numbers of at most six digits, which is what a configuration's name holds")
    return values


def _prototype(table: TomlTable) -> OwnPrototype:
    table.names({"name", "layers", "shares", "scores", "tau"})
    key, row = table.where, table.fields
    if ("layers" in row) == ("shares" in row):
        raise BadDataError(
            f"{key} needs either layers (hidden_states indices) or shares (of the layer that the stock model reads)"
        )
    where = "layers" if "layers" in row else "shares"
    places = table.numbers(where, 0, MAX_LAYER if where == "layers" else 1, MAX_LAYERS)
    if where == "layers" and not all(type(value) is int for value in row[where]):
        raise table.wrong(where, "whole numbers, 0 being the embeddings")
    if where == "shares" and places[0] == 0:
        raise table.wrong(where, "above 0; layers = [0, ...] names the embeddings")
    if list(places) != sorted(set(places)):
        raise table.wrong(where, "ascending, each value once")
    scores = table.numbers("scores", -MAX_SCORE, MAX_SCORE, MAX_LAYERS)
    if len(scores) != len(places):
        raise BadDataError(f"{key}.scores has {len(scores)} numbers for {len(places)} {where}; give one for each")
    tau = row.get("tau", TAU)
    if not is_number(tau) or not 0 < tau <= MAX_TAU:
        raise table.wrong("tau", f"a number above 0, at most {MAX_TAU:g}")
    return OwnPrototype(
        key=key,
        name=_name(table),
        layers=tuple(map(int, places)) if where == "layers" else (),
        shares=places if where == "shares" else (),
        scores=scores,
        tau=float(tau),
    )


def _name(table: TomlTable) -> str:
    name = table.fields.get("name")
    fits = isinstance(name, str) and 1 <= len(name) <= MAX_NAME and name == name.strip() and name.isprintable()
    if not fits or any(letter in _RESERVED for letter in str(name)):
        raise table.wrong(
            "name", f"1 to {MAX_NAME} printable characters without {' '.join(_RESERVED)} and outer spaces"
        )
    return str(name)
