"""How far pruning is from its oracles: every family, kind of batch and attention backend, on tiny random models.

Identity: nothing pruned against the stock model, absolute, over the prompt and 16 decode steps; it must be 0. Removal:
tokens removed against tokens masked, relative to the largest logit; at most 1e-5.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import transformers
from _common import Row, show
from family_models import CASES, FAMILY_MODELS
from family_oracles import identity_difference, removal_difference

STAGES = ((1, 12), (2, 7), (3, 3))
BAR = 1e-5


def main() -> None:
    """Print one row per family, kind and backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    rows = []
    for family, kind in CASES:
        tiny = FAMILY_MODELS[family]
        for backend in ("sdpa", "eager"):
            model, batch = tiny.build(backend), tiny.batch(kind)
            name = f"{family}, {kind} ({len(batch['input_ids'])}), {backend}"
            same = identity_difference(model, batch)
            rows.append(Row(f"{name}: identity", same, "logit", "0", same == 0.0))
            removed = removal_difference(model, batch, tiny, STAGES)
            rows.append(Row(f"{name}: removal", removed, "of largest logit", f"<= {BAR:g}", removed <= BAR))
    show(f"Oracles, transformers {transformers.__version__}", rows, options.json)


if __name__ == "__main__":
    main()
