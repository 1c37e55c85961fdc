"""Questions of mini's that a calibration has not seen: drawn with another seed, routed by its profile, balanced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from claspkit.cache.encoder import feature_key
from claspkit.cache.extract import extract
from claspkit.cache.store import FeatureStore
from claspkit.calib.data_mini import MiniSource
from claspkit.calib.features import openers
from claspkit.calib.finished import FinishedRun
from claspkit.calib.folder import read_samples
from claspkit.calib.samples import Sample
from claspkit.calib.sources import SourceOptions
from claspkit.profiles.errors import UsageError
from claspkit.router.route import make_router
from claspkit.runtime.models import LoadedModel

FRESH_SEED = 2_000_000  # calibrations draw from seed 0 on, other benchmarks from 1,000,000 on
BATCH = 32


@dataclass(frozen=True)
class Fresh:
    """Fresh questions.

    Attributes:
        classes: class id -> its questions, as the profile's router sends them, in the order they were drawn.
        misrouted: questions that the router sends elsewhere than the generator meant, of all drawn.
        drawn: how many were drawn.
        pictures: SHA-256 hex -> the picture's number.
    """

    classes: dict[str, list[Sample]]
    misrouted: int
    drawn: int
    pictures: dict[str, int]

    @property
    def samples(self) -> list[Sample]:
        """All of them."""
        return [sample for samples in self.classes.values() for sample in samples]


def draw_fresh(run: FinishedRun, count: int, seed: int, folder: Path) -> Fresh:
    """Draw ``count`` questions, as equally many of every class as divide, with the pictures below ``folder``.

    Raises:
        UsageError: fewer than one per class, the run's own seed, or a picture that the run has, too.
    """
    ids = run.taxonomy.ids
    if count < len(ids):
        raise UsageError(f"--samples {count} is fewer than one for each of the {len(ids)} classes")
    if seed == run.config.seed:
        raise UsageError(f"--seed {seed} is the run's own; fresh questions need another")
    options = SourceOptions(None, "mini", folder / "images", per_class=-(-count // len(ids)), seed=seed)
    drawn = MiniSource(options).load().samples
    shared = {sample.image_sha256 for sample in drawn} & {s.image_sha256 for s in read_samples(run.folder).samples}
    if shared:
        raise UsageError(f"{len(shared)} pictures of --seed {seed} are among the run's own; take another seed")
    profile = run.profile
    route = make_router(profile.router, run.folder.profile.parent, profile.read_taxonomy())
    labels = [label.intent for label in route([sample.prompt for sample in drawn])]
    quota = {intent: count // len(ids) + (number < count % len(ids)) for number, intent in enumerate(ids)}
    routed = {
        intent: [sample for sample, label in zip(drawn, labels, strict=True) if label == intent][: quota[intent]]
        for intent in ids
    }
    misrouted = sum(sample.intent_hint != label for sample, label in zip(drawn, labels, strict=True))
    # The source draws picture after picture, from number 0 on.
    numbers = {image: number for number, image in enumerate(dict.fromkeys(sample.image_sha256 for sample in drawn))}
    return Fresh({intent: samples for intent, samples in routed.items() if samples}, misrouted, len(drawn), numbers)


def encode_fresh(loaded: LoadedModel, samples: Sequence[Sample], folder: Path) -> FeatureStore:
    """The vision layers of the samples' pictures, computed once and kept below ``folder``."""
    pictures = openers({sample.image_sha256: sample.image for sample in samples}, folder / "images")
    with FeatureStore.open(folder / "cache", feature_key(loaded), write=True) as store:
        extract(loaded, pictures, store, batch_size=BATCH)
    return FeatureStore.open(folder / "cache", feature_key(loaded))
