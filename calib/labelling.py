"""Who labels a run's prompts, how many of them, and what is told about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.taxonomy import Taxonomy
from claspkit.router.backend_replay import read_answers
from claspkit.router.backends import HEAVY, BackendOptions, make_backend
from claspkit.router.endpoint import check_endpoint
from claspkit.router.labels import Label
from claspkit.router.run import Progress, label_prompts

from .config import RunConfig
from .outcome import label_source
from .progress import Reporter
from .samples import Sample, sample_order


@dataclass(frozen=True)
class Access:
    """How a labelling server is reached, which changes no label and is not kept.

    Attributes:
        key_variable: environment variable that holds its key; None for the usual one, "" for no key.
        concurrency: requests under way at a time.
    """

    key_variable: str | None = None
    concurrency: int = BackendOptions.concurrency


def router_options(config: RunConfig, access: Access, taxonomy: Taxonomy) -> BackendOptions:
    """What the run's backend is told; UsageError for an option that no backend takes."""
    return BackendOptions(
        model=config.router_model,
        device=config.device,
        mode=config.router_mode,
        endpoint=config.router_endpoint,
        key_variable=access.key_variable,
        concurrency=access.concurrency,
        answers=Path(config.router_answers) if config.router_answers else None,
        taxonomy=taxonomy,
    )


def check_router(config: RunConfig, access: Access, taxonomy: Taxonomy) -> None:
    """Refuse options that cannot be, before anything is computed or written.

    Raises:
        ClaspError: what the options or the backend say about them; a model is not loaded for that.
    """
    options = router_options(config, access, taxonomy)
    if config.router not in HEAVY:
        make_backend(config.router, options)


def router_facts(config: RunConfig, taxonomy: Taxonomy) -> dict[str, str]:
    """What decides labels beside the configuration, or in another form: digests of recorded answers, student, taxonomy;
    an endpoint as it is asked, so that another spelling of it is no other run.

    Raises:
        UsageError: the file of answers or the student cannot be read.
        ProfileError: the student's file holds none.
    """
    facts = {} if config.taxonomy is None else {"taxonomy_sha256": taxonomy.sha256}
    if config.router_endpoint is not None:
        facts["router_endpoint"] = check_endpoint(config.router_endpoint)
    if config.router == "student":
        student = make_backend(config.router, BackendOptions(model=config.router_model, taxonomy=taxonomy))
        facts["router_student_sha256"] = student.template
    if config.router == "replay" and config.router_answers is not None:
        facts["router_answers_sha256"] = sha256_hex(read_answers(Path(config.router_answers)))
    return facts


def label_samples(
    config: RunConfig,
    access: Access,
    taxonomy: Taxonomy,
    samples: Sequence[Sample],
    log: Path | None,
    progress: Progress,
) -> dict[str, Label]:
    """Label the prompts; returns sample uid -> label, of all samples or of as many as fill the classes.

    Until the classes are full means: in the order in which classes take their samples, up to and with the one that
    fills the last class. The classes then hold what they would hold had all prompts been labelled.
    """
    backend = make_backend(config.router, router_options(config, access, taxonomy))
    ordered = sample_order(samples, config.seed) if config.label_until_full else samples
    labels = label_prompts(
        [sample.prompt for sample in ordered],
        backend,
        log,
        overrides=config.router != "rules",
        progress=progress,
        enough=_quota(config.per_class, taxonomy.ids) if config.label_until_full else None,
    )
    return {sample.uid: label for sample, label in zip(ordered, labels, strict=False)}


def tell_labels(labels: Sequence[Label], samples: int, taxonomy: Taxonomy, report: Reporter) -> None:
    """Print how labels are distributed and who gave them."""
    if len(labels) < samples:
        report.say(f"labels: every class is full after {len(labels)} of {samples} samples")
    by_class = Counter(label.intent for label in labels)
    by_source = Counter(label_source(label) for label in labels)
    report.say("labels: " + ", ".join(f"{intent} {by_class[intent]}" for intent in taxonomy.ids))
    report.say("labelled by: " + ", ".join(f"{source} {count}" for source, count in by_source.most_common()))
    flagged = sum(label.flagged for label in labels)
    if flagged:
        report.warn(
            f"{flagged} of {len(labels)} samples have prompts whose answer from the teacher could not be read; they "
            f"count as {taxonomy.default!r}, with confidence 0"
        )


def _quota(per_class: int, intents: Sequence[str]) -> Callable[[Label], bool]:
    """Counts labels; true once every class has ``per_class``."""
    missing = dict.fromkeys(intents, per_class)

    def full(label: Label) -> bool:
        if label.intent in missing:
            missing[label.intent] -= 1
            if missing[label.intent] == 0:
                del missing[label.intent]
        return not missing

    return full
