"""The run folder: where every file of a run lies, and the sample list on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claspkit.profiles.canonical import canonical_json, digest, strict_loads, write_atomic
from claspkit.profiles.errors import CorruptError
from claspkit.profiles.plain_files import read_plain

from .samples import Sample
from .sources import LoadResult, Quarantined

_WORKER = re.compile(r"cache-[0-9]+")
_FURTHER = re.compile(r"profile-([0-9]+|adaptive)")
_GALLERY = re.compile(r"gallery-[0-9]+\.json")
_WORKER_LEDGER = re.compile(r"ledger-worker-[0-9]+\.jsonl")

_MAX_LIST = 2_000_000_000  # bytes of samples.json: 18,000 samples take about 10 MB


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run (design section 7)."""

    root: Path

    @property
    def samples(self) -> Path:
        """Samples read from the data, with what was quarantined; written once, whole."""
        return self.root / "samples.json"

    @property
    def taxonomy(self) -> Path:
        """The classes of a user's own taxonomy, a copy of the file that was named; absent for the standard ones."""
        return self.root / "taxonomy.toml"

    @property
    def prototypes(self) -> Path:
        """A user's own prototypes, a copy of the file that was named; absent for the built-in ones."""
        return self.root / "prototypes.toml"

    @property
    def images(self) -> Path:
        """Pictures that came without a file of their own."""
        return self.root / "images"

    @property
    def labels(self) -> Path:
        """One line per prompt and labeller."""
        return self.root / "labels.jsonl"

    @property
    def features(self) -> Path:
        """The feature cache."""
        return self.root / "cache"

    def worker_features(self, index: int) -> Path:
        """What worker ``index`` computes, until it is merged into the feature cache."""
        return self.root / f"cache-{index}"

    @property
    def left_by_workers(self) -> list[Path]:
        """Such folders that are there, sorted."""
        return sorted(path for path in self.root.glob("cache-*") if _WORKER.fullmatch(path.name) and path.is_dir())

    @property
    def rejects(self) -> Path:
        """Pictures that could not be used when their features were to be computed, one checksummed line each."""
        return self.root / "quarantine.jsonl"

    @property
    def ledger(self) -> Path:
        """All scores."""
        return self.root / "ledger.jsonl"

    def worker_ledger(self, index: int) -> Path:
        """What worker ``index`` of the search scores, until it is taken over into the ledger."""
        return self.root / f"ledger-worker-{index}.jsonl"

    @property
    def left_ledgers(self) -> list[Path]:
        """Such files that are there, sorted."""
        return sorted(path for path in self.root.glob("ledger-worker-*") if _WORKER_LEDGER.fullmatch(path.name))

    @property
    def study(self) -> Path:
        """Scores that the study of routing errors needed beyond the ledger's."""
        return self.root / "study.jsonl"

    @property
    def profile(self) -> Path:
        """The result."""
        return self.root / "profile" / "profile.json"

    def further_profile(self, nominal: int) -> Path:
        """The result of a further budget of the run."""
        return self.root / f"profile-{nominal}" / "profile.json"

    @property
    def adaptive_profile(self) -> Path:
        """The result whose classes have different budgets; only where the holdout showed that it is better."""
        return self.root / "profile-adaptive" / "profile.json"

    @property
    def further_profiles(self) -> list[Path]:
        """Folders of such profiles that are there, sorted."""
        return sorted(path for path in self.root.glob("profile-*") if _FURTHER.fullmatch(path.name) and path.is_dir())

    @property
    def report(self) -> Path:
        """The result, to look at."""
        return self.root / "report.html"

    @property
    def gallery(self) -> Path:
        """Pictures for the report with what every stage kept of them."""
        return self.root / "gallery.json"

    def further_gallery(self, nominal: int) -> Path:
        """The same of a further budget's profile."""
        return self.root / f"gallery-{nominal}.json"

    @property
    def further_galleries(self) -> list[Path]:
        """Such files that are there, sorted."""
        return sorted(path for path in self.root.glob("gallery-*.json") if _GALLERY.fullmatch(path.name))

    @property
    def summary(self) -> Path:
        """What the final table shows, as JSON, with costs and times."""
        return self.root / "summary.json"


def write_samples(folder: RunFolder, loaded: LoadResult) -> None:
    """Write the sample list; it exists only when it is complete."""
    body = {
        "samples": [sample.to_dict() for sample in loaded.samples],
        "quarantine": [{"where": row.where, "reason": row.reason} for row in loaded.quarantine],
        "datasets": list(loaded.datasets),
    }
    write_atomic(folder.samples, canonical_json({"sha256": digest(body), "body": body}))


def read_samples(folder: RunFolder) -> LoadResult:
    """Read the sample list back.

    Raises:
        CorruptError: the file does not match its digest or is no sample list.
    """
    try:
        record: dict[str, Any] = strict_loads(read_plain(folder.samples), max_bytes=_MAX_LIST)
        body = record["body"]
        if record["sha256"] != digest(body):
            raise ValueError("it does not match its own digest")
        return LoadResult(
            samples=[Sample.from_dict(entry) for entry in body["samples"]],
            quarantine=_quarantine(body["quarantine"]),
            datasets=list(body["datasets"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{folder.samples} is damaged ({error}). Delete it and run the same command again: the data is read anew."
        ) from error


def _quarantine(rows: Iterable[dict[str, str]]) -> list[Quarantined]:
    return [Quarantined(where=row["where"], reason=row["reason"]) for row in rows]
