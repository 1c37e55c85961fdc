"""A finished calibration, opened again as it was: its samples by class, its scores, its profile. Loads no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claspkit.profiles.errors import CorruptError, MismatchError, UsageError
from claspkit.profiles.files import read_profile
from claspkit.profiles.profile import ClassSpec, Profile
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.backend_replay import ReplayBackend
from claspkit.router.backends import BackendOptions
from claspkit.router.labels import Label
from claspkit.router.run import label_prompts

from .classes import take_classes
from .command import command_of
from .config import RunConfig, config_of, read_lock
from .folder import RunFolder, read_samples
from .ledger import HOLDOUT, SEARCH, Ledger
from .own_files import kept_prototypes, kept_taxonomy
from .rejects import leave_out, read_rejects
from .samples import Sample
from .search import MIN_SAMPLES, ClassData
from .space import Candidate, Space, make_space
from .strategies import STRATEGIES


@dataclass(frozen=True)
class FinishedRun:
    """What a calibration left, checked against its own profile.

    Attributes:
        folder: where it lies.
        facts: what it was locked with.
        config: what was asked, out of these facts.
        profile: the result.
        taxonomy: its classes, with the rules of a user's own.
        classes: the samples used, in the profile's order of classes.
        space: the candidates.
        ledger: all scores, open for reading.
    """

    folder: RunFolder
    facts: dict[str, Any]
    config: RunConfig
    profile: Profile
    taxonomy: Taxonomy
    classes: Sequence[ClassData]
    space: Space
    ledger: Ledger

    @property
    def command(self) -> str:
        """The command that resumes the run."""
        return command_of(self.facts, self.folder.root)

    def decided(self) -> dict[str, Candidate]:
        """Class -> the configuration that its profile has."""
        return {
            spec.intent: self._candidate(spec, f"{spec.prototype}/{spec.rho:g}") for spec in self.profile.classes
        }

    def winners(self) -> dict[str, Candidate]:
        """Class -> the best configuration of its search split, whether the holdout agreed or not.

        A class that was not searched has the default.
        """
        return {data.intent: self._winner(data) for data in self.classes}

    def blocks(self, data: ClassData) -> list[Sequence[Sample]]:
        """A class's holdout in the blocks that the search scored; a score depends on its block's make-up."""
        size = self.config.block_size
        return [data.holdout[start : start + size] for start in range(0, len(data.holdout), size)]

    def _winner(self, data: ClassData) -> Candidate:
        """Ask the strategy again, telling it what the ledger holds, as an interrupted search would."""
        if min(len(data.search), len(data.holdout)) < MIN_SAMPLES:
            return self.space.default
        step = self.config.block_size
        sizes = [len(data.search[start : start + step]) for start in range(0, len(data.search), step)]
        strategy = STRATEGIES[self.config.strategy](self.space, sizes, self.config.seed)
        while requests := strategy.ask():
            for request in requests:
                scores = self.ledger.scores(SEARCH, data.intent, request.candidate.id)
                if len(scores) < sum(sizes[: request.blocks]):
                    raise MismatchError(
                        f"the search of class {data.intent!r} in {self.folder.root} is not what this version of "
                        f"claspkit would do: {request.candidate.id} has {len(scores)} scores of "
                        f"{sum(sizes[: request.blocks])}. Calibrate again: {self.command} --fresh"
                    )
                strategy.tell(request.candidate, scores)
        return strategy.best()

    def _candidate(self, spec: ClassSpec, name: str) -> Candidate:
        """A configuration of the profile: one of the space, or a point beside its grid that the run has scored."""
        try:
            found = self.space.find(name)
        except KeyError:
            found = None
        if (
            found is None
            or (found.prototype.layers, found.prototype.scores) != (spec.layers, spec.scores)
            or not (found in self.space.candidates or self.ledger.scores(SEARCH, spec.intent, name))
        ):
            raise MismatchError(
                f"the profile in {self.folder.profile} has the configuration {name} on layers {list(spec.layers)}, "
                f"which this version of claspkit does not search. Calibrate again: {self.command} --fresh"
            )
        return found


def read_finished(root: Path) -> FinishedRun:
    """Open a run folder whose calibration has ended.

    Raises:
        UsageError: the run is not finished; the text holds the command that continues it.
        MismatchError: samples, labels or scores are not those that the profile was made from.
        CorruptError: no run, or a damaged file.
    """
    folder, facts = RunFolder(root), read_lock(root)
    if not (folder.profile.exists() and folder.summary.exists()):
        raise UsageError(f"{root} is not finished, there is no profile yet. Continue it: {command_of(facts, root)}")
    profile = read_profile(folder.profile)
    config = config_of(facts)
    depth = profile.model.vision_depth
    space = make_space(profile.model.default_layer, config.rhos, kept_prototypes(folder), depth)
    if space.sha256 != facts["space"]:
        raise MismatchError(
            f"{root} was searched over other configurations than this version of claspkit has. Calibrate again: "
            f"{command_of(facts, root)} --fresh"
        )
    data = read_samples(folder)
    taxonomy = _taxonomy(folder, profile)
    classes = take_classes(data.samples, recorded_labels(config, folder, data.samples, taxonomy), taxonomy.ids, config)
    classes, _ = leave_out(read_rejects(folder), classes, data)
    run = FinishedRun(folder, facts, config, profile, taxonomy, classes, space, Ledger.read(folder.ledger))
    _check(run)
    return run


def _taxonomy(folder: RunFolder, profile: Profile) -> Taxonomy:
    found = kept_taxonomy(folder)
    if found.labels_digest != profile.read_taxonomy().labels_digest:
        raise MismatchError(
            f"the profile in {folder.profile} has other classes than {folder.taxonomy}, or this is absent"
        )
    return found


def recorded_labels(
    config: RunConfig, folder: RunFolder, samples: Sequence[Sample], taxonomy: Taxonomy, *, overrides: bool = True
) -> dict[str, Label]:
    """Sample uid -> label, out of the log: whoever labelled need not be there any more.

    Args:
        config: what the run was asked.
        folder: where its log lies; it must be there.
        samples: all that were read; those without a label in the log are left out.
        taxonomy: their classes.
        overrides: let the rules overrule a teacher, as the run does; else what the labeller itself said.
    """
    if folder.labels.exists() and not folder.labels.is_file():  # a pipe, say, that would be waited for
        raise CorruptError(f"{folder.labels} is no plain file; put the label log back, or start over with --fresh")
    recorded = ReplayBackend(BackendOptions(answers=folder.labels, taxonomy=taxonomy))
    labelled = [sample for sample in samples if recorded.answer(sample.prompt) is not None]
    prompts = [sample.prompt for sample in labelled]
    labels = label_prompts(prompts, recorded, None, overrides=overrides and config.router != "rules")
    return {sample.uid: label for sample, label in zip(labelled, labels, strict=True)}


def _check(run: FinishedRun) -> None:
    """Compare what was put together with what the profile says about itself."""
    odd = [
        spec.intent
        for spec, data in zip(run.profile.classes, run.classes, strict=True)
        if (spec.n_search, spec.n_holdout) != (len(data.search), len(data.holdout))
    ]
    if not odd and run.ledger.sha256 == run.profile.calibration.ledger_sha256:
        for data in run.classes:
            for number, block in enumerate(run.blocks(data)):
                uids = [sample.uid for sample in block]
                run.ledger.get(HOLDOUT, data.intent, run.space.default.id, number, uids)
        return
    what = f"its classes {', '.join(odd)} have other samples" if odd else "the ledger holds other scores"
    raise MismatchError(
        f"{run.folder.root} changed since its profile was made: {what}. Run the calibration to its end again: "
        f"{run.command}, or with --fresh from the start"
    )
