"""What a run was asked to do, locked in its folder: the same command resumes, another one is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from claspkit.profiles.canonical import canonical_json, digest, strict_loads, write_atomic
from claspkit.profiles.errors import CorruptError, MismatchError
from claspkit.profiles.plain_files import read_plain
from claspkit.router.endpoint import check_endpoint

from .shapes import Shape, check_shape

FORMAT = "clasp-run"
VERSION = 1


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a calibration's result.

    Attributes:
        model: alias, folder or hub id, as typed.
        revision: hub revision asked for, None for the newest.
        data: what ``--data`` named; None for the model's default.
        image_root: folder that holds the pictures of local data; None for the data file's own folder.
        columns: column names for a data set whose own are unusual, (field, column) pairs.
        per_class: samples wanted per class.
        max_rows: rows read per data set, at most; None for a multiple of what the classes need.
        scorer: name@version for rows that name none; None for the data set's own.
        seed: of sampling and resampling.
        budget: nominal visual tokens, or a share such as "1/3"; several have commas between, the first is the run's
            own and the target of ``adaptive_budget``.
        schedule: named list the budget is taken from.
        stages: explicit stages (after_layer, keep) instead; empty for a named budget.
        adaptive_budget: look for a better distribution of the first budget's compute over the classes.
        router: backend that labels.
        router_model: model of a teacher backend; None for its default.
        router_mode: how a teacher answers, one of ``claspkit.router.backends.MODES``.
        router_endpoint: address of a labelling server, without anything secret; None for other backends.
        router_answers: file of recorded answers; None for other backends.
        taxonomy: file of classes and fine intents; None for the standard ones.
        label_until_full: label in hash order only until every class has its samples.
        profile_router: what goes into the profile, one of ``claspkit.calib.profile_router.CHOICES``.
        rhos: split ratios tried; empty for those of ``prototypes``, or else tenths.
        prototypes: file of layer prototypes; None for the built-in ones.
        strategy: search strategy.
        holdout: share of every class's pictures that only the final decision sees.
        max_new_tokens: length of an answer, at most.
        device: torch device.
        dtype: weights' dtype; None for the default.
        block_size: samples per batch and ledger entry.
        cache_layers: vision layers in the feature cache: "all", "prototypes" or numbers such as "3,12,23".
        cache_dtype: dtype of its values, one of ``claspkit.cache.DTYPES``.
    """

    model: str
    per_class: int
    revision: str | None = None
    data: str | None = None
    image_root: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    max_rows: int | None = None
    scorer: str | None = None
    seed: int = 0
    budget: str = "1/3"
    schedule: str = "plain"
    stages: tuple[tuple[int, int], ...] = ()
    router: str = "rules"
    router_model: str | None = None
    router_mode: str = "logits"
    router_endpoint: str | None = None
    router_answers: str | None = None
    taxonomy: str | None = None
    label_until_full: bool = False
    profile_router: str = "auto"
    rhos: tuple[float, ...] = ()
    prototypes: str | None = None
    strategy: str = "race"
    holdout: float = 0.5
    max_new_tokens: int = 16
    device: str = "cpu"
    dtype: str | None = None
    block_size: int = 32
    cache_layers: str = "all"
    cache_dtype: str = "float16"
    adaptive_budget: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


_LATER = {
    name: getattr(RunConfig, name)
    for name in (
        "cache_layers",
        "cache_dtype",
        "router_mode",
        "router_endpoint",
        "router_answers",
        "taxonomy",
        "label_until_full",
        "profile_router",
        "adaptive_budget",
        "prototypes",
    )
}
"""Options that came after the first locks were written, with their defaults."""

_LOCK: dict[str, Any] = {"format": "text", "version": "whole", "sha256": "text", "facts": "object"}
_SHAPES: dict[str, Shape] = {
    "str": "text",
    "str | None": "text?",
    "int": "whole",
    "int | None": "whole?",
    "float": "number",
    "bool": "flag",
    "tuple[float, ...]": ["number"],
    "tuple[tuple[str, str], ...]": [("text", "text")],
    "tuple[tuple[int, int], ...]": [("whole", "whole")],
}
_FACTS: dict[str, Any] = {
    **{field.name: _SHAPES[str(field.type)] for field in fields(RunConfig)},
    "space?": "text",
    "stages_used?": [("whole", "whole")],
    "budgets_used?": [("whole", [("whole", "whole")])],
}
"""What a lock's facts must be: those of the command line, and what follows from the model."""


def lock(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``config.lock.json``, or check that the one there holds the same facts.

    Raises:
        MismatchError: the folder holds a run with another configuration; the text lists every differing field.
        CorruptError: the file is damaged.
    """
    path = folder / "config.lock.json"
    if not path.exists():
        write_atomic(
            path,
            canonical_json({"format": FORMAT, "version": VERSION, "sha256": digest(facts), "facts": facts}),
        )
        return
    there = read_lock(folder)
    if there == facts:
        return
    names = sorted(set(there) | set(facts))
    lines = [
        f"  {name}: {_show(there, name)} in the run, {_show(facts, name)} asked for now"
        for name in names
        if there.get(name) != facts.get(name)
    ]
    raise MismatchError(
        f"{folder} holds a run with another configuration:\n" + "\n".join(lines) + "\n"
        "Give the same options to resume it, --out for a new folder, or --fresh to start this one over."
    )


def read_lock(folder: Path) -> dict[str, Any]:
    """Return the facts a run was locked with.

    An option that is younger than the lock has its default there, which is what the run did.

    Raises:
        CorruptError: no run here, or a damaged lock file.
        MismatchError: the lock is of another version.
    """
    path = folder / "config.lock.json"
    try:
        record = strict_loads(read_plain(path), max_bytes=1_000_000)
        check_shape(record, _LOCK, "lock")
        facts: dict[str, Any] = record["facts"]
        intact = record["format"] == FORMAT and record["sha256"] == digest(facts)
    except FileNotFoundError as error:
        what = "it has no config.lock.json" if folder.is_dir() else "there is no such folder"
        raise CorruptError(f"{folder} is not a run folder: {what}") from error
    except ValueError as error:
        raise CorruptError(f"{path} is damaged ({error}); run again with --fresh to start over") from error
    if not intact:
        raise CorruptError(f"{path} does not match its own digest; run again with --fresh to start over")
    if record["version"] != VERSION:
        raise MismatchError(
            f"{path} is of version {record['version']}, and this claspkit reads version {VERSION}: use the release "
            "that made the run, or calibrate into another folder"
        )
    return _checked(path, _LATER | facts)


def _checked(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a lock, if they are those of a run: what is asked of it here and later."""
    try:
        check_shape(facts, _FACTS, "facts")
        odd = next((name for name in ("per_class", "block_size") if facts[name] < 1), None)
        if odd is not None or not 0 <= facts["holdout"] <= 1:
            raise ValueError(f"facts.{odd or 'holdout'} is {facts[odd or 'holdout']}")
    except ValueError as error:
        raise CorruptError(
            f"{path} was locked with something that this claspkit does not know ({error}): use the release that made "
            "the run, or run again with --fresh to start over"
        ) from None
    return _tidy(facts)


def config_of(facts: dict[str, Any]) -> RunConfig:
    """What was asked, out of a lock's facts; JSON made lists of tuples."""
    names = {field.name for field in fields(RunConfig)}
    asked = {name: value for name, value in facts.items() if name in names}
    pairs = {name: tuple(tuple(pair) for pair in asked[name]) for name in ("columns", "stages")}
    return RunConfig(**{**asked, **pairs, "rhos": tuple(asked["rhos"])})


def _tidy(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a lock; older ones hold the endpoint as it was typed."""
    endpoint = facts["router_endpoint"]
    return facts if endpoint is None else {**facts, "router_endpoint": check_endpoint(endpoint)}


def _show(facts: dict[str, Any], name: str) -> str:
    return json.dumps(facts[name]) if name in facts else "absent"
