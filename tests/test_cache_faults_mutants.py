"""A thousand damaged and malicious files whose manifest vouches for them, each opened in a child with a time limit."""

from __future__ import annotations

import random
import selectors
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from fault_counts import tell
from feature_stores import features_of, make_key, name_of, plant

from claspkit.cache.chunks import ImageWriter
from claspkit.cache.layout import create_dataset, finish_dataset, open_hdf5
from claspkit.cache.quantise import quantise

SCRIPT = Path(__file__).with_name("mutant_reader.py")
LIMIT_SECONDS = 20.0
NUMBERS = (0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1, (1 << 64) - 8)


class Readers:
    """One child after the other: it reads stores until it dies or takes too long, then the next takes over."""

    def __init__(self) -> None:
        self.started = 0
        self._child: subprocess.Popen[str] | None = None

    def ask(self, line: str, seconds: float = LIMIT_SECONDS) -> str:
        """The child's answer about one store, or ``crashed`` or ``hung``."""
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        print(line, file=child.stdin, flush=True)
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            said = child.stdout.readline() if ready.select(seconds) else "hung"
        if said in {"", "hung"}:
            self.close()
        return said.strip() or "crashed"

    def close(self) -> None:
        """End the child, however it is."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[str]:
        self.started += 1
        command = [sys.executable, str(SCRIPT)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self._child


def mutated(sound: bytes, chance: random.Random, structures: list[int]) -> bytes:
    """One to six random changes, most of them where HDF5 keeps its structures; the length is kept at least."""
    data = bytearray(sound)
    for _ in range(chance.randint(1, 6)):
        offset = chance.choice(structures) if chance.random() < 0.85 else chance.randrange(len(data))
        offset = min(offset, len(data) - 1)  # an earlier change may have made it shorter
        kind = chance.randrange(6)
        if kind == 0:
            data[offset] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[offset] = chance.randrange(256)
        elif kind == 2:
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice(NUMBERS) & ((1 << 8 * size) - 1)
            data[offset : offset + size] = number.to_bytes(size, "little")
        elif kind == 3:  # an address that points to a structure: of another kind, or back to itself
            data[offset : offset + 8] = chance.choice(structures).to_bytes(8, "little")
        elif kind == 4:
            source, size = chance.choice(structures), chance.randint(1, 64)
            data[offset : offset + size] = data[source : source + size]
        else:
            del data[offset : offset + chance.randint(1, 16)]
    return bytes(data)


def write_sound(path: Path, dtype: str) -> list[bytes]:
    """A shard of two pictures as the writer makes it; returns the values of its chunks."""
    values = []
    with open_hdf5(str(path), "w") as file:
        dataset = create_dataset(file, make_key(dtype))
        for image in range(2):
            features = features_of(image, dtype)
            ImageWriter(dataset).append(features)
            values += [layer.tobytes() for layer in (quantise(features)[0] if dtype == "int8" else features)]
        finish_dataset(dataset, [name_of(image) for image in range(2)])
    return values


def structure_offsets(data: bytes, values: list[bytes]) -> list[int]:
    """The places that hold no feature values."""
    taken: set[int] = set()
    for chunk in values:
        start = data.index(chunk)
        taken.update(range(start, start + len(chunk)))
    return [offset for offset in range(len(data)) if offset not in taken]


def write(content: bytes, path: Path) -> None:
    """Make a mutant's file."""
    path.write_bytes(content)


def count_outcomes(folder: Path, cases: int, seed: int, dtype: str = "float16") -> tuple[Counter[str], int]:
    """Make and read that many mutants; (outcomes, children that were needed)."""
    chance, readers = random.Random(seed), Readers()
    sound = folder / "sound.h5"
    values = write_sound(sound, dtype)
    data = sound.read_bytes()
    structures = structure_offsets(data, values)
    outcomes: Counter[str] = Counter()
    try:
        for number in range(cases):
            content = mutated(data, chance, structures)
            store = plant(folder / f"mutant-{number}", partial(write, content), key=make_key(dtype))
            outcomes[readers.ask(str(store))] += 1
            shutil.rmtree(store)
    finally:
        readers.close()
    return outcomes, readers.started


@pytest.mark.parametrize(
    ("dtype", "cases"),
    [
        ("float16", 60),
        ("int8", 60),
        pytest.param("float16", 1000, marks=pytest.mark.long),
        pytest.param("int8", 1000, marks=pytest.mark.long),
    ],
)
def test_no_mutant_crashes_hangs_or_gets_past_as_another_error(dtype: str, cases: int, tmp_path: Path) -> None:
    """Refused as CorruptError, or read with the right values, although its manifest vouches for size and SHA-256."""
    outcomes, children = count_outcomes(tmp_path, cases, cases, dtype)
    tell(f"mutated {dtype} shard, manifest adjusted", cases, {**outcomes, "children needed": children})
    assert outcomes.keys() <= {"refused", "read"}
    assert children == 1
    assert outcomes["refused"] > cases // 2
    assert outcomes["read"] > 0


def test_a_child_that_crashes_or_hangs_is_noticed_and_replaced(tmp_path: Path) -> None:
    """The time limit and the restart are real: the next store is read by the next child."""
    content = tmp_path / "sound.h5"
    write_sound(content, "float16")
    sound, readers = plant(tmp_path / "sound", partial(write, content.read_bytes())), Readers()
    try:
        assert [readers.ask(str(sound)), readers.ask("crash"), readers.ask(str(sound))] == ["read", "crashed", "read"]
        assert [readers.ask("freeze", 0.2), readers.ask(str(sound))] == ["hung", "read"]
        assert readers.started == 3
    finally:
        readers.close()
