"""Who labelled a run's prompts, and where rules overruled a teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from claspkit.profiles.errors import shorten
from claspkit.router.labels import UNREAD, Label

from .samples import Sample

_REPLAY = "replay:"
_SHOWN = 200  # characters of a prompt
EXAMPLES = 5
"""Overruled prompts that are shown of a kind."""


def label_facts(
    samples: Sequence[Sample], recorded: Mapping[str, Label], labels: Mapping[str, Label], intents: Sequence[str]
) -> dict[str, Any]:
    """Count a run's labels, as JSON.

    Args:
        samples: all that were read.
        recorded: sample uid -> what the labeller said.
        labels: the same after the rules that overrule it.
        intents: the class ids, in order; others are left out.

    Returns:
        ``labelled`` and ``samples``; ``sources`` (who decided -> samples, the most frequent first); ``unread`` (answers
        of a teacher that could not be read); ``classes``: rows {intent, labelled, hinted, agree}, the samples with this
        label, those that the data itself says are of the class, and those of them that have the label; ``overruled``
        and ``overrides``: rows {rule, said, now, samples, prompts}, the most frequent first.
    """
    chosen = {uid: label for uid, label in labels.items() if label.intent in intents}
    mine = [sample for sample in samples if sample.uid in chosen]
    hints = Counter(sample.intent_hint for sample in mine)
    agree = Counter(sample.intent_hint for sample in mine if sample.intent_hint == chosen[sample.uid].intent)
    counts = Counter(label.intent for label in chosen.values())
    overruled: dict[tuple[str, str, str], list[str]] = {}
    for sample in mine:
        said, now = recorded.get(sample.uid), chosen[sample.uid]
        if said is not None and _bare(said.source) != _bare(now.source):
            overruled.setdefault((_bare(now.source), said.intent, now.intent), []).append(sample.prompt)
    return {
        "samples": len(samples),
        "labelled": len(mine),
        "sources": dict(Counter(_bare(label.source) for label in chosen.values()).most_common()),
        "unread": sum(label.source.endswith(UNREAD) for label in chosen.values()),
        "classes": [
            {"intent": intent, "labelled": counts[intent], "hinted": hints[intent], "agree": agree[intent]}
            for intent in intents
        ],
        "overruled": sum(map(len, overruled.values())),
        "overrides": [
            {
                "rule": rule,
                "said": said,
                "now": now,
                "samples": len(prompts),
                "prompts": [shorten(prompt, _SHOWN) for prompt in list(dict.fromkeys(prompts))[:EXAMPLES]],
            }
            for (rule, said, now), prompts in sorted(overruled.items(), key=lambda item: (-len(item[1]), item[0]))
        ],
    }


def _bare(source: str) -> str:
    """Who decided: a run's own log is read as recorded answers, which its labels' sources would say."""
    return source.removeprefix(_REPLAY)
