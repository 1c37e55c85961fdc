"""A run as it lies in its folder, finished, going on or killed: whatever is there so far. Loads no model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from claspkit.profiles.canonical import strict_loads
from claspkit.profiles.errors import CorruptError
from claspkit.profiles.plain_files import read_plain
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.labels import Label

from .classes import take_classes
from .config import RunConfig, config_of, read_lock
from .finished import recorded_labels
from .folder import RunFolder, read_samples
from .ledger import Ledger
from .own_files import kept_prototypes, kept_taxonomy
from .rejects import leave_out, read_rejects
from .search import ClassData
from .shapes import check_shape
from .sources import LoadResult
from .space import FurtherBudget, Space, make_space
from .summary_shape import SUMMARY
from .worker_ledgers import read_all

_DEEPEST = 512  # vision layers among which the stock model's own is looked for

MAX_SUMMARY = 50_000_000
"""Bytes of summary.json that are read, at most."""


@dataclass(frozen=True)
class RunView:
    """What a run folder holds.

    Attributes:
        folder: where it lies.
        facts: what the run was locked with.
        config: what was asked, out of these facts.
        taxonomy: its classes.
        data: samples and quarantine; None before they were read.
        recorded: sample uid -> what the labeller said, of as many as it labelled.
        labels: the same after the rules that overrule a teacher.
        classes: the samples used, one entry per class; of a run that is still labelling, out of the labels so far.
        spaces: the candidates, one space per budget; empty where this version has none of that digest.
        ledger: the scores; None before the first.
        summary: what the finished run said about itself; None before its end.
    """

    folder: RunFolder
    facts: dict[str, Any]
    config: RunConfig
    taxonomy: Taxonomy
    data: LoadResult | None
    recorded: Mapping[str, Label]
    labels: Mapping[str, Label]
    classes: Sequence[ClassData]
    spaces: Sequence[Space]
    ledger: Ledger | None
    summary: dict[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary is not None

    @property
    def quiet_for(self) -> float | None:
        """Seconds since the run wrote its latest label, reject or score; None where there is none."""
        logs = (self.folder.ledger, self.folder.labels, self.folder.rejects, self.folder.samples)
        times = [path.stat().st_mtime for path in logs if path.exists()]
        return max(0.0, time.time() - max(times)) if times else None


def read_view(root: Path) -> RunView:
    """Open a run folder in whatever state it is; takes no lock and changes nothing.

    Raises:
        CorruptError: no run, or a damaged file; a log's torn last line is none.
    """
    folder, facts = RunFolder(root), read_lock(root)
    config = config_of(facts)
    taxonomy = kept_taxonomy(folder)
    data = read_samples(folder) if folder.samples.exists() else None
    recorded: Mapping[str, Label] = {}
    labels: Mapping[str, Label] = {}
    classes: Sequence[ClassData] = ()
    if data is not None and folder.labels.exists():
        recorded = recorded_labels(config, folder, data.samples, taxonomy, overrides=False)
        labels = recorded_labels(config, folder, data.samples, taxonomy)
        classes, data = leave_out(
            read_rejects(folder), take_classes(data.samples, labels, taxonomy.ids, config), data
        )
    return RunView(
        folder=folder,
        facts=facts,
        config=config,
        taxonomy=taxonomy,
        data=data,
        recorded=recorded,
        labels=labels,
        classes=classes,
        spaces=find_spaces(facts, config, folder),
        ledger=read_all(folder),
        summary=read_summary(folder) if folder.summary.exists() else None,
    )


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """What a finished run said about itself.

    Raises:
        CorruptError: summary.json is damaged.
    """
    try:
        summary: dict[str, Any] = strict_loads(read_plain(folder.summary), max_bytes=MAX_SUMMARY)
        check_shape(summary, SUMMARY, "summary")
    except ValueError as error:
        raise CorruptError(
            f"{folder.summary} is damaged, or of another version ({error}). Run the calibration again, it is quick now"
        ) from error
    return summary


def find_spaces(facts: Mapping[str, Any], config: RunConfig, folder: RunFolder) -> tuple[Space, ...]:
    """The candidates of a run, one space per budget, found by the digest it was locked with.

    An unfinished run does not say which layer its model reads, and nobody loads a model to look at a run; of all the
    layers it could be, one gives the digest.

    Returns:
        empty where none does: the run was made by a version with other candidates.
    """
    own = kept_prototypes(folder)
    spaces = (make_space(layer, config.rhos, own, _DEEPEST) for layer in range(1, _DEEPEST + 1))
    first = next((space for space in spaces if space.sha256 == facts.get("space")), None)
    if first is None:
        return ()
    others = [
        FurtherBudget(int(nominal), tuple(int(keep) for _, keep in stages))
        for nominal, stages in facts.get("budgets_used", ())[1:]
    ]
    return (first, *(replace(first, further=further) for further in others))
