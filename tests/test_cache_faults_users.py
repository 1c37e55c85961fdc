"""Two users of one store: of writers one wins and the other says so; another model's features are refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fault_counts import tell
from feature_stores import assert_holds, fill, make_key

from claspkit.cache import FeatureStore
from claspkit.profiles.errors import MismatchError

RACERS = 3
# Opens the store when told to, says whether it may write, and holds the store until told to end.
RACE = """
import sys
from pathlib import Path
from claspkit.cache import FeatureStore
from claspkit.profiles.errors import ResourceError
from feature_stores import LAYERS, features_of, make_key, name_of
for line in sys.stdin:
    folder, image = line.split()
    try:
        with FeatureStore.open(folder, make_key(), write=True) as store:
            print("won", flush=True)
            sys.stdin.readline()
            with store.writer() as writer:
                writer.add(name_of(int(image)), features_of(int(image)))
            print("written", flush=True)
    except ResourceError as error:
        print(error, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.long)])
def test_of_several_writers_one_wins_and_the_others_name_it(rounds: int, tmp_path: Path) -> None:
    """Processes that open one new store at the same moment; the losers name the winner's process."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        for _ in range(RACERS)
    ]
    winners = set()
    try:
        for number in range(rounds):
            folder = tmp_path / f"store-{number}"
            for image, racer in enumerate(racers):
                assert racer.stdin is not None
                print(folder, image, file=racer.stdin, flush=True)
            said = [racer.stdout.readline() for racer in racers if racer.stdout is not None]
            assert said.count("won\n") == 1
            winner = said.index("won\n")
            winners.add(winner)
            for racer in racers:
                print(file=racer.stdin, flush=True)
            won = racers[winner]
            assert won.stdout is not None
            assert won.stdout.readline() == "written\n"
            for place, line in enumerate(said):
                # Who was there first may not have written its name yet when the others met its lock.
                named = f"in use by process {won.pid} " in line or "in use by another process" in line
                assert place == winner or named, line
            assert_holds(folder, [winner])
    finally:
        for racer in racers:
            racer.communicate()
    tell(f"{RACERS} writers at once", rounds, f"{rounds} times one won, the others were told; {len(winners)} winners")


OTHERS: dict[str, Any] = {
    "model_id": "another",
    "revision": "abc123",
    "fingerprint": "9" * 64,
    "processor_sha256": "8" * 64,
    "image_backend": "torchvision",
    "dtype": "bfloat16",
    "layers": (0, 2),
    "tokens": 25,
    "width": 17,
}


@pytest.mark.parametrize("field", OTHERS)
def test_a_store_made_otherwise_is_refused_with_the_field(field: str, tmp_path: Path) -> None:
    """Every field of the key, reading and writing: the field with both values, no other field, nothing changed."""
    fill(tmp_path, range(1))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*[0-9l]")}
    other = replace(make_key(), **{field: OTHERS[field]})
    for write in (False, True):
        with pytest.raises(MismatchError) as caught:
            FeatureStore.open(tmp_path, other, write=write)
        wanted, got = other.to_dict()[field], make_key().to_dict()[field]
        lines = [line.strip() for line in str(caught.value).splitlines() if ": wanted " in line]
        assert [line.split(":")[0] for line in lines] == [field]
        assert repr(wanted) in lines[0] or str(wanted)[:40] in lines[0]
        assert repr(got) in lines[0] or str(got)[:40] in lines[0]
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*[0-9l]")}
