"""How the profile reader takes 20,000 broken profiles: what it says of them, and how long that takes.

    python benchmarks/profile_fuzz.py [--cases 20000] [--seed 0] [--json]

Every case is a valid profile, of any version so far, that was damaged in one to three places or in its bytes, and lies
as ``profile.json`` in a folder. Timed is ``read_profile`` on that folder, in processor time. Whether the answers are
right is judged by ``tests/test_profiles_fuzz.py``, on the same cases.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from _broken_profiles import Broken, broken_profile
from _common import Row, show

from claspkit.profiles.errors import ProfileError
from claspkit.profiles.files import read_profile

BAR_MS = 100.0
REFUSED, OF_THE_FILE, TAKEN, OTHER = "refused, naming a field", "refused as a file", "taken", "another exception"


def outcome(folder: Path, case: Broken) -> tuple[str, float]:
    """What the reader makes of a case, and milliseconds of processor time."""
    (folder / "profile.json").write_bytes(case.data)
    start = time.process_time()
    try:
        read_profile(folder)
        found = TAKEN
    except ProfileError as error:
        found = OF_THE_FILE if error.field == "(file)" else REFUSED
    except Exception:  # what the row below counts
        found = OTHER
    return found, 1e3 * (time.process_time() - start)


def measure(options: argparse.Namespace) -> list[Row]:
    """All rows."""
    counts: Counter[str] = Counter()
    times: list[float] = []
    with TemporaryDirectory() as place:
        folder = Path(place)
        outcome(folder, broken_profile(0, options.seed))  # whatever is loaded at the first call is loaded now
        for number in range(options.cases):
            found, spent = outcome(folder, broken_profile(number, options.seed))
            counts[found] += 1
            times.append(spent)
    slowest = max(range(len(times)), key=times.__getitem__)
    words = "; ".join(broken_profile(slowest, options.seed).steps)
    ranked = sorted(times)
    return [
        Row("cases", options.cases, ""),
        *(Row(name, counts[name], "cases") for name in (REFUSED, OF_THE_FILE, TAKEN)),
        Row(OTHER, counts[OTHER], "cases", "0", counts[OTHER] == 0),
        Row("median", ranked[len(ranked) // 2], "ms"),
        Row("99th percentile", ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)], "ms"),
        Row(f"slowest, case {slowest} ({words[:60]})", ranked[-1], "ms", f"<= {BAR_MS:g}", ranked[-1] <= BAR_MS),
    ]


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="at least 1")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if options.cases < 1:
        parser.error("--cases must be at least 1")
    return options


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and print."""
    options = parse(arguments)
    show("Reading broken profiles", measure(options), options.json)


if __name__ == "__main__":
    main()
