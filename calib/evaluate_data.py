"""The rows an evaluation asks, and whether a calibration has seen them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claspkit.profiles.errors import BadDataError, UsageError
from claspkit.profiles.profile import Profile

from .data_hub import HubSource
from .data_mini import DATASET as MINI
from .data_mixture import find_all
from .evaluate_measures import measure_of
from .progress import Reporter
from .samples import Sample
from .sources import LoadResult, Mark, Quarantined, SourceOptions, open_source, source_name

MINI_ROWS: Final = 450
"""Questions of ``--data mini`` where --max-rows says nothing."""

MINI_SEED: Final = 3_000_000
"""Pictures that no calibration with a seed below draws; benchmarks of the project use 1,000,000 and 2,000,000."""

_WHOLE = sys.maxsize  # rows of a data set on the hub: all there are


@dataclass(frozen=True)
class Rows:
    """One data set to be asked about.

    Attributes:
        data: what ``--data`` said.
        name: of the data set, as a profile records it.
        revision: likewise.
        split: likewise.
        samples: its rows.
        marks: what the data says about them, by uid.
        quarantine: rows that could not be read.
        root: folder that the samples' pictures lie below.
        measure: what is reported, a name of :data:`.evaluate_measures.MEASURES`.
    """

    data: str
    name: str
    revision: str | None
    split: str | None
    samples: Sequence[Sample]
    marks: Mapping[str, Mark]
    quarantine: Sequence[Quarantined]
    root: Path
    measure: str

    def seen_by(self, profile: Profile) -> bool:
        """Whether the profile's calibration drew from this data set and split.

        Of what mini draws the seed decides; of a file its name does, whatever it held then.
        """
        mine = (self.name, self.split, self.revision if self.name == MINI else None)
        return any(
            mine == (other.name, other.split, other.revision if other.name == MINI else None)
            for other in profile.calibration.datasets
        )


def read_rows(
    data: Sequence[str],
    model: str,
    out: Path,
    *,
    image_root: Path | None,
    max_rows: int | None,
    seed: int,
    report: Reporter,
) -> list[Rows]:
    """Read the data sets, whole where ``max_rows`` is None; those on the hub are all looked for before one is read.

    Args:
        data: as ``--data`` says, each once.
        model: as ``--model`` says.
        out: folder whose ``images/`` gets pictures that have no file of their own.
        image_root: as ``--image-root`` says.
        max_rows: usable rows per data set, at most.
        seed: of what mini draws.
        report: where progress is told.

    Raises:
        UsageError: unknown data, the mixture, or a data set given twice.
        BadDataError: nothing is there, or no row can be used.
        ResourceError: data sets are out of reach; all of them are listed.
    """
    if twice := [name for name in dict.fromkeys(data) if list(data).count(name) > 1]:
        raise UsageError(f"--data {twice[0]} is given more than once")
    options = [_options(name, model, out, image_root, max_rows, seed) for name in data]
    for each in options:
        kind = source_name(each)
        if kind == "mixture":
            raise UsageError("--data mixture is what calibrations draw from; name the data sets to evaluate on")
        if kind in ("jsonl", "parquet") and not Path(each.data or "").exists():  # said before others are read
            raise BadDataError(f"--data {each.data}: there is no such file")
    sources = [open_source(each) for each in options]
    located = find_all([source.dataset for source in sources if isinstance(source, HubSource)])
    found = []
    for each, source in zip(options, sources, strict=True):
        if isinstance(source, HubSource):
            loaded = source.read(located[source.dataset], progress=report.rows())
        else:
            loaded = source.load(progress=report.rows())
        found.append(_rows(each, loaded))
        left = f", {len(loaded.quarantine)} rows left out" if loaded.quarantine else ""
        report.say(f"data: {len(loaded.samples)} rows of {each.data}{left}")
    return found


def _options(
    name: str, model: str, out: Path, image_root: Path | None, max_rows: int | None, seed: int
) -> SourceOptions:
    options = SourceOptions(name, model, out / "images", image_root, seed=seed, max_rows=max_rows)
    kind = source_name(options)
    if max_rows is None and kind in ("mini", "hub"):
        max_rows = MINI_ROWS if kind == "mini" else _WHOLE
    per_class = max_rows if kind == "mini" and max_rows is not None else 1
    return SourceOptions(name, model, out / "images", image_root, per_class, seed, max_rows)


def _rows(options: SourceOptions, loaded: LoadResult) -> Rows:
    (record,) = loaded.datasets
    return Rows(
        data=options.data or "",
        name=record["name"],
        revision=record["revision"],
        split=record["split"],
        samples=loaded.samples,
        marks=loaded.marks,
        quarantine=loaded.quarantine,
        root=options.sample_root,
        measure=measure_of(loaded.samples, loaded.marks),
    )
