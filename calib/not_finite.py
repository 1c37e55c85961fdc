"""What a run says about scores that are NaN or infinite: marks per class, and the end of a run without a default."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from claspkit.profiles.errors import NotFiniteError

from .finite import all_finite, count_odd
from .ledger import HOLDOUT, SEARCH, UNPRUNED, Ledger
from .search import ClassData
from .space import Candidate


def not_finite(ledger: Ledger, intent: str) -> list[dict[str, Any]]:
    """The candidates of a class with scores that are not finite, as JSON: ``candidate``, ``split`` and ``samples``.

    The stock model is among them by the name :data:`calib.ledger.UNPRUNED`. ``samples`` counts such scores.
    """
    found: Counter[tuple[str, str]] = Counter()
    for entry in ledger.entries():
        if entry.intent == intent and (odd := count_odd(entry.scores)):
            found[entry.candidate, entry.split] += odd
    return [
        {"candidate": candidate, "split": split, "samples": count}
        for (candidate, split), count in sorted(found.items())
    ]


def unpruned_reason(ledger: Ledger, intent: str) -> str | None:
    """Why the stock model has no score on a class's holdout; None where it has one, or there is no holdout."""
    scores = ledger.scores(HOLDOUT, intent, UNPRUNED)
    odd = count_odd(scores)
    return f"the unpruned model gave NaN or infinity on {odd} of {len(scores)} holdout samples" if odd else None


def check_default(classes: Sequence[ClassData], defaults: Sequence[Candidate], ledger: Ledger) -> None:
    """Stop a run in which, at one of its budgets, no class has a default to compare with.

    Args:
        classes: the samples used.
        defaults: the configuration without calibration at every budget.
        ledger: with the finished search and its holdout.

    Raises:
        NotFiniteError: at one budget the default's scores are not all finite in any class that has some.
    """
    for default in defaults:
        found = [
            [score for split in (SEARCH, HOLDOUT) for score in ledger.scores(split, data.intent, default.id)]
            for data in classes
        ]
        scored = [scores for scores in found if scores]
        if not scored or any(map(all_finite, scored)):
            continue
        odd, total = sum(map(count_odd, scored)), sum(map(len, scored))
        leave = " Or leave this --budget out." if len(defaults) > 1 else ""
        raise NotFiniteError(
            f"the default configuration, {default.id}, gave NaN or infinity in every class, on {odd} of {total} "
            "samples: there is nothing to compare a candidate with. The model overflows in its present dtype, most "
            "likely float16; calibrate with --dtype float32 or --dtype bfloat16, into a new folder (--out) or with "
            f"--fresh.{leave}"
        )
