"""Labelling many prompts: each different prompt once, and nothing twice after an interruption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from claspkit.profiles.errors import CorruptError
from claspkit.profiles.records import RecordLog

from .backend_rules import rule_label, rules_of
from .backends import Backend
from .labels import Label
from .prompts import prompt_digest
from .rule_set import RuleSet

Progress = Callable[[int, int], None]


def label_prompts(
    prompts: Sequence[str],
    backend: Backend,
    log_path: Path | None,
    *,
    overrides: bool,
    progress: Progress | None = None,
    enough: Callable[[Label], bool] | None = None,
) -> list[Label]:
    """Label prompts, one label each, in order.

    Prompts with one digest (:func:`.prompts.prompt_digest`) are labelled once. With a log, labels of the same
    backend, template and taxonomy are taken from it, and each further block is on disk before the next one starts:
    a killed run loses at most one block.

    Args:
        prompts: any texts.
        backend: who labels.
        log_path: a record log, made if missing; None keeps nothing.
        overrides: let rules that leave no doubt overrule the backend; the log keeps the backend's own labels.
        progress: called with (prompts labelled so far, prompts in all).
        enough: called with each prompt's label, in order; once it says so, the result ends with that label and no
            further block is asked. Which labels are returned does not depend on the size of blocks.

    Raises:
        CorruptError: the log is damaged.
        ResourceError: another process labels into the log, or the disk is full.
    """
    digests = [prompt_digest(prompt) for prompt in prompts]
    copies = Counter(digests)
    texts = dict(zip(reversed(digests), reversed(prompts), strict=True))  # the first of each kind stays
    with RecordLog(log_path) if log_path is not None else nullcontext() as log:
        known = _known(log, backend) if log is not None else {}
        waiting = [key for key in copies if key not in known]
        done = len(prompts) - sum(copies[key] for key in waiting)
        _tell(progress, done, len(prompts))
        final = _Final(digests, texts, known, rules_of(backend.taxonomy) if overrides else None, enough)
        for start in range(0, len(waiting), backend.block):
            if final.advance():
                break
            block = waiting[start : start + backend.block]
            labels = dict(zip(block, backend.label([texts[key] for key in block]), strict=True))
            if log is not None:
                common = _key(backend)
                log.append({**common, "prompt": key, "label": label.to_dict()} for key, label in labels.items())
            known.update(labels)
            done += sum(copies[key] for key in block)
            _tell(progress, done, len(prompts))
        final.advance()
    return final.labels


class _Final:
    """The labels that are returned, of the prompts from the first on whose label is known."""

    def __init__(
        self,
        digests: Sequence[str],
        texts: Mapping[str, str],
        known: Mapping[str, Label],
        overrides: RuleSet | None,
        enough: Callable[[Label], bool] | None,
    ) -> None:
        self.labels: list[Label] = []
        self._digests, self._texts, self._known = digests, texts, known
        self._overrides, self._enough = overrides, enough
        self._settled: dict[str, Label] = {}
        self._full = False

    def advance(self) -> bool:
        """Take what has become known; whether that is enough."""
        while not self._full and len(self.labels) < len(self._digests):
            key = self._digests[len(self.labels)]
            if key not in self._known:
                break
            if key not in self._settled:
                rules = self._overrides
                rule = rules.match(self._texts[key], overriding=True) if rules else None
                self._settled[key] = rule_label(rule, rules) if rule and rules else self._known[key]
            self.labels.append(self._settled[key])
            self._full = self._enough is not None and self._enough(self.labels[-1])
        return self._full


def _key(backend: Backend) -> dict[str, str]:
    """What must be equal for a recorded label to be used again, beside the prompt."""
    return {"backend": backend.source, "template": backend.template, "taxonomy": backend.taxonomy.labels_digest}


def _known(log: RecordLog, backend: Backend) -> dict[str, Label]:
    """Prompt digest -> label, of the log's records that this backend would make again."""
    key, labels = _key(backend), {}
    for number, record in enumerate(log.found, 1):
        if all(record.get(name) == value for name, value in key.items()):
            try:
                labels[_text(record["prompt"])] = Label.from_dict(record["label"], backend.taxonomy)
            except (KeyError, AttributeError, CorruptError) as error:
                raise CorruptError(f"{log.path}, line {number}: {error}. Move the file away to label anew.") from None
    return labels


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise CorruptError("a prompt digest must be text")
    return value


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
