"""Fill a feature store slowly, for tests that kill this process: ``fill_store.py FOLDER PICTURES PER_SHARD SECONDS``.

Prints a line per picture added, so that the tests can see how far a run got.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from feature_stores import features_of, make_key, name_of, shard_size

from claspkit.cache import FeatureStore


def main(folder: Path, pictures: int, per_shard: int, pause: float) -> None:
    """Add what is missing, waiting ``pause`` seconds after each picture."""
    with FeatureStore.open(folder, make_key(), write=True) as store:
        missing = set(store.missing(name_of(image) for image in range(pictures)))
        with store.writer(shard_bytes=shard_size(per_shard), expected=len(missing)) as writer:
            for image in range(pictures):
                if name_of(image) in missing:
                    writer.add(name_of(image), features_of(image))
                    print(image, flush=True)
                    time.sleep(pause)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
