"""The record log under torn writes, flipped bits, full disks, kills and two writers."""

import errno
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claspkit.profiles.errors import CorruptError, ResourceError, UsageError
from claspkit.profiles.records import RecordLog, encode_record, hold_lock, open_log, read_records

RECORDS: list[dict[str, Any]] = [{"n": number, "text": f"line\n{number} é", "score": number / 7} for number in range(6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    with RecordLog(path) as log:
        log.append(RECORDS[:2])
        log.append(RECORDS[2:])
    return path


def test_a_line_is_checksum_and_canonical_json() -> None:
    body = b'{"a":1}'
    assert encode_record({"a": 1}) == b"%08x %s\n" % (zlib.crc32(body), body)


def test_what_was_appended_is_read(path: Path) -> None:
    assert read_records(path) == RECORDS
    log, records = open_log(path)
    with log:
        assert records == RECORDS
        assert log.dropped == 0
        log.append([])
        log.append(iter([{"n": 6}]))
    assert read_records(path) == [*RECORDS, {"n": 6}]


def test_torn_tail_at_every_byte_of_the_last_three_records(path: Path) -> None:
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for size in range(ends[2], len(data)):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        assert read_records(path) == RECORDS[:whole]
        log, records = open_log(path)
        with log:
            assert records == RECORDS[:whole]
            assert path.stat().st_size == ends[whole - 1]
            log.append(RECORDS[whole:])
        assert path.read_bytes() == data


def test_every_bit_flip_is_detected_or_costs_only_the_tail(path: Path) -> None:
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    messages = set()
    for index in range(len(data)):
        for bit in (5, index % 8):  # 5 turns a digit of the checksum into its capital
            flipped = bytearray(data)
            flipped[index] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                records = read_records(path)
            except CorruptError as error:
                messages.add(str(error).split(", line ")[0])
            else:
                # Only what touches the last line, or the newline before it, can pass for an interrupted write.
                assert index >= ends[-2] - 1
                assert records == RECORDS[: len(records)]
                assert len(records) >= len(RECORDS) - 2
    assert messages == {str(path)}


def test_a_bad_line_in_the_middle_is_named_and_nothing_is_changed(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"line", b"lime")
    broken = b"\n".join(lines)
    path.write_bytes(broken)
    with pytest.raises(CorruptError, match="line 3: its checksum"):
        open_log(path)
    assert path.read_bytes() == broken
    with pytest.raises(CorruptError):  # and the lock was given back: it is no ResourceError
        RecordLog(path)


@pytest.mark.parametrize("body", [b'{"a":NaN}', b'{"a":1,"a":1}', b"[1]", b'{"a":1e999}'])
def test_a_matching_checksum_does_not_excuse_bad_json(path: Path, body: bytes) -> None:
    bad = b"%08x %s\n" % (zlib.crc32(body), body)
    path.write_bytes(bad + path.read_bytes())
    with pytest.raises(CorruptError, match="line 1"):
        read_records(path)


def test_what_json_refuses_is_not_written(path: Path) -> None:
    before = path.read_bytes()
    with RecordLog(path) as log, pytest.raises(ValueError, match="float"):
        log.append([{"fine": 1}, {"bad": float("nan")}])
    assert path.read_bytes() == before


def test_full_disk_leaves_the_log_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    real = os.pwrite
    with RecordLog(path) as log:
        calls = iter([5])

        def short_then_full(file: int, data: bytes, offset: int) -> int:
            for count in calls:
                return real(file, bytes(data[:count]), offset)
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "pwrite", short_then_full)
        with pytest.raises(ResourceError, match="bytes needed"):
            log.append([{"n": 6}])
        monkeypatch.undo()
        assert path.read_bytes() == before
        log.append([{"n": 6}])
    assert read_records(path) == [*RECORDS, {"n": 6}]


def test_a_disk_too_full_for_the_lock_is_said_and_the_lock_given_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ResourceError, match="bytes needed"):
        RecordLog(path)
    monkeypatch.undo()
    RecordLog(path).close()


def test_an_interrupt_inside_an_append_takes_it_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    with RecordLog(path) as log:

        def interrupted(_: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append([{"n": 6}])
        monkeypatch.undo()
    assert path.read_bytes() == before


def test_a_second_writer_is_told_whom_to_wait_for(path: Path) -> None:
    with RecordLog(path):
        with pytest.raises(ResourceError, match=f"process {os.getpid()} on "):
            RecordLog(path)
        assert read_records(path) == RECORDS  # reading needs no lock
    RecordLog(path).close()


def test_a_lock_can_be_held_on_a_log_that_is_not_read(path: Path) -> None:
    """Who holds it keeps writers out and is kept out by them, whatever is in the log; a log without lock gets none."""
    with RecordLog(path), pytest.raises(ResourceError, match=f"process {os.getpid()} on "), hold_lock(path):
        pytest.fail("held twice")
    path.write_bytes(b"no log\nat all\n")
    with hold_lock(path), pytest.raises(ResourceError):
        RecordLog(path)
    with hold_lock(path):  # it was given back
        path.unlink()
    other = path.with_name("other.jsonl")
    with hold_lock(other), hold_lock(path.parent / "none" / "x"):
        assert list(path.parent.glob("other*")) == []


def test_a_killed_writer_leaves_a_usable_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    code = (
        "import sys\nfrom claspkit.profiles.records import RecordLog\n"
        "log = RecordLog(sys.argv[1])\nfor n in range(10**6):\n"
        "    log.append([{'n': 2 * n}, {'n': 2 * n + 1}])\n    print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        seen = [int(child.stdout.readline()) for _ in range(20)][-1]
        with pytest.raises(ResourceError, match=f"process {child.pid} on "):
            RecordLog(path)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        log, records = open_log(path)
    log.close()
    assert [record["n"] for record in records] == list(range(len(records)))
    assert len(records) >= 2 * (seen + 1)


def test_absent_files_and_folders_have_plain_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no record log"):
        read_records(tmp_path / "none")
    with pytest.raises(UsageError, match="does not exist"):
        RecordLog(tmp_path / "none" / "log")
    log = RecordLog(tmp_path / "new")
    log.close()
    log.close()
    assert read_records(tmp_path / "new") == []
    with pytest.raises(UsageError, match="closed"):
        log.append([{}])


def chunks(records: list[dict[str, int]]) -> Iterator[list[dict[str, int]]]:
    yield from (records[start : start + 3] for start in range(0, len(records), 3))


@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.integers(0, 99), max_size=9), cut=st.integers(0, 200))
def test_any_cut_leaves_a_prefix_that_can_be_continued(values: list[int], cut: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    wanted = [{"v": value} for value in values]
    with RecordLog(path) as log:
        for chunk in chunks(wanted):
            log.append(chunk)
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    log, records = open_log(path)
    with log:
        assert records == wanted[: len(records)]
        log.append(wanted[len(records) :])
    assert path.read_bytes() == data
