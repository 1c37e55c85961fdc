"""The whole job: samples -> labels -> features -> search -> profile. Every stage picks up where it was left.

Stages leave their results in the run folder and read those of the stage before from there, so a killed run loses at
most the block it was working on, and running the same command again ends in the same profile.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from claspkit.cache.layout import MANIFEST
from claspkit.cache.store import FeatureStore
from claspkit.profiles.budget import Budget, prunes_before_decoder
from claspkit.profiles.errors import UsageError
from claspkit.profiles.intents import open_taxonomy
from claspkit.profiles.records import hold_lock
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.backends import BACKENDS
from claspkit.router.labels import Label
from claspkit.runtime.families import FamilyFacts
from claspkit.runtime.inputs import processor_sha256
from claspkit.runtime.models import LoadedModel, load_model

from .adaptive import Adaptive, judge_adaptive
from .budgets import BudgetResult, budget_spaces
from .classes import take_classes
from .config import RunConfig, lock
from .evaluator import Evaluator
from .features import Cached, fill_cache
from .finite import FiniteEvaluator
from .folder import RunFolder, read_samples, write_samples
from .labelling import Access, check_router, label_samples, router_facts, tell_labels
from .ledger import Ledger
from .not_finite import check_default, not_finite
from .outcome import Findings, Outcome, finish
from .own_files import keep_own, own_file, read_own
from .plan import decoder_flops
from .plan_cache import check_dtype, choose_layers
from .pooled import PooledChoice, choose_pooled
from .profile_router import check_choice, choose_router
from .progress import Reporter, steps
from .rejects import leave_out
from .report_run import draw_and_report
from .run_model import DTYPES, source_options
from .samples import Sample
from .schedule import describe_budget, run_budgets
from .search import MIN_SAMPLES, ClassData, Search, decide
from .search_workers import SearchCrew
from .sources import LoadResult, open_source
from .space import Candidate, Space, make_space
from .space_file import open_prototypes
from .strategies import STRATEGIES, strategy_facts
from .table import not_finite_words, router_words
from .worker_ledgers import take_over

T = TypeVar("T")

STAGES = ("samples", "label", "cache", "search", "profile")
"""Where a run can be told to stop, in order."""


@dataclass
class Times:
    """Wall-clock seconds per stage of this invocation; they go into summary.json, never into the profile."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - start


@dataclass(frozen=True)
class Pipeline:
    """One calibration run in one folder.

    Attributes:
        config: what was asked.
        folder: where it happens.
        report: where it is told.
    """

    config: RunConfig
    folder: RunFolder
    report: Reporter

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The classes of this run.

        Raises:
            UsageError: the file that was named cannot be read.
            BadDataError: it holds no taxonomy.
        """
        return open_taxonomy(own_file(self.config.taxonomy, self.folder.taxonomy))

    def run(
        self,
        *,
        until: str = "profile",
        fresh: bool = False,
        cache_workers: int = 1,
        search_workers: int = 1,
        access: Access | None = None,
    ) -> Outcome | None:
        """Run all stages up to ``until``; returns the outcome if that is the last one.

        Args:
            until: the last stage to run, one of :data:`STAGES`.
            fresh: delete the run's results first.
            cache_workers: processes that fill the feature cache; decides nothing but time.
            search_workers: processes that search, a class at a time; decides nothing but time either.
            access: how a labelling server is reached.

        Raises:
            ResourceError: another process works in the folder; with ``fresh``, nothing is deleted then.
            ClaspError: with the exit code of its kind; everything finished so far stays on disk.
        """
        times, access = Times(), access or Access()
        own = read_own(self.config, self.folder, fresh)  # before --fresh may take them away
        check_choice(self.config.profile_router, self.taxonomy)
        if fresh and self.folder.root.exists():
            _start_over(self.folder)
        self.folder.root.mkdir(parents=True, exist_ok=True)
        with times.stage("model"):
            loaded, budgets, spaces = self._prepare(access)
            keep_own(own)
        last = STAGES.index(until)
        with times.stage("samples"):
            data = self._samples()
        if last < STAGES.index("label"):
            return None
        with times.stage("label"):
            labels = self._labels(data.samples, access)
            classes = self._classes(data.samples, labels)
        if last < STAGES.index("cache"):
            return None
        with times.stage("cache"):
            cached = self._features(loaded, classes, cache_workers, spaces[0])
            classes, data = leave_out(cached.rejects, classes, data)
        if last < STAGES.index("search"):
            cached.store.close()
            return None
        ledger = Ledger.open(self.folder.ledger)
        try:
            with times.stage("search"):
                take_over(ledger, self.folder.left_ledgers)
                winners, pooled = self._search(loaded, cached.store, budgets, spaces, classes, ledger, search_workers)
            if last < STAGES.index("profile"):
                return None
            with times.stage("router"):
                router = choose_router(self.config, data.samples, labels, self.taxonomy)
            self.report.say(f"router: {router_words(router.facts)}")
            results = [
                BudgetResult(budget, space, decide(classes, won, space, ledger, self.config.seed))
                for budget, space, won in zip(budgets, spaces, winners, strict=True)
            ]
            facts = loaded.family.facts(loaded.model)
            findings = Findings(
                config=self.config,
                spec=loaded.spec,
                taxonomy=self.taxonomy,
                results=results,
                adaptive=self._adaptive(classes, results, ledger, facts),
                data=data,
                labels=labels,
                classes=classes,
                pooled=pooled,
                ledger=ledger,
                router=router,
                facts=facts,
                pictures=cached.pictures,
                seconds=times.seconds,
            )
            outcome = finish(findings, self.folder)
            draw_and_report(self.folder, loaded, cached.store, self.report)
            return outcome
        finally:
            ledger.close()
            cached.store.close()

    def _prepare(self, access: Access) -> tuple[LoadedModel, tuple[Budget, ...], tuple[Space, ...]]:
        """Load the model, check the budgets, and lock the configuration before anything is computed."""
        config = self.config
        _one_of("--strategy", config.strategy, STRATEGIES)
        _one_of("--router", config.router, BACKENDS)
        check_router(config, access, self.taxonomy)
        dtype = _one_of("--dtype", config.dtype, DTYPES) if config.dtype else None
        check_dtype(config.cache_dtype)
        self.report.say(f"model: loading {config.model}")
        loaded = load_model(config.model, device=config.device, dtype=dtype, revision=config.revision)
        budgets = run_budgets(
            config.budget,
            config.schedule,
            config.stages,
            loaded.spec.visual_tokens,
            loaded.spec.decoder_depth,
        )
        if config.adaptive_budget and config.stages:
            raise UsageError(
                "--adaptive-budget takes several named budgets, and --stage gives one schedule of its own: leave "
                "--stage out and name the budgets, for example --budget 2/9 --budget 1/3 --budget 1/9"
            )
        if config.adaptive_budget and len(budgets) < 2:
            raise UsageError(
                f"--adaptive-budget spends the first budget's compute on classes with different budgets, but the only "
                f"one is --budget {config.budget}; give others beside it, for example --budget 2/9 --budget 1/3 "
                "--budget 1/9"
            )
        for budget in budgets:
            self.report.say(f"budget: {describe_budget(budget)}")
        if prunes_before_decoder(budgets[0].stages):
            raise UsageError(
                "a stage before the decoder selects by the vision encoder's [CLS] attention, which the feature cache "
                "does not hold: such a schedule can be run and planned, but not calibrated. Start at layer 1 or later, "
                "for example --stage 2:300"
            )
        own = open_prototypes(own_file(config.prototypes, self.folder.prototypes))
        space = make_space(loaded.spec.default_layer, config.rhos, own, loaded.spec.vision_depth)
        choose_layers(config.cache_layers, loaded.family.facts(loaded.model), space)
        facts = {
            **config.to_dict(),
            "model_fingerprint": loaded.spec.fingerprint,
            "processor": processor_sha256(loaded),
            "space": space.sha256,
            **router_facts(config, self.taxonomy),
            **strategy_facts(config.strategy),
            "stages_used": _pairs(budgets[0]),
            **({"budgets_used": [[one.nominal, _pairs(one)] for one in budgets]} if len(budgets) > 1 else {}),
        }
        if not self.folder.samples.exists():  # a mistyped --data must not leave a folder locked to it
            open_source(source_options(config, self.folder))
        lock(self.folder.root, facts)
        return loaded, budgets, budget_spaces(space, budgets)

    def _samples(self) -> LoadResult:
        """Read the data once; afterwards the list on disk is what counts."""
        if not self.folder.samples.exists():
            source = open_source(source_options(self.config, self.folder))
            write_samples(self.folder, source.load(progress=self.report.rows()))
        data = read_samples(self.folder)
        self.report.say(f"samples: {len(data.samples)} read, {len(data.quarantine)} quarantined")
        for row in data.quarantine[:5]:
            self.report.warn(f"quarantined {row.where}: {row.reason}")
        if len(data.quarantine) > 5:
            self.report.warn(f"... and {len(data.quarantine) - 5} more, all in {self.folder.samples}")
        return data

    def _labels(self, samples: Sequence[Sample], access: Access) -> dict[str, Label]:
        """Label the prompts; returns sample uid -> label."""
        with self.report.task("label", len(samples), "prompts") as advance:
            labels = label_samples(self.config, access, self.taxonomy, samples, self.folder.labels, steps(advance))
        tell_labels(list(labels.values()), len(samples), self.taxonomy, self.report)
        return labels

    def _classes(self, samples: Sequence[Sample], labels: dict[str, Label]) -> list[ClassData]:
        """The samples of every class; a class that is short of them is told."""
        classes = take_classes(samples, labels, self.taxonomy.ids, self.config)
        for data in classes:
            taken = len(data.search) + len(data.holdout)
            if taken < self.config.per_class:
                self.report.warn(
                    f"class {data.intent!r} has {taken} samples, {self.config.per_class} were asked for"
                    + ("; it keeps the default" if min(len(data.search), len(data.holdout)) < MIN_SAMPLES else "")
                )
        return classes

    def _features(self, loaded: LoadedModel, classes: Sequence[ClassData], workers: int, space: Space) -> Cached:
        """Make sure the cache holds every picture that can be used."""
        used = {s.image_sha256: s.image for c in classes for s in (*c.search, *c.holdout)}
        root = source_options(self.config, self.folder).sample_root
        pictures = dict(sorted(used.items()))
        return fill_cache(self.config, loaded, pictures, root, self.folder, self.report, workers, space)

    def _search(
        self,
        loaded: LoadedModel,
        store: FeatureStore,
        budgets: Sequence[Budget],
        spaces: Sequence[Space],
        classes: Sequence[ClassData],
        ledger: Ledger,
        workers: int,
    ) -> tuple[list[dict[str, Candidate]], PooledChoice | None]:
        """Search every class that has enough samples, then score what is compared on the holdout.

        That is the winner and the default of every budget, the stock model, and the best single configuration for all
        classes at the first budget. Returns the winners by class, budget by budget.
        """
        config = self.config
        evaluator = FiniteEvaluator(Evaluator(loaded, store, budgets[0].stages, config.max_new_tokens))
        enough = [c for c in classes if min(len(c.search), len(c.holdout)) >= MIN_SAMPLES]
        bounds = Search(spaces, evaluator, ledger, config.block_size, lambda count: None, config.seed)
        most = 2 + 2 * len(spaces)  # of what is compared on a holdout
        total = sum(bounds.bound(c, config.strategy) for c in enough) + sum(most * len(c.holdout) for c in classes)
        with (
            self.report.task("search", total, "evaluations") as advance,
            SearchCrew(config, self.folder, spaces, ledger, workers, advance) as crew,
        ):
            search = Search(spaces, evaluator, ledger, config.block_size, crew.replayed, config.seed)
            crew.search(enough)
            won = {data.intent: search.winners(data, config.strategy) for data in enough}
            winners = [{intent: found[number] for intent, found in won.items()} for number in range(len(spaces))]
            pooled = choose_pooled(spaces[0], ledger, list(won))
            compared = [(data, _compared(data, spaces, winners, pooled)) for data in classes]
            advance(sum((most - 1 - len(found)) * len(data.holdout) for data, found in compared))  # saved
            crew.holdout(compared)
            for data, candidates in compared:
                search.holdout(data, candidates)
        if odd := not_finite_words({"intent": c.intent, "not_finite": not_finite(ledger, c.intent)} for c in classes):
            self.report.warn(odd)
        check_default(classes, [space.default for space in spaces], ledger)
        return winners, pooled

    def _adaptive(
        self, classes: Sequence[ClassData], results: Sequence[BudgetResult], ledger: Ledger, facts: FamilyFacts
    ) -> Adaptive | None:
        """Budgets of their own for the classes, where that was asked for."""
        if not self.config.adaptive_budget:
            return None
        costs = [decoder_flops(result.budget.stages, facts) for result in results]
        return judge_adaptive(classes, results, ledger, costs, self.config.seed)


def _compared(
    data: ClassData, spaces: Sequence[Space], winners: Sequence[dict[str, Candidate]], pooled: PooledChoice | None
) -> list[Candidate]:
    """What is scored on a class's holdout: default and winner of every budget, and the pooled configuration."""
    pairs = zip(spaces, winners, strict=True)
    found = [each for space, best in pairs for each in (space.default, best.get(data.intent, space.default))]
    return list(dict.fromkeys([*found, *([pooled.candidate] if pooled else [])]))


def _pairs(budget: Budget) -> list[list[int]]:
    return [[stage.after_layer, stage.keep] for stage in budget.stages]


def _one_of(option: str, name: str, rows: Mapping[str, T]) -> T:
    """Look a name up before anything is computed; UsageError lists the names."""
    if name not in rows:
        raise UsageError(f"{option} {name!r} does not exist; there are: {', '.join(rows)}")
    return rows[name]


def _start_over(folder: RunFolder) -> None:
    """Delete a run's own files, and nothing else that may lie in its folder.

    Raises:
        ResourceError: another process writes one of them; nothing is deleted.
    """
    files = (
        folder.root / "config.lock.json",
        folder.taxonomy,
        folder.prototypes,
        folder.samples,
        folder.rejects,
        folder.labels,
        folder.ledger,
        *folder.left_ledgers,
        folder.study,
        folder.report,
        folder.gallery,
        *folder.further_galleries,
        folder.summary,
    )
    stores = (folder.features, *folder.left_by_workers)
    logs = (
        *(folder.rejects, folder.labels, folder.ledger, folder.study, *folder.left_ledgers),
        *(store / MANIFEST for store in stores),
    )
    with ExitStack() as held:
        for log in logs:
            held.enter_context(hold_lock(log))
        for path in files:
            path.unlink(missing_ok=True)
        for path in (folder.images, *stores, folder.profile.parent, *folder.further_profiles):
            shutil.rmtree(path, ignore_errors=True)
