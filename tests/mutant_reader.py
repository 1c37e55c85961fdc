"""Read feature stores that may be hostile, one folder per line of standard input; one answer line each.

An answer is ``refused``, ``read`` (every picture came, with its own values), ``other`` (a picture came with other
values) or the name of an exception that is none of ours. ``freeze`` and ``crash`` show the parent what it must see.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from feature_stores import LAYERS, features_of, name_of

from claspkit.cache import FeatureStore
from claspkit.profiles.errors import CorruptError


def answer(folder: Path) -> str:
    """Verify the store and read all its pictures; the SHA-256 of the file fits whatever it holds."""
    try:
        with FeatureStore.open(folder) as store:
            whole = store.verify().ok
            right = [features_of(image, store.key.dtype) for image in range(2)]
            same = [np.array_equal(store.read(name_of(image), LAYERS), right[image]) for image in range(2)]
    except CorruptError:
        return "refused"
    except Exception as error:
        return type(error).__name__
    return "read" if whole and all(same) else "other"


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        if line == "freeze\n":
            time.sleep(3600)
        if line == "crash\n":
            os.kill(os.getpid(), signal.SIGSEGV)
        print(answer(Path(line.rstrip("\n"))), flush=True)


if __name__ == "__main__":
    main()
