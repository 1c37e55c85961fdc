"""The stage that fills the feature cache: every picture once, by this process or by several at a time."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from claspkit.cache.encoder import feature_key
from claspkit.cache.extract import extract
from claspkit.cache.layout import shard_bytes_needed
from claspkit.cache.merge import merge
from claspkit.cache.process import require_space
from claspkit.cache.store import FeatureStore
from claspkit.cache.upkeep import BadShard
from claspkit.profiles.errors import BadDataError, CorruptError, ResourceError
from claspkit.runtime.models import LoadedModel

from .config import RunConfig
from .folder import RunFolder
from .images import open_image
from .plan_cache import choose_layers
from .progress import Reporter, steps
from .rejects import Reject, add_rejects, read_rejects
from .space import Space
from .workers import Job, run_workers

_SHOWN = 5


@dataclass(frozen=True)
class Cached:
    """What the stage leaves.

    Attributes:
        store: open for reading.
        pictures: the run's pictures that are in it.
        rejects: SHA-256 hex -> the picture that is not.
    """

    store: FeatureStore
    pictures: int
    rejects: Mapping[str, Reject]


class Tally:
    """What a filling has done so far; stops it when most pictures turn out bad.

    Attributes:
        bytes: of the features computed.
        rejects: pictures that cannot be used, those of earlier invocations not among them.
    """

    def __init__(self, pictures: Mapping[str, str], root: Path, known: int) -> None:
        """Start from ``known`` of the pictures left out already; ``pictures``: SHA-256 hex -> name below ``root``."""
        self.bytes = 0
        self.rejects: dict[str, Reject] = {}
        self._pictures, self._root, self._known = pictures, root, known

    def written(self, count: int) -> None:
        """Count bytes."""
        self.bytes += count

    def reject(self, image: str, reason: str) -> None:
        """Note a picture.

        Raises:
            BadDataError: it is more than half of them by now.
        """
        self.rejects[image] = Reject(self._pictures[image], reason)
        bad, count = self._known + len(self.rejects), len(self._pictures)
        if 2 * bad > count:
            first = next(iter(self.rejects.values())).reason
            again = f"all but the {self._known} quarantined before" if self._known else "all"
            raise BadDataError(
                f"{bad} of {count} pictures could not be used so far, more than half, so the run stops instead of "
                f"going on without them. Is {self._root} the folder that the data's paths start from, and complete? "
                f"The first: {first}. Once that is put right, run the same command again: {again} are tried anew."
            )

    def size(self) -> str:
        """The bytes in words."""
        return show_size(self.bytes)


def show_size(count: int) -> str:
    """Bytes in MB, or from ten thousand of them in GB."""
    return f"{count / 1e6:.1f} MB" if count < 10**10 else f"{count / 1e9:.1f} GB"


def openers(pictures: Mapping[str, str], root: Path) -> dict[str, Callable[[], Image.Image]]:
    """How to open each picture: SHA-256 hex -> name below ``root``, as ``cache.extract`` takes it."""
    return {image: partial(_open, name, root, image) for image, name in pictures.items()}


def fill_cache(
    config: RunConfig,
    loaded: LoadedModel,
    pictures: Mapping[str, str],
    root: Path,
    folder: RunFolder,
    report: Reporter,
    workers: int = 1,
    space: Space | None = None,
) -> Cached:
    """Make sure that the run's cache holds every picture that can be used.

    Whatever workers of earlier invocations left is taken over first, however many they were.

    Args:
        config: what was asked; decides model, layers, dtype and batches.
        loaded: the model.
        pictures: SHA-256 hex -> name below ``root``.
        root: folder of the pictures.
        folder: of the run.
        report: where it is told.
        workers: processes that compute, each with a model of its own; 1 computes in this one.
        space: what is searched; None for the built-in prototypes.

    Raises:
        BadDataError: more than half of the pictures cannot be used, or one that the run has scores for.
        ResourceError: disk or memory are short, a worker died, or the folder of the pictures is gone.
        ClaspError: the cache is damaged or not this run's.
    """
    layers = choose_layers(config.cache_layers, loaded.family.facts(loaded.model), space)
    key = feature_key(loaded, layers=layers, dtype=config.cache_dtype)
    # The list may name pictures of a sample list that has been replaced since.
    known = {image: reject for image, reject in read_rejects(folder).items() if image in pictures}
    wanted = {image: name for image, name in pictures.items() if image not in known}
    repair = f"claspkit cache repair {shlex.quote(str(folder.root))}"
    with FeatureStore.open(folder.features, key, write=True, repair=repair) as store:
        _take_over(store, folder.left_by_workers, report)
        missing = {image: wanted[image] for image in store.missing(wanted)}
        tally = Tally(pictures, root, len(known))
        with report.task("cache", len(missing), "pictures", tally.size) as advance:
            if workers == 1 or not missing:
                passes = extract(
                    loaded,
                    openers(missing, root),
                    store,
                    batch_size=config.block_size,
                    progress=steps(advance),
                    written=tally.written,
                    reject=tally.reject,
                ).vision_passes
            else:
                if key.tokens is not None:  # each worker asks for its own share only
                    needed = shard_bytes_needed(key, len(missing))
                    require_space(store.folder, needed, f"the features of {len(missing)} images")
                job = Job(config, key, root.resolve(), missing)
                passes = run_workers(job, folder, workers, advance, tally.written, tally.reject)
                if lost := _take_over(store, folder.left_by_workers, report):
                    raise CorruptError(f"{lost} pictures were lost; run the same command again to compute them anew")
        add_rejects(folder, tally.rejects)
        size = store.nbytes
    rejects = {**known, **tally.rejects}
    _tell(report, folder, rejects)
    report.say(
        f"cache: {len(pictures)} pictures, {passes} vision passes, {len(wanted) - len(missing)} already there, "
        + (f"{len(rejects)} quarantined, " if rejects else "")
        + show_size(size)
    )
    return Cached(FeatureStore.open(folder.features, key, repair=repair), len(pictures) - len(rejects), rejects)


def _open(name: str, root: Path, image: str) -> Image.Image:
    try:
        return open_image(name, root, image)
    except BadDataError as error:
        if not root.is_dir():
            # The folder is at fault and not this picture: perhaps a disk that is not mounted.
            raise ResourceError(
                f"the folder of the pictures, {root}, is gone. Bring it back and run the same command again."
            ) from error
        raise


def _take_over(store: FeatureStore, folders: Sequence[Path], report: Reporter) -> int:
    """Merge what workers computed, finished or not, and delete their folders; returns the number of pictures lost."""
    damaged: list[BadShard] = []
    for folder in folders:
        before = len(damaged)
        merge(store, folder, damaged.append)
        for shard in damaged[before:]:
            report.warn(
                f"shard {shard.file} that a worker left in {folder} is damaged: {shard.reason}; "
                f"its {len(shard.images)} pictures are computed anew"
            )
        shutil.rmtree(folder)
    return sum(len(shard.images) for shard in damaged)


def _tell(report: Reporter, folder: RunFolder, rejects: Mapping[str, Reject]) -> None:
    for reject in list(rejects.values())[:_SHOWN]:
        report.warn(f"quarantined picture {reject.picture}: {reject.reason}")
    if len(rejects) > _SHOWN:
        report.warn(f"... and {len(rejects) - _SHOWN} more, all in {folder.rejects}")
